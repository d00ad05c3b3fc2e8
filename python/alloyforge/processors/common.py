"""What processors share: settings, resizing, normalising."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypedDict

import numpy as np

from alloyforge.errors import ModelFormatError, invalid, media_error
from alloyforge.media.images import MAX_PIXELS, pillow

if TYPE_CHECKING:
    import numpy.typing as npt
    from PIL import Image

    from alloyforge.media.video import Frames

Pixels = "npt.NDArray[np.float32]"

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
HALF = (0.5, 0.5, 0.5)
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

NEAREST, LANCZOS, BILINEAR, BICUBIC = 0, 1, 2, 3


class Item(TypedDict):
    """A prepared item, as the native session takes it."""

    kind: str
    tensors: dict[str, npt.NDArray[np.float32]]
    facts: dict[str, list[float]]


class Processor(Protocol):
    """Prepares the media of one family."""

    def image(self, image: Image.Image) -> Item:
        """A picture, prepared."""

    def video(self, frames: Frames) -> Item:
        """A video, prepared."""


class Settings:
    """A processor's configuration: the first of its files that has a key rules.

    Args:
        settings: What the native session gives.
        part: The part of `processor_config.json` that the processor's own settings stand in.
        files: The files to look in, first to last.
    """

    def __init__(
        self,
        settings: Mapping[str, Any],
        part: str = "image_processor",
        files: tuple[str, ...] = ("preprocessor_config.json",),
    ) -> None:
        given: Mapping[str, Any] = settings.get("files") or {}
        combined: Mapping[str, Any] = given.get("processor_config.json") or {}
        self._sources: list[Mapping[str, Any]] = [given[name] for name in files if name in given]
        self._sources += [inner for inner in (combined.get(part),) if isinstance(inner, Mapping)]
        self._sources.append(combined)
        self._sources.append(settings)

    def get(self, key: str, default: Any = None) -> Any:
        """The value of `key`."""
        for source in self._sources:
            if source.get(key) is not None:
                return source[key]
        return default

    def number(self, key: str, default: float) -> float:
        """The finite number of `key`."""
        value = self.get(key, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 1e12:
            raise _damaged(key, value)
        return value

    def count(self, key: str, default: int) -> int:
        """The positive integer of `key`."""
        value = self.number(key, default)
        if value != int(value) or value < 1:
            raise _damaged(key, value)
        return int(value)

    def flag(self, key: str, default: bool) -> bool:
        """The boolean of `key`."""
        return bool(self.get(key, default))

    def triple(self, key: str, default: tuple[float, ...]) -> npt.NDArray[np.float32]:
        """Three numbers of `key`."""
        value = self.get(key, default)
        array = np.asarray([value] * 3 if isinstance(value, (int, float)) else value, dtype=np.float32)
        if array.shape != (3,) or not np.isfinite(array).all():
            raise _damaged(key, value)
        return array

    def size(self, key: str, default: Mapping[str, int]) -> dict[str, int]:
        """A size: `height` and `width`, `shortest_edge`, `longest_edge`, in pixels."""
        value = self.get(key, default)
        if isinstance(value, int):
            value = {"shortest_edge": value}
        if not isinstance(value, Mapping) or not value:
            raise _damaged(key, value)
        size = {k: v for k, v in value.items() if v is not None}
        if not all(isinstance(v, int) and 0 < v < 1 << 40 for v in size.values()):
            raise _damaged(key, value)
        return size


def _damaged(key: str, value: object) -> ModelFormatError:
    error = ModelFormatError(f"processor configuration: `{key}` is {str(value)[:60]}")
    error.file, error.item, error.offset = "preprocessor_config.json", key, None
    return error


def resized(image: Image.Image, height: int, width: int, resample: int) -> Image.Image:
    """`image` in another size, each pixel of which is made of all that it covers."""
    if height < 1 or width < 1 or height * width > 4 * MAX_PIXELS:
        raise media_error("image", f"cannot be made {height} x {width} pixels")
    if image.size == (width, height):
        return image
    return image.resize((width, height), resample=pillow().Resampling(resample))


def shortest_edge_size(image: Image.Image, edge: int) -> tuple[int, int]:
    """Height and width of `image` when its shorter edge has `edge` pixels."""
    width, height = image.size
    short, long = min(width, height), max(width, height)
    other = int(edge * long / short)
    return (other, edge) if height > width else (edge, other)


def centre_crop(image: Image.Image, height: int, width: int) -> Image.Image:
    """The middle of `image`; black where it is smaller."""
    own_width, own_height = image.size
    left, top = (own_width - width) // 2, (own_height - height) // 2
    return image.crop((left, top, left + width, top + height))


class Normaliser:
    """From bytes to the numbers that an encoder was trained on.

    Args:
        settings: The configuration.
        mean: Its mean where it says none.
        std: Its deviation where it says none.
    """

    def __init__(self, settings: Settings, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        factor = settings.number("rescale_factor", 1 / 255) if settings.flag("do_rescale", True) else 1.0
        means, stds = np.zeros(3, np.float32), np.ones(3, np.float32)
        if settings.flag("do_normalize", True):
            means, stds = settings.triple("image_mean", mean), settings.triple("image_std", std)
        if not stds.all():
            raise _damaged("image_std", stds.tolist())
        # what each byte becomes in each channel
        values = np.arange(256, dtype=np.float32) * np.float32(factor)
        self._table = ((values[None] - means[:, None]) / stds[:, None]).astype(np.float32)

    def __call__(self, image: Image.Image) -> npt.NDArray[np.float32]:
        """`image` as float32 of shape `(3, height, width)`."""
        pixels = np.asarray(image)
        return np.stack([table.take(pixels[:, :, i]) for i, table in enumerate(self._table)])


def no_video() -> Exception:
    """The error of a family that takes no videos."""
    return invalid("videos", "the model takes none")
