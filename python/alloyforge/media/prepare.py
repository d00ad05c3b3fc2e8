"""From what a caller hands over to items for the native session."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from alloyforge.errors import MediaError, invalid, media_error
from alloyforge.media.audio import load_audio
from alloyforge.media.images import read_image
from alloyforge.media.video import Video, read_video
from alloyforge.processors import Item, Processor, Sound, make_processor

if TYPE_CHECKING:
    from alloyforge import _native


class Preparer:
    """Prepares the media of one session's requests.

    Args:
        session: The session, whose model says which processor it wants.
    """

    def __init__(self, session: _native.Session) -> None:
        self._session = session

    @cached_property
    def _processor(self) -> Processor | Sound | None:
        return make_processor(json.loads(self._session.processor()))

    def _for(self, name: str) -> Processor:
        if self._processor is None or isinstance(self._processor, Sound):
            raise invalid(name, "the model takes none")
        return self._processor

    def items(self, images: object = None, audio: object = None, videos: object = None) -> list[Item]:
        """The items of a request, each kind in the caller's order.

        Raises:
            InvalidRequestError: media that the model does not take.
            MediaError: a picture, video or sound that cannot be used.
        """
        items = [self._image(image, name) for image, name in _listed(images, "images")]
        items += [self._video(video, name) for video, name in _listed(videos, "videos")]
        return items + [self._audio(sound, name) for sound, name in _listed(audio, "audio")]

    def _image(self, image: object, name: str) -> Item:
        with _named(name):
            processor = self._for("images")
            return processor.image(read_image(image, name))

    def _video(self, video: object, name: str) -> Item:
        with _named(name):
            processor = self._for("videos")
            return processor.video(read_video(video, name))

    def _audio(self, sound: object, name: str) -> Item:
        if not isinstance(self._processor, Sound):
            raise invalid("audio", "the model takes none")
        return self._processor.audio(load_audio(sound, item=name))


class _named:  # noqa: N801 - used as a function
    """Gives errors of a processor, which knows no names, the name of what it was given."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, MediaError) and error.item in ("image", "video"):
            fault = str(error).removeprefix(f"{error.item}: ")
            raise media_error(self._name, fault) from error


def _listed(media: object, name: str) -> list[tuple[object, str]]:
    """`media`, one or several, each with what errors call it."""
    if media is None:
        return []
    is_one = isinstance(media, (str, bytes, bytearray, memoryview, np.ndarray, Video))
    # `(samples, rate)` is one sound
    is_one |= name == "audio" and isinstance(media, tuple)
    if is_one or not isinstance(media, Sequence):
        return [(media, f"{name}[0]")]
    if not media:
        raise invalid(name, "must not be empty")
    return [(one, f"{name}[{i}]") for i, one in enumerate(media)]
