"""What bad media cost: each is refused within 2 seconds of processor time and 256 MiB, in a process of its
own that reads the whole gallery."""

from __future__ import annotations

import json
import pathlib
import resource
import subprocess
import sys
import time

import numpy as np
import pytest

import alloyforge as af
from alloyforge.media.images import read_image
from alloyforge.media.loader import request_loader
from alloyforge.media.video import MAX_FRAMES, read_video
from tests.test_media import GALLERY, data_url, video_of

SECONDS, MEMORY = 2.0, 256 << 20


def refused(path: pathlib.Path) -> None:
    """Reads what is at `path` as its ending says, which must fail as media do."""
    with pytest.raises(af.MediaError):
        read(path.suffix, path.read_bytes())


def read(kind: str, data: bytes) -> None:
    """Reads `data` to the end."""
    if kind == ".url":
        request_loader().fetch(data.decode(), "images[0]")
    elif kind == ".video":
        read_video(data).spread(4)
    elif kind == ".frames":
        read_video(af.Video(np.broadcast_to(np.zeros(3, np.uint8), (int(data), 8, 8, 3)))).spread(4)
    else:
        read_image(data)


def child(folder: str) -> None:
    """Prints what each file of `folder` took: its name, seconds, and bytes of the highest mark so far."""
    refused_once = pathlib.Path(folder) / "0.image"
    refused(refused_once)
    paths = sorted(path for path in pathlib.Path(folder).iterdir())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    rows = []
    for path in paths:
        begin = time.process_time()
        refused(path)
        seconds = time.process_time() - begin
        rows.append(
            (path.name, seconds, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
        )
    print(json.dumps(rows))


def test_what_the_gallery_costs(tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "gallery"
    folder.mkdir()
    for i, data in enumerate(GALLERY.values()):
        (folder / f"{i}.image").write_bytes(data)
        # as it would come over a network, and as somebody else's idea of a video
        (folder / f"{i}.video").write_bytes(data)
    playlists = {
        "hls": b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
        "concat": b"ffconcat version 1.0\nfile '/etc/passwd'\n",
        "dash": b"<?xml version='1.0'?><MPD xmlns='urn:mpeg:dash:schema:mpd:2011'></MPD>",
        "sdp": b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=a\nm=video 9 RTP/AVP 96\n",
    }
    for name, data in playlists.items():
        (folder / f"{name}.video").write_bytes(data)
    many = video_of(MAX_FRAMES + 904, (16, 16))
    (folder / "many.video").write_bytes(many)
    (folder / "many.image").write_bytes(many)
    (folder / "half.video").write_bytes(video_of(25)[:300])
    (folder / "many.frames").write_text("5000")
    (folder / "long.url").write_text(data_url(b"")[:22] + "A" * (90 << 20))
    (folder / "file.url").write_text("file:///etc/passwd")
    (folder / "inside.url").write_text("http://127.0.0.1:9/")
    code = f"from tests.test_media_limits import child; child({str(folder)!r})"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
        cwd=pathlib.Path(__file__).parent.parent,
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert len(rows) == 2 * len(GALLERY) + 7 + len(playlists)
    for name, seconds, memory in rows:
        assert seconds < SECONDS, f"{name} took {seconds:.1f} s"
        assert memory < MEMORY, f"{name} took {memory >> 20} MiB"
