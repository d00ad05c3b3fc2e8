"""Which of FFmpeg's readers a file is for.

Left to itself FFmpeg tries every reader that it has, among them playlists, which open the files and
addresses that they name. Here the first bytes choose one that opens nothing else.
"""

from __future__ import annotations

# Where a file begins with one of these, and the reader's name.
_CONTAINERS = (
    (4, (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"), "mov"),
    (0, (b"\x1a\x45\xdf\xa3",), "matroska"),
    (8, (b"AVI ",), "avi"),
    (0, (b"GIF87a", b"GIF89a"), "gif"),
    (0, (b"OggS",), "ogg"),
    (0, (b"FLV\x01",), "flv"),
    (0, (b"\x00\x00\x01\xba",), "mpeg"),
    (0, (b"\x47",), "mpegts"),
)

# The same for files of sound alone.
_SOUNDS = (
    (0, (b"\xff\xf1", b"\xff\xf9"), "aac"),
    (0, (b"ID3", b"\xff\xfb", b"\xff\xfa", b"\xff\xf3", b"\xff\xf2", b"\xff\xe3", b"\xff\xe2"), "mp3"),
    (8, (b"AIFF", b"AIFC"), "aiff"),
    (0, (b"caff",), "caf"),
    (0, (b".snd",), "au"),
    (0, (b"#!AMR",), "amr"),
    (0, (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11",), "asf"),
)


def container(data: bytes, *, is_sound: bool = False) -> str | None:
    """The reader for a file that begins as `data` does, if any; `is_sound` adds those of sound alone."""
    for offset, beginnings, name in _CONTAINERS + (_SOUNDS if is_sound else ()):
        if any(data.startswith(beginning, offset) for beginning in beginnings):
            return name
    return None
