"""Sound from files: what is read, what it comes to, what is refused."""

from __future__ import annotations

import io
import pathlib
import struct
import wave
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import alloyforge as af
from alloyforge.media import load_audio
from alloyforge.media.loader import Loader
from alloyforge.media.wav import decode_wav


def riff(body: bytes, *, kind: int = 1, channels: int = 1, rate: int = 16000, bits: int = 16) -> bytes:
    block = channels * bits // 8
    fmt = struct.pack("<HHIIHH", kind, channels, rate, rate * block, block, bits)
    chunks = b"fmt " + struct.pack("<I", len(fmt)) + fmt + b"data" + struct.pack("<I", len(body)) + body
    return b"RIFF" + struct.pack("<I", len(chunks) + 4) + b"WAVE" + chunks


TONE: npt.NDArray[np.float64] = np.sin(np.arange(1600) * 0.1) * 0.5


@pytest.mark.parametrize(
    ("kind", "bits", "body"),
    [
        (1, 8, (TONE * 128 + 128).round().astype(np.uint8).tobytes()),
        (1, 16, (TONE * 2**15).astype("<i2").tobytes()),
        (1, 24, b"".join(int(x * 2**23).to_bytes(3, "little", signed=True) for x in TONE)),
        (1, 32, (TONE * 2**31).astype("<i4").tobytes()),
        (3, 32, TONE.astype("<f4").tobytes()),
        (3, 64, TONE.astype("<f8").tobytes()),
    ],
)
def test_every_depth_comes_to_the_same(kind: int, bits: int, body: bytes) -> None:
    found = load_audio(riff(body, kind=kind, bits=bits))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, TONE, rtol=0, atol=1.5 * 2.0 ** (1 - min(bits, 24)))


def test_channels_are_averaged() -> None:
    both = np.stack([TONE, TONE * 0.5], axis=1)
    want = (TONE * 0.75).astype(np.float32)
    body = (both * 2**15).astype("<i2").tobytes()
    np.testing.assert_allclose(load_audio(riff(body, channels=2)), want, atol=1e-4)
    np.testing.assert_allclose(load_audio((both, 16000)), want, atol=1e-6)
    np.testing.assert_allclose(load_audio(((both * 2**15).astype(np.int16), 16000)), want, atol=1e-4)
    same = np.stack([TONE, TONE], axis=1)
    np.testing.assert_allclose(load_audio((same, 16000)), TONE.astype(np.float32), atol=1e-7)


