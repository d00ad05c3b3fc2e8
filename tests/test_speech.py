"""Speech: the spectrum and the decoder against transformers, the walk over sound, the files of subtitles."""

from __future__ import annotations

import itertools
import json
import pathlib
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import alloyforge as af
from alloyforge import _native
from alloyforge.cli.main import main
from alloyforge.speech import WRITERS, timestamp
from tests.conftest import REFERENCE

WHISPER = REFERENCE / "whisper"
SOUND = str(WHISPER / "media" / "audio.wav")
PROMPT = load_file(WHISPER / "inputs.safetensors")["decoder_input_ids"][0].tolist()


@pytest.fixture(scope="module")
def tiny_whisper() -> Iterator[af.Session]:
    with af.Session(WHISPER, threads=1) as session:
        yield session


def test_the_spectrum_is_that_of_transformers() -> None:
    want = load_file(WHISPER / "inputs.safetensors")["input_features"][0]
    samples = af.load_audio(SOUND)
    got = _native.log_mel(samples, num_mels=want.shape[0], padded_len=want.shape[1] * 160, threads=2)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-4)


@pytest.mark.parametrize("config", ["v4", "v5"])
@pytest.mark.parametrize("backend", ["native", "candle"])
def test_logits_and_tokens_are_those_of_transformers(
    backend: str, config: str, tmp_path: pathlib.Path
) -> None:
    folder = WHISPER
    if config == "v4":
        folder = shutil.copytree(WHISPER, tmp_path / "whisper")
        shutil.copy(folder / "config.v4.json", folder / "config.json")
    want = load_file(folder / "expected.safetensors")
    with af.Session(folder, backend=backend, dtype="f32", kv_dtype="f32") as session:
        logits = session.logits(PROMPT, audio=[SOUND])
        np.testing.assert_allclose(logits, want["logits"][0], rtol=0, atol=5e-4)
        answer = session.generate(PROMPT, audio=[SOUND], temperature=0, max_tokens=16, ignore_eos=True)
        assert answer.tokens == want["greedy_ids"][0].tolist()


@pytest.mark.parametrize("quantize", ["q8_0", "q4_0"])
def test_quantised_weights_stay_near(quantize: str) -> None:
    want = load_file(WHISPER / "expected.safetensors")["logits"][0]
    with af.Session(WHISPER, quantize=quantize) as session:
        got = session.logits(PROMPT, audio=SOUND)
    cosine = np.sum(got * want) / np.linalg.norm(got) / np.linalg.norm(want)
    assert cosine > (0.999 if quantize == "q8_0" else 0.95)


def test_beams_of_one_are_greedy_and_batches_are_their_windows(tiny_whisper: af.Session) -> None:
    def tokens(**options: Any) -> list[list[int]]:
        found = tiny_whisper.transcribe(SOUND, temperature=0, **OPEN, **options)
        return [segment.tokens for segment in found.segments]

    assert tokens(beam_size=1) == tokens()
    assert tokens(batch_size=4) == tokens()
    assert tokens(beam_size=3, seed=1) == tokens(beam_size=3, seed=2)


OPEN: dict[str, Any] = {
    "logprob_threshold": None,
    "compression_ratio_threshold": None,
    "no_speech_threshold": None,
    "max_tokens": 12,
}
"""A random model's text is improbable; these let it stand."""


def test_a_transcription(tiny_whisper: af.Session) -> None:
    told: list[float] = []
    stream = tiny_whisper.stream_transcribe(SOUND, temperature=0, progress=told.append, **OPEN)
    segments = list(stream)
    whole = stream.transcription
    assert whole is not None
    assert whole.segments == segments
    assert whole.text == "".join(s.text for s in segments).strip() == str(whole)
    assert whole.text
    assert stream.language == whole.language
    assert whole.duration == pytest.approx(len(af.load_audio(SOUND)) / 16000)
    assert told
    assert told == sorted(told)
    assert told[-1] == 1.0


