"""What AlloyForge raises.

Every exception here is an `AlloyForgeError`; a missing file is Python's own `FileNotFoundError`. The
core raises them with the facts as attributes, so that a caller never has to read the text.
"""

from __future__ import annotations


class AlloyForgeError(Exception):
    """The base of everything that AlloyForge raises of its own."""


class ModelFormatError(AlloyForgeError):
    """A damaged model file."""

    file: str
    """The file, as the caller named it."""
    item: str
    """The tensor, metadata key or part of the header at fault."""
    offset: int | None
    """Where in the file, in bytes from its start, where that is known."""


class UnsupportedModelError(AlloyForgeError):
    """A sound model of a kind that AlloyForge does not know."""

    file: str
    """The file, as the caller named it."""
    what: str
    """What is not known: an architecture, a key and its value, a tensor type."""


class InvalidRequestError(AlloyForgeError, ValueError):
    """A parameter whose value is wrong, or that this version does not support."""

    name: str
    """The parameter at fault."""


class ContextLengthError(InvalidRequestError):
    """More tokens than one sequence may hold."""

    tokens: int
    """Tokens that the request needs."""
    limit: int
    """Tokens that one sequence may hold."""


class QueueFullError(AlloyForgeError):
    """Too many requests are waiting."""

    waiting: int
    """Requests that are waiting."""
    limit: int
    """The most that may wait."""


class RequestTimeout(AlloyForgeError):
    """The request's own `timeout` passed."""

    seconds: float
    """The limit, in seconds."""


class OutOfMemoryError(AlloyForgeError):
    """More memory than there is, found before it was taken."""

    what: str
    """What the memory is for."""
    needed: int
    """Bytes that it needs."""
    available: int
    """Bytes that there are."""


class DeviceError(AlloyForgeError):
    """A device that is missing or failed."""

    device: str
    """The device, by the name the caller used."""


class MediaError(AlloyForgeError):
    """A picture, video or sound that cannot be used."""

    item: str
    """Which of the request's media."""


class SessionClosedError(AlloyForgeError):
    """A call on a session, or the rest of a stream, after `close()`."""


class InternalError(AlloyForgeError):
    """A defect of AlloyForge itself: the one request failed, the session goes on."""


class MissingDependencyError(AlloyForgeError, ImportError):
    """A package that an optional feature needs is not installed."""


class DownloadError(AlloyForgeError):
    """A model that could not be fetched."""


def invalid(name: str, fault: str) -> InvalidRequestError:
    """The error for a wrong parameter `name`."""
    error = InvalidRequestError(f"{name}: {fault}")
    error.name = name
    return error


def not_supported(name: str) -> InvalidRequestError:
    """The error for a parameter of the published interface that this version cannot honour."""
    return invalid(name, "is not supported by this version")


def media_error(item: str, fault: str) -> MediaError:
    """The error for a picture, video or sound `item`."""
    error = MediaError(f"{item}: {fault}")
    error.item = item
    return error
