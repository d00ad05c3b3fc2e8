"""Bad media, hostile addresses: each a `MediaError`, soon, and without the memory that it asks for."""

from __future__ import annotations

import base64
import contextlib
import io
import os
import pathlib
import socket
import struct
import threading
import zlib
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest
from PIL import Image

import alloyforge as af
from alloyforge.media import loader
from alloyforge.media.images import MAX_PIXELS, read_image
from alloyforge.media.loader import LOCAL, request_loader
from alloyforge.media.video import MAX_FRAMES, read_video

SECRET = "secret-path-or-host"


def png_of(width: int, height: int, data: bytes | None = None) -> bytes:
    """A PNG whose header says so, with `data` behind it."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + check

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(b"\0" * 1000) if data is None else data
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def picture(width: int = 20, height: int = 10) -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


GALLERY: dict[str, bytes] = {
    "nothing": b"",
    "text": b"GIF, they say",
    "a PNG of 40,000 x 40,000": png_of(40_000, 40_000),
    "a PNG of 2^31 x 2^31": png_of(2**31 - 1, 2**31 - 1),
    "a PNG of no pixels": png_of(0, 7),
    "a PNG of lines that are not there": png_of(4000, 4000),
    "a bomb in a PNG": png_of(5000, 5000, zlib.compress(b"\0" * (1 << 24), 9)),
    "half a PNG": encoded(picture(200, 200))[:4000],
    "half a JPEG": encoded(picture(200, 200), "JPEG")[:100],
    "a PNG with other numbers": encoded(picture())[:60] + b"\xff" * 300,
    "a TIFF": encoded(picture(), "TIFF"),
    "a PDF": encoded(picture(), "PDF"),
    "an ICO": encoded(picture(32, 32), "ICO"),
    "a PPM": encoded(picture(), "PPM"),
    "an SVG": b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>",
    "an EPS": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n",
}


@pytest.mark.parametrize("name", GALLERY)
def test_bad_pictures(name: str) -> None:
    with pytest.raises(af.MediaError) as caught:
        read_image(GALLERY[name], "images[0]")
    assert caught.value.item == "images[0]"
    assert str(caught.value).startswith("images[0]: ")


@pytest.mark.parametrize("source", [7, ["a", "list"], np.zeros((3, 3)), np.zeros((0, 4, 3), np.uint8)])
def test_what_is_no_picture(source: object) -> None:
    with pytest.raises(af.MediaError):
        read_image(source)


def test_a_missing_file_is_a_missing_file(tmp_path: pathlib.Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_image(tmp_path / "none.png")


def test_a_wrong_extension_says_nothing(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "picture.jpg"
    path.write_bytes(encoded(picture()))
    assert read_image(path).size == (20, 10)


def test_one_pixel_is_a_picture() -> None:
    assert read_image(encoded(picture(1, 1))).size == (1, 1)


def test_what_is_transparent_becomes_white() -> None:
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    for image in (clear, clear.convert("LA")):
        assert read_image(encoded(image)).getpixel((1, 1)) == (255, 255, 255)
    indexed = Image.new("P", (4, 4), 0)
    indexed.putpalette([10, 20, 30] * 256)
    assert read_image(encoded(indexed, "GIF", transparency=0)).getpixel((0, 0)) == (255, 255, 255)
    half = Image.new("RGBA", (1, 1), (0, 0, 0, 128))
    assert read_image(half).getpixel((0, 0)) == (127, 127, 127)


def test_a_picture_is_turned_as_it_was_held() -> None:
    image = picture(20, 10)
    exif = image.getexif()
    exif[0x0112] = 6
    turned = read_image(encoded(image, "PNG", exif=exif))
    assert turned.size == (10, 20)
    assert np.array_equal(np.asarray(turned), np.rot90(np.asarray(image), -1))


def test_of_an_animated_picture_the_first_frame() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ((200, 0, 0), (0, 200, 0))]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert read_image(data).getpixel((0, 0)) == (200, 0, 0)


def video_of(frames: int, size: tuple[int, int] = (32, 32)) -> bytes:
    import av

    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as container:
        stream: Any = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        grey = av.VideoFrame.from_ndarray(np.full((size[1], size[0], 3), 90, np.uint8), "rgb24")
        for _ in range(frames):
            container.mux(stream.encode(grey))
        container.mux(stream.encode())
    return out.getvalue()


def test_videos_are_sampled_from_first_to_last() -> None:
    frames = read_video(video_of(25))
    assert (frames.count, frames.fps, frames.duration) == (25, 10.0, 2.5)
    chosen = frames.spread(5)
    assert chosen.times == [0.0, 0.6, 1.2, 1.8, 2.4]
    assert [image.size for image in chosen.images] == [(32, 32)] * 5
    memory = read_video(af.Video(np.zeros((4, 8, 6, 3), np.uint8), fps=2.0))
    assert memory.spread(99).times == [0.0, 0.5, 1.0, 1.5]


@pytest.mark.parametrize(
    "name", ["5,000 frames", "no video", "half a video", "5,000 frames in memory", "frames too large"]
)
def test_bad_videos(name: str) -> None:
    many = np.broadcast_to(np.zeros(3, np.uint8), (5000, 2, 2, 3))
    large = np.broadcast_to(np.zeros(3, np.uint8), (1, MAX_PIXELS, 2, 3))
    sources: dict[str, Callable[[], object]] = {
        "5,000 frames": lambda: video_of(MAX_FRAMES + 904, (16, 16)),
        "no video": lambda: b"\0" * 1000,
        "half a video": lambda: video_of(25)[:300],
        "5,000 frames in memory": lambda: af.Video(many),
        "frames too large": lambda: af.Video(large),
    }
    source = sources[name]()
    with pytest.raises(af.MediaError):
        read_video(source).spread(4)


def data_url(data: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(data).decode()


def test_data_addresses() -> None:
    for policy in (LOCAL, request_loader()):
        assert policy.fetch(data_url(b"abc"), "item") == b"abc"
        assert policy.fetch("data:,a%20b", "item") == b"a b"
        assert policy.fetch("data:;base64,YWI", "item") == b"ab"
        for bad in ("data:abc", "data:;base64,a*c=", "data:;base64,a", "data:;base64," + "A" * (100 << 20)):
            with pytest.raises(af.MediaError):
                policy.fetch(bad, "item")


@pytest.fixture
def server() -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.startswith("/loop"):
                self.send_response(302)
                self.send_header("Location", "/loop2" if self.path == "/loop" else "/loop")
                self.end_headers()
            elif self.path == "/file":
                self.send_response(302)
                self.send_header("Location", "file:///etc/passwd")
                self.end_headers()
            elif self.path == "/large":
                self.send_response(200)
                self.send_header("Content-Length", str(1 << 40))
                self.end_headers()
            elif self.path == "/endless":
                self.send_response(200)
                self.end_headers()
                with contextlib.suppress(OSError):
                    while True:
                        self.wfile.write(b"\0" * (1 << 20))
            elif self.path == "/once":
                self.send_response(301)
                self.send_header("Location", "/good")
                self.end_headers()
            else:
                self.send_response(200 if self.path == "/good" else 404)
                self.end_headers()
                self.wfile.write(b"body")

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://localhost:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_the_callers_own_addresses(server: str) -> None:
    assert LOCAL.fetch(f"{server}/good", "item") == b"body"
    assert LOCAL.fetch(f"{server}/once", "item") == b"body"
    for path in ("/loop", "/file", "/large", "/none"):
        with pytest.raises(af.MediaError):
            LOCAL.fetch(server + path, "item")


def test_an_endless_answer_ends(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader, "MAX_BYTES", 4 << 20)
    with pytest.raises(af.MediaError, match="larger"):
        LOCAL.fetch(f"{server}/endless", "item")


HOSTILE = [
    "file:///etc/passwd",
    "/etc/passwd",
    "../etc/passwd",
    "C:\\windows\\win.ini",
    "ftp://example.org/a.png",
    "gopher://example.org/",
    "http://",
    "http://[",
    "http://user:word@example.org/a.png",
    "http://other.example/a.png",
    "http://169.254.169.254/latest/meta-data/",
    "http://127.0.0.1/",
    "http://0/",
    "http://[::1]/",
    "http://[::ffff:127.0.0.1]/",
    "http://2130706433/",
    "https://example.org.evil.example/a.png",
    "http://example.org:99999/a.png",
    "javascript:alert(1)",
    "",
]


@pytest.mark.parametrize("address", HOSTILE)
def test_hostile_addresses(address: str) -> None:
    for policy in (request_loader(), request_loader(hosts=["example.org"])):
        with pytest.raises(af.MediaError) as caught:
            policy.fetch(address, "messages[0].content[0]")
        text = str(caught.value)
        assert not address or address not in text
        assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "192.168.0.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "fe80::1",
        "fc00::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
    ],
)
def test_hosts_that_resolve_inside(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET

    def resolve(host: str, port: int, **options: object) -> list[Any]:
        public = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("93.184.216.34", port))
        return [public, (family, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(socket, "create_connection", lambda *_: pytest.fail("connected"))
    with pytest.raises(af.MediaError, match="not allowed"):
        request_loader(hosts=["example.org"]).fetch("http://example.org/a.png", "item")


def test_the_address_that_was_checked_is_the_one_asked(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that resolves to something else the second time does not lead there."""
    port = int(server.rsplit(":", 1)[1])
    answers = iter(["93.184.216.34", "127.0.0.1", "127.0.0.1"])
    asked: list[Any] = []

    def resolve(host: str, port: int, **options: object) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (next(answers), port))]

    def connected(address: tuple[str, int], timeout: float) -> socket.socket:
        asked.append(address)
        inside = socket.socket()
        inside.settimeout(timeout)
        inside.connect(("127.0.0.1", port))
        return inside

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(socket, "create_connection", connected)
    policy = request_loader(hosts=["example.org"])
    assert policy.fetch(f"http://example.org:{port}/good", "item") == b"body"
    assert asked == [("93.184.216.34", port)]
    # the redirect is resolved, and refused, again
    answers = iter(["93.184.216.34", "127.0.0.1"])
    with pytest.raises(af.MediaError, match="not allowed"):
        policy.fetch(f"http://example.org:{port}/once", "item")


def test_files_within_a_root(tmp_path: pathlib.Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    (root / "inner").mkdir(parents=True)
    outside.write_bytes(b"outside")
    (root / "inner" / "file").write_bytes(b"inside")
    (root / "link").symlink_to(outside)
    (root / "folder").symlink_to(tmp_path)
    (root / "inside").symlink_to(root / "inner" / "file")
    os.mkfifo(root / "pipe")
    policy = request_loader(root=root)
    assert policy.fetch(str(root / "inner" / "file"), "item") == b"inside"
    assert policy.fetch((root / "inner" / "file").as_uri(), "item") == b"inside"
    bad = ["../outside", "link", "folder/outside", "inside", "pipe", "inner", "none", "inner/../../outside"]
    for path in [
        str(outside),
        *(str(root / name) for name in bad),
        "/dev/zero",
        "/proc/self/environ",
        "a\0b",
    ]:
        with pytest.raises(af.MediaError) as caught:
            policy.fetch(path, "item")
        assert str(tmp_path) not in str(caught.value)