def test_draws_follow_their_seed(tiny_whisper: af.Session) -> None:
    def text(seed: int) -> str:
        return tiny_whisper.transcribe(SOUND, temperature=1.0, seed=seed, **OPEN).text

    assert text(3) == text(3)
    assert len({text(seed) for seed in range(6)}) > 1


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"language": "klingon"}, "language"),
        ({"task": "sing"}, "task"),
        ({"timestamps": "letter"}, "timestamps"),
        ({"temperature": -1.0}, "temperature"),
        ({"temperature": []}, "temperature"),
        ({"beam_size": 0}, "beam_size"),
        ({"beam_size": 10_000}, "beam_size"),
        ({"batch_size": 0}, "batch_size"),
        ({"patience": float("nan")}, "patience"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"beam_size": "many"}, "options"),
        ({"vad_pad": 1.0}, "vad"),
    ],
)
def test_options_out_of_range(tiny_whisper: af.Session, arguments: dict[str, Any], name: str) -> None:
    with pytest.raises(af.InvalidRequestError) as caught:
        tiny_whisper.transcribe(SOUND, **arguments)
    assert caught.value.name == name
    with pytest.raises(TypeError, match="unexpected"):
        tiny_whisper.transcribe(SOUND, volume=11)


def test_each_model_says_what_it_is_for(tiny_whisper: af.Session, session: af.Session) -> None:
    messages: Any = [{"role": "user", "content": "hi"}]
    for call in (
        lambda: tiny_whisper.generate("hi"),
        lambda: tiny_whisper.generate_batch(["hi"]),
        lambda: tiny_whisper.stream("hi"),
        lambda: tiny_whisper.chat(messages),
        lambda: tiny_whisper.logits("hi"),
        lambda: tiny_whisper.score("hi there"),
        lambda: tiny_whisper.stats(),
    ):
        with pytest.raises(af.InvalidRequestError, match="transcribe"):
            call()
    with pytest.raises(af.InvalidRequestError, match="text model"):
        session.transcribe(SOUND)
    assert tiny_whisper.info.architecture == "whisper"
    assert tiny_whisper.detokenize(tiny_whisper.tokenize("hello")) == "hello"


def test_a_closed_session_is_closed() -> None:
    session = af.Session(WHISPER)
    session.close()
    with pytest.raises(af.SessionClosedError):
        session.transcribe(SOUND)


def ct2(path: pathlib.Path, weights: dict[str, Any], name: str = "WhisperSpec") -> bytes:
    """A CTranslate2 file, as its converter writes one."""

    def text(value: str) -> bytes:
        return struct.pack("<H", len(value) + 1) + value.encode() + b"\0"

    out = struct.pack("<I", 6) + text(name) + struct.pack("<II", 3, len(weights))
    for key, value in weights.items():
        types = {"float32": 0, "int8": 1, "int16": 2, "float16": 4}
        array = np.ascontiguousarray(value)
        shape = struct.pack(f"<{array.ndim}I", *array.shape)
        out += text(key) + bytes([array.ndim]) + shape + bytes([types[str(array.dtype)]])
        out += struct.pack("<I", array.nbytes) + array.tobytes()
    out += struct.pack("<I", 1) + text("decoder/projection/weight") + text("decoder/embeddings/weight")
    path.write_bytes(out)
    return out