def test_python_s_own_writer_is_read(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "tone.wav"
    with wave.open(str(path), "wb") as out:
        out.setnchannels(2)
        out.setsampwidth(2)
        out.setframerate(48000)
        out.writeframes((np.repeat(TONE, 2) * 2**15).astype("<i2").tobytes())
    found = load_audio(path)
    assert len(found) == round(len(TONE) / 3)
    np.testing.assert_allclose(found[60:-60], TONE[::3][60 : len(found) - 60], atol=5e-3)


@pytest.mark.parametrize("law", ["alaw", "mulaw"])
def test_telephone_codes_rise_with_what_they_stand_for(law: str) -> None:
    found = load_audio(riff(bytes(range(256)), kind=6 if law == "alaw" else 7, bits=8))
    assert len(set(found.tolist())) >= 255
    assert 0.95 < found.max() < 1.0
    assert found.max() == -found.min()
    # the codes that the recommendation gives for silence
    quiet = (0xD5, 0x55) if law == "alaw" else (0xFF, 0x7F)
    assert all(abs(found[code]) < 0.001 for code in quiet)


@pytest.mark.parametrize(
    "sound",
    [
        b"",
        b"RIFF\x00\x00\x00\x00WAVE",
        riff(b""),
        riff(b"\0\0", bits=12),
        riff(b"\0\0", kind=2),
        riff(b"\0\0", channels=0),
        riff(b"\0\0", rate=0),
        riff(np.array([0.0, np.nan], "<f4").tobytes(), kind=3, bits=32),
        riff(b"\0\0" * 4, rate=2_000_000_000),
        b"fLaC",
        b"fLaC\x80\xff\xff\xff",
        (np.zeros(0), 16000),
        (np.array([np.inf]), 16000),
        (np.zeros(4), 0),
        (np.zeros(4), 1.5),
        (np.zeros((2, 2, 2)), 16000),
        (np.zeros((2, 100)), 16000),
        (np.array(["a"]), 16000),
        (np.zeros(4),),
        "data:audio/wav,abc",
        "data:audio/wav;base64,???",
        7,
    ],
)
def test_what_cannot_be_used_is_a_media_error(sound: Any) -> None:
    with pytest.raises(af.MediaError) as caught:
        load_audio(sound, item="audio[1]")
    assert caught.value.item == "audio[1]"


def test_a_missing_file_is_missing(tmp_path: pathlib.Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_audio(tmp_path / "none.wav")
    with pytest.raises(af.MediaError, match="folder"):
        load_audio(tmp_path)


def test_strangers_name_no_paths(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "tone.wav"
    path.write_bytes(riff(TONE.astype("<f4").tobytes(), kind=3, bits=32))
    for source in (path, str(path), f"file://{path}", "https://example.org/tone.wav"):
        with pytest.raises(af.MediaError, match="not allowed"):
            load_audio(source, loader=Loader())
    assert len(load_audio(path.read_bytes(), loader=Loader())) == len(TONE)


def test_lengths_are_counted_and_not_believed() -> None:
    body = np.zeros(100, "<i2").tobytes()
    lying = bytearray(riff(body))
    lying[40:44] = b"\xff" * 4
    assert len(load_audio(bytes(lying))) == 100
    with pytest.raises(af.MediaError, match="more than 99"):
        decode_wav(riff(body), "audio", 99)


@settings(max_examples=200, deadline=None)
@given(
    st.binary(max_size=200), st.sampled_from([b"RIFF\0\0\0\0WAVEfmt ", b"fLaC", b"ID3\x04\0\0\0\0\0\0fLaC"])
)
def test_strange_bytes_are_media_errors(body: bytes, head: bytes) -> None:
    try:
        found = load_audio(head + body)
    except af.MediaError:
        return
    assert np.isfinite(found).all()


def test_other_formats_need_av() -> None:
    try:
        import av
    except ImportError:
        with pytest.raises(af.MissingDependencyError, match="media"):
            load_audio(b"OggS" + bytes(100))
        return
    with pytest.raises(af.MediaError):
        load_audio(b"OggS" + bytes(100))
    with pytest.raises(af.MediaError, match="kind that is read"):
        # a playlist, whose reader would open what it names
        load_audio(b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nhttp://127.0.0.1:9/a.ts\n")
    # encoders that FFmpeg itself has, so that every build can write them
    for form, codec, sample, tolerance in (("ogg", "flac", "s16", 1e-4), ("adts", "aac", "fltp", 0.02)):
        found = load_audio(encoded(av, form, codec, sample))
        assert found.dtype == np.float32
        middle = found[len(found) // 4 : len(found) // 2]
        # a tone in the middle, whatever an encoder puts before it
        rms = float(np.sqrt(np.mean(middle**2)))
        assert rms == pytest.approx(float(np.sqrt(np.mean(LONG_TONE**2))), abs=tolerance)
        if codec == "flac":
            np.testing.assert_allclose(found, LONG_TONE, rtol=0, atol=tolerance)


LONG_TONE: npt.NDArray[np.float64] = np.sin(np.arange(16000) * 0.1 * np.pi) * 0.5


def encoded(av: Any, form: str, codec: str, sample: str) -> bytes:
    """The long tone on two channels, as PyAV writes it."""
    out = io.BytesIO()
    both = np.stack([LONG_TONE, LONG_TONE])
    # packed samples stand side by side, planar ones a row each
    array = both.astype(np.float32) if sample == "fltp" else (both.T * 2**15).astype(np.int16).reshape(1, -1)
    with av.open(out, "w", format=form) as container:
        stream = container.add_stream(codec, rate=16000)
        stream.layout = "stereo"
        frame = av.AudioFrame.from_ndarray(array, format=sample, layout="stereo")
        frame.sample_rate, frame.pts = 16000, 0
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    return out.getvalue()
