"""Pictures: from what a caller has to RGB, upright and opaque.

Sizes are read from the header before anything is decoded, so that a file of a few bytes cannot ask for
gigabytes.
"""

from __future__ import annotations

import contextlib
import io
import os
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from alloyforge.errors import MissingDependencyError, media_error

if TYPE_CHECKING:
    import numpy.typing as npt
    from PIL import Image

MAX_PIXELS = 32_000_000
"""Pixels beyond which a picture is refused, before it is decoded."""

MAX_BYTES = 64 << 20
"""Bytes of a file beyond which it is refused, before it is read."""

_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
_ALPHA = ("RGBA", "LA", "PA", "RGBa", "La")


def pillow() -> Any:
    """Pillow's `Image` module.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        from PIL import Image
    except ImportError as error:
        message = "pictures need Pillow: pip install 'alloyforge[media]'"
        raise MissingDependencyError(message) from error
    return Image


def read_image(source: object, item: str = "image") -> Image.Image:
    """The picture in `source`: a path, bytes, a Pillow image or a uint8 array `(h, w, 3)`.

    Of an animated file it is the first frame; what is transparent becomes white, and a camera's note of
    how it was held is heeded.

    Args:
        source: The picture.
        item: What errors call it.

    Raises:
        FileNotFoundError: there is no such file.
        MediaError: a format that is not read, a damaged file, or more pixels than `MAX_PIXELS`.
        MissingDependencyError: Pillow is not installed.
    """
    module = pillow()
    if isinstance(source, np.ndarray):
        return _from_array(source, item)
    if isinstance(source, module.Image):
        _check_size(source.size, item)
        return _upright(source, item)
    if isinstance(source, (str, os.PathLike)):
        source = read_file(source, item)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _decode(bytes(source), item)
    raise media_error(
        item, f"must be a path, bytes, a Pillow image or an array, found {type(source).__name__}"
    )


def read_file(path: str | os.PathLike[str], item: str) -> bytes:
    """The bytes of a file of at most `MAX_BYTES`.

    Raises:
        FileNotFoundError: there is no such file.
        MediaError: it is larger.
    """
    with open(path, "rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise media_error(item, f"is larger than {MAX_BYTES >> 20} MiB")
    return data


def _decode(data: bytes, item: str) -> Image.Image:
    module = pillow()
    if len(data) > MAX_BYTES:
        raise media_error(item, f"is larger than {MAX_BYTES >> 20} MiB")
    try:
        with warnings.catch_warnings():
            # The size is checked here, with a limit of our own.
            warnings.simplefilter("ignore")
            image = module.open(io.BytesIO(data), formats=_FORMATS)
            _check_size(image.size, item)
            image.load()
    except module.UnidentifiedImageError as error:
        raise media_error(item, f"is none of {', '.join(_FORMATS)}, or damaged") from error
    except module.DecompressionBombError as error:
        raise media_error(item, f"has more than {MAX_PIXELS} pixels") from error
    except (OSError, ValueError, SyntaxError, EOFError, IndexError, KeyError, OverflowError) as error:
        raise media_error(item, "is damaged") from error
    return _upright(image, item)


def _check_size(size: tuple[int, int], item: str) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise media_error(item, "has no pixels")
    if width * height > MAX_PIXELS:
        raise media_error(item, f"has {width} x {height} pixels, more than {MAX_PIXELS}")


def _upright(image: Image.Image, item: str) -> Image.Image:
    from PIL import ImageOps

    # A damaged note of how it was held says nothing.
    with contextlib.suppress(Exception):
        image = ImageOps.exif_transpose(image) or image
    try:
        if image.mode in _ALPHA or "transparency" in image.info:
            image = image.convert("RGBA")
            white = pillow().new("RGBA", image.size, (255, 255, 255, 255))
            image = pillow().alpha_composite(white, image)
        return image if image.mode == "RGB" else image.convert("RGB")
    except (OSError, ValueError) as error:
        raise media_error(item, "cannot be made RGB") from error


def _from_array(array: npt.NDArray[Any], item: str) -> Image.Image:
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        raise media_error(item, f"must be uint8 of shape (h, w, 3), found {array.dtype} {array.shape}")
    _check_size((array.shape[1], array.shape[0]), item)
    image: Image.Image = pillow().fromarray(np.ascontiguousarray(array))
    return image