def ct2_weights(hf: dict[str, Any]) -> dict[str, Any]:
    """Published tensors as CTranslate2's converter joins them."""
    found: dict[str, Any] = {}

    def norm(to: str, source: str) -> None:
        found[f"{to}/gamma"], found[f"{to}/beta"] = hf[f"{source}.weight"], hf[f"{source}.bias"]

    def linear(to: str, *sources: str) -> None:
        found[f"{to}/weight"] = np.concatenate([hf[f"{s}.weight"] for s in sources])
        biases = [hf.get(f"{s}.bias", np.zeros(len(hf[f"{s}.weight"]), np.float32)) for s in sources]
        found[f"{to}/bias"] = np.concatenate(biases)

    for conv in ("conv1", "conv2"):
        linear(f"encoder/{conv}", f"model.encoder.{conv}")
    found["decoder/embeddings/weight"] = hf["model.decoder.embed_tokens.weight"]
    for side in ("encoder", "decoder"):
        found[f"{side}/position_encodings/encodings"] = hf[f"model.{side}.embed_positions.weight"]
        norm(f"{side}/layer_norm", f"model.{side}.layer_norm")
        for i in range(2):
            to, source = f"{side}/layer_{i}", f"model.{side}.layers.{i}"
            own = [f"{source}.self_attn.{x}_proj" for x in "qkv"]
            linear(f"{to}/self_attention/linear_0", *own)
            linear(f"{to}/self_attention/linear_1", f"{source}.self_attn.out_proj")
            norm(f"{to}/self_attention/layer_norm", f"{source}.self_attn_layer_norm")
            if side == "decoder":
                other = [f"{source}.encoder_attn.{x}_proj" for x in "qkv"]
                linear(f"{to}/attention/linear_0", other[0])
                linear(f"{to}/attention/linear_1", *other[1:])
                linear(f"{to}/attention/linear_2", f"{source}.encoder_attn.out_proj")
                norm(f"{to}/attention/layer_norm", f"{source}.encoder_attn_layer_norm")
            linear(f"{to}/ffn/linear_0", f"{source}.fc1")
            linear(f"{to}/ffn/linear_1", f"{source}.fc2")
            norm(f"{to}/ffn/layer_norm", f"{source}.final_layer_norm")
    return found


def wide_whisper() -> dict[str, Any]:
    """Random weights one head of 64 wide, as CTranslate2's files always have them."""
    rng = np.random.default_rng(5)
    small = load_file(WHISPER / "model.safetensors")

    def widened(array: Any) -> Any:
        shape = [64 if n == 48 else n for n in array.shape]
        return (rng.normal(size=shape) / np.sqrt(shape[-1])).astype(np.float32)

    return {name: widened(array) for name, array in small.items()}


def ct2_tokenizer(folder: pathlib.Path) -> None:
    """The tokenizer with the end's published name, by which a CTranslate2 folder finds it."""
    named = (WHISPER / "tokenizer.json").read_text().replace('"</s>"', '"<|endoftext|>"')
    (folder / "tokenizer.json").write_text(named)


def test_ctranslate2_gives_what_safetensors_give(tmp_path: pathlib.Path) -> None:
    weights = wide_whisper()
    one, other = tmp_path / "safetensors", tmp_path / "ct2"
    shutil.copytree(WHISPER, one)
    config = json.loads((one / "config.json").read_text())
    config |= {"d_model": 64, "encoder_attention_heads": 1, "decoder_attention_heads": 1}
    (one / "config.json").write_text(json.dumps(config))
    save_file(weights, one / "model.safetensors")
    other.mkdir()
    ct2_tokenizer(other)
    (other / "config.json").write_text("{}")
    ct2(other / "model.bin", ct2_weights(weights))
    with af.Session(one, kv_dtype="f32") as a, af.Session(other, kv_dtype="f32") as b:
        assert a.info.parameters == b.info.parameters
        np.testing.assert_array_equal(a.logits(PROMPT, audio=SOUND), b.logits(PROMPT, audio=SOUND))
    with af.Session(other / "model.bin") as session:
        assert session.info.architecture == "whisper"


@pytest.mark.parametrize("kind", ["int8", "int16"])
def test_ctranslate2_files_of_integers(kind: str, tmp_path: pathlib.Path) -> None:
    """Quantised as CTranslate2's `model_spec.py` does it, against the same numbers as float32."""
    plain, small = ct2_weights(wide_whisper()), {}
    for name, value in plain.items():
        small[name] = value
        if not name.endswith("weight"):
            continue
        flat = value.reshape(len(value), -1)
        if kind == "int8":
            # scales of a float16 mantissa, so that blocks hold them whole
            steps = (np.abs(flat).max(1, keepdims=True) / 127).astype(np.float16).astype(np.float32)
            whole, scale = np.rint(flat / steps).clip(-127, 127), (1 / steps)[:, 0]
        else:
            scale = np.float32(2**10 / np.abs(flat).max())
            whole, steps = np.rint(flat * scale), 1 / scale
        small[name] = whole.astype(kind).reshape(value.shape)
        small[f"{name}_scale"] = scale
        plain[name] = (whole * steps).astype(np.float32).reshape(value.shape)
    logits = []
    for folder, weights in ((tmp_path / "plain", plain), (tmp_path / "small", small)):
        folder.mkdir()
        ct2_tokenizer(folder)
        (folder / "config.json").write_text("{}")
        ct2(folder / "model.bin", weights)
        # products in float32, so that nothing but the file differs
        with af.Session(folder, kv_dtype="f32", backend="candle", dtype="f32") as session:
            logits.append(session.logits(PROMPT, audio=SOUND))
    np.testing.assert_allclose(logits[1], logits[0], rtol=0, atol=2e-2 * np.abs(logits[0]).max())


@pytest.mark.parametrize(
    "fault", ["cut", "count", "shape", "type", "name", "spec", "int8", "scale", "key", "end"]
)
def test_damaged_ctranslate2_files(fault: str, tmp_path: pathlib.Path) -> None:
    weights = ct2_weights(wide_whisper())
    error: type[Exception] = af.ModelFormatError
    spec = "WhisperSpec"
    if fault == "int8":
        name = "decoder/layer_0/ffn/linear_0/weight"
        # without the scales that belong to it
        weights[name] = np.zeros(weights[name].shape, np.int8)
    elif fault == "scale":
        name = "decoder/layer_0/ffn/linear_0/weight"
        weights[name] = np.zeros(weights[name].shape, np.int8)
        weights[f"{name}_scale"] = np.zeros(len(weights[name]), np.float32)
    elif fault == "key":
        weights["decoder/layer_1/self_attention/linear_0/bias"][70] = 1.0
        error = af.UnsupportedModelError
    elif fault == "spec":
        spec, error = "TransformerSpec", af.UnsupportedModelError
    elif fault == "name":
        del weights["encoder/conv2/bias"]
    ct2_tokenizer(tmp_path)
    path = tmp_path / "model.bin"
    data = bytearray(ct2(path, weights, spec))
    if fault == "cut":
        data = data[: len(data) // 2]
    elif fault == "count":
        data[22:26] = b"\xff" * 4
    elif fault == "shape":
        at = data.index(b"encoder/conv1/weight\0") + 22
        data[at : at + 4] = b"\xff" * 4
    elif fault == "type":
        at = data.index(b"encoder/conv1/weight\0") + 22 + 12
        data[at] = 99
    elif fault == "end":
        data += b"more"
    path.write_bytes(data)
    with pytest.raises(error):
        af.Session(tmp_path)


def test_times_are_written_as_subtitles_want_them() -> None:
    assert timestamp(3661.0049) == "01:01:01.005"
    assert timestamp(59.9996, comma=True) == "00:01:00,000"
    assert timestamp(61.5, hours=False) == "01:01.500"


@pytest.mark.parametrize("form", WRITERS)
def test_the_command_writes_every_format(
    form: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / f"sound.{form}"
    assert main(["transcribe", str(WHISPER), SOUND, "--temperature", "0", "-o", str(out)]) == 0
    written = out.read_text()
    assert main(["transcribe", str(WHISPER), SOUND, "--temperature", "0", "-f", form]) == 0
    assert capsys.readouterr().out == written
    if form == "json":
        assert set(json.loads(written)) == {"text", "language", "duration", "segments"}
    elif form == "vtt":
        assert written.startswith("WEBVTT\n\n")
    elif form == "tsv":
        assert written.startswith("start\tend\ttext\n")


def test_formats_of_one_transcription() -> None:
    segments = [
        af.TranscriptSegment(0, 0.0, 2.5, " Hello --> there.", [1], 0.0, -0.1, 1.0, 0.0),
        af.TranscriptSegment(1, 3700.0, 3701.0, " Bye.", [2], 0.0, -0.1, 1.0, 0.0),
    ]
    whole = af.Transcription("Hello --> there. Bye.", "en", segments, 3702.0)
    assert WRITERS["srt"](whole) == (
        "1\n00:00:00,000 --> 00:00:02,500\nHello -> there.\n\n2\n01:01:40,000 --> 01:01:41,000\nBye.\n\n"
    )
    assert "01:01:40.000 --> 01:01:41.000\nBye.\n" in WRITERS["vtt"](whole)
    assert WRITERS["tsv"](whole).splitlines()[2] == "3700000\t3701000\tBye."
    assert WRITERS["txt"](whole) == "Hello --> there.\nBye.\n"
    assert json.loads(WRITERS["json"](whole))["segments"][1]["start"] == 3700.0


@pytest.fixture(scope="module")
def tiny_en() -> Iterator[af.Session]:
    """OpenAI's tiny.en, as CTranslate2 stores it, fetched once into the user's cache."""
    with af.Session("whisper-tiny.en") as session:
        yield session


SPOKEN = pathlib.Path(__file__).parent / "data" / "speech"


def words(text: str) -> list[str]:
    return re.findall(r"[\w']+", text.lower())


@pytest.mark.parametrize("options", [{}, {"beam_size": 5}, {"batch_size": 4}, {"vad": True}])
def test_what_is_said_is_written(tiny_en: af.Session, options: dict[str, Any]) -> None:
    want = json.loads((SPOKEN / "english.json").read_text())
    found = tiny_en.transcribe(SPOKEN / "english.flac", **options)
    assert words(found.text) == words(want["text"])
    assert found.language == "en"


def test_words_have_their_times(tiny_en: af.Session) -> None:
    want = json.loads((SPOKEN / "english.json").read_text())
    found = tiny_en.transcribe(SPOKEN / "english.flac", timestamps="word")
    spoken = [word for segment in found.segments for word in segment.words]
    assert words("".join(w.text for w in spoken)) == words(want["text"])
    assert all(a.end <= b.start + 0.05 for a, b in itertools.pairwise(spoken))
    for word, (text, start, end) in zip(spoken, want["words"], strict=True):
        assert word.text.strip() == text.strip()
        assert abs(word.start - start) < 0.2
        assert abs(word.end - end) < 0.2


def test_voices_are_told_from_silence(tiny_en: af.Session) -> None:
    speech = af.load_audio(SPOKEN / "english.flac")
    silence = np.zeros(5 * 16000, np.float32)
    network = _native.VoiceActivity(af.find_model("silero-vad"))
    sound = np.concatenate([silence, speech, silence])
    stretches = network.speech(sound, min_silence=2.0, pad=0.0)
    assert abs(stretches[0][0] / 16000 - 5.0) < 0.5
    assert abs(stretches[-1][1] / 16000 - 5.0 - len(speech) / 16000) < 0.6
    assert network.speech(silence) == []
    # what NumPy makes of the same tensors, layer by layer as Silero writes the network down
    want = json.loads((SPOKEN / "english.json").read_text())["vad"]
    got = network.probabilities(speech)
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-4)


def test_the_example_subtitles_a_file(tmp_path: pathlib.Path) -> None:
    sound = tmp_path / "talk.flac"
    shutil.copy(SPOKEN / "english.flac", sound)
    script = pathlib.Path(__file__).parent.parent / "examples" / "subtitles.py"
    done = subprocess.run([sys.executable, script, sound], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == str(tmp_path / "talk.srt")
    want = json.loads((SPOKEN / "english.json").read_text())
    lines = (tmp_path / "talk.srt").read_text().splitlines()
    assert lines[:2] == ["1", lines[1]]
    assert lines[1].startswith("00:00:00,")
    assert words(" ".join(line for line in lines if not line[:1].isdigit())) == words(want["text"])
