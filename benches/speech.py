#!/usr/bin/env python3
"""Time AlloyForge and faster-whisper on the same clips and models, in turn, or compare what they write.

usage: speech.py speed|text|errors [--peer PYTHON] [--model whisper-tiny.en] [--threads 2] [--rounds 3]
                 [--clips DIR]

espeak-ng speaks the clips. PYTHON is an interpreter with faster-whisper in it; the model is one of the
catalogue's, which both read. Every run is a process of its own, which loads the model, works once to warm
up, and then tells the median of its rounds; engines take turns. Both decode at temperature 0 alone.

`speed` prints seconds and real-time factors of a short clip, greedily and with five beams, and of a long
one whose windows are batched, with the peak of each process's memory. `text` prints, for each clip, how
many words differ, by how much the segments' times do, and the language found. `errors` lets both hear
each sentence by itself, in several voices and paces, in f32 and in int8, and counts what they get wrong of
what was said: in a long clip one such word can lead to a whole window of others.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import random
import statistics
import subprocess
import sys
import tempfile
import time
import wave
from typing import Any

SENTENCES = {
    "en": [
        "The ferry leaves the harbour at half past seven, and nobody waits for those who come late.",
        "She opened the old wooden box and found three letters that her grandfather had never sent.",
        "If the weather stays dry, we will walk along the river until we reach the stone bridge.",
        "My brother repairs bicycles in a small shop behind the railway station.",
        "Please remember to close the windows before you go to bed tonight.",
        "The museum bought a painting that had been hidden in a cellar for sixty years.",
        "Two dogs were sleeping under the table while the children finished their soup.",
        "In spring the farmers plant potatoes, onions and carrots in the long field.",
        "He asked the driver to stop at the corner, paid the fare and thanked him politely.",
        "A cold wind blew over the empty market square, and the lamps went out one after another.",
    ],
    "de": [
        "Der Zug nach Hamburg fährt heute von Gleis sieben ab und hat zehn Minuten Verspätung.",
        "Meine Schwester wohnt in einem kleinen Haus am Rand der Stadt.",
        "Am Abend gehen wir mit den Kindern durch den Wald und hören den Vögeln zu.",
    ],
    "es": [
        "El tren sale de la estación a las nueve de la mañana y llega por la tarde.",
        "Mi hermano trabaja en una tienda pequeña cerca de la plaza.",
        "Los niños juegan en el jardín mientras su abuela prepara la cena.",
    ],
}
VOICES = {"en": "en-us", "de": "de", "es": "es"}


def spoken(text: str, voice: str, folder: pathlib.Path, pace: int) -> tuple[bytes, int]:
    """What espeak-ng says, so many words a minute: 16-bit samples, and how many a second."""
    path = folder / "said.wav"
    subprocess.run(["espeak-ng", "-v", voice, "-s", str(pace), "-w", str(path), text], check=True)
    with wave.open(str(path)) as file:
        return file.readframes(file.getnframes()), file.getframerate()


def clip(path: pathlib.Path, sentences: list[str], voice: str, pauses: list[float], pace: int = 145) -> None:
    """Writes the sentences with silence behind each."""
    parts, rate = [], 0
    for sentence, pause in zip(sentences, pauses, strict=True):
        samples, rate = spoken(sentence, voice, path.parent, pace)
        parts += [samples, bytes(2 * int(pause * rate))]
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(b"".join(parts))
    # at the rate that models hear, so that nobody's resampler has a say
    import numpy as np

    import alloyforge as af

    samples = (af.load_audio(path) * 32767).round().astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(np.ascontiguousarray(samples).tobytes())


def make_clips(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """The clips by name: one of some 12 seconds a language, and one of 5 minutes with pauses."""
    folder.mkdir(parents=True, exist_ok=True)
    clips = {name: folder / f"{name}.wav" for name in ("short", "de", "es", "long")}
    draws = random.Random(1)
    for name, path in clips.items():
        if path.exists():
            continue
        if name == "long":
            sentences = [draws.choice(SENTENCES["en"]) for _ in range(48)]
            clip(path, sentences, VOICES["en"], [draws.choice([0.3, 0.6, 1.0, 2.5]) for _ in sentences])
        else:
            language = "en" if name == "short" else name
            sentences = SENTENCES[language][: 2 if language == "en" else 3]
            clip(path, sentences, VOICES[language], [0.4] * len(sentences))
    return clips


def peer_folder(model: pathlib.Path, folder: pathlib.Path) -> str:
    """The model as faster-whisper wants it: of CTranslate2's files a folder, with a vocabulary in it."""
    model = model.parent if model.name == "model.bin" else model
    target = folder / "peer"
    target.mkdir()
    for path in model.iterdir():
        (target / path.name).symlink_to(path)
    if not list(target.glob("vocabulary.*")):
        given = json.loads((model / "tokenizer.json").read_text())
        ids = {**given["model"]["vocab"], **{t["content"]: t["id"] for t in given["added_tokens"]}}
        tokens = sorted(ids, key=lambda token: ids[token])
        if "<|0.00|>" not in ids:
            tokens += [f"<|{i * 0.02:.2f}|>" for i in range(1501)]
        (target / "vocabulary.json").write_text(json.dumps(tokens))
    return str(target)


def seconds(path: pathlib.Path) -> float:
    with wave.open(str(path)) as file:
        return float(file.getnframes() / file.getframerate())


def work(job: dict[str, Any]) -> None:
    """One engine's run, in a process of its own: prints what it measured and wrote."""
    import resource

    beams, batch, language = job["beams"], job["batch"], job["language"]
    if job["engine"] == "alloyforge":
        import alloyforge as af

        quantize = "q8_0" if job["type"] == "int8" else None
        session = af.Session(job["model"], threads=job["threads"], quantize=quantize, device="cpu")

        def transcribe(clip: str) -> tuple[str, list[tuple[float, float, str]]]:
            found = session.transcribe(
                clip, beam_size=beams, batch_size=batch, language=language, temperature=0.0
            )
            return found.language, [(s.start, s.end, s.text) for s in found.segments]
    else:
        from faster_whisper import BatchedInferencePipeline, WhisperModel

        model = WhisperModel(job["model"], device="cpu", compute_type=job["type"], cpu_threads=job["threads"])
        pipeline = BatchedInferencePipeline(model=model)

        def transcribe(clip: str) -> tuple[str, list[tuple[float, float, str]]]:
            options: dict[str, Any] = {"beam_size": beams, "language": language, "temperature": 0.0}
            if batch > 1:
                parts, info = pipeline.transcribe(clip, batch_size=batch, without_timestamps=False, **options)
            else:
                parts, info = model.transcribe(clip, **options)
            return info.language, [(s.start, s.end, s.text) for s in parts]

    spent = []
    found: Any = None
    for _ in range(job["rounds"] + job["warm"]):
        start = time.perf_counter()
        found = [transcribe(clip) for clip in job["clips"]]
        spent.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": spent[job["warm"] :], "peak": peak, "found": found}))


def run(arguments: argparse.Namespace, job: dict[str, Any]) -> dict[str, Any]:
    python = sys.executable
    if job["engine"] != "alloyforge":
        python, job = arguments.peer, {**job, "model": arguments.peer_model}
    command = [python, __file__, "work", json.dumps(job)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def words(segments: list[Any]) -> list[str]:
    text = "".join(segment[2] for segment in segments).lower()
    return "".join(c if c.isalnum() or c == "'" else " " for c in text).split()


def differences(ours: list[str], theirs: list[str]) -> int:
    """Words to put in, leave out or change (Levenshtein)."""
    row = list(range(len(theirs) + 1))
    for i, a in enumerate(ours, 1):
        before, row[0] = row[0], i
        for j, b in enumerate(theirs, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (a != b))
    return row[-1]


def speed(arguments: argparse.Namespace, model: str, clips: dict[str, pathlib.Path]) -> None:
    kinds = {
        "short, greedy": ("short", 1, 1),
        "short, 5 beams": ("short", 5, 1),
        "long, greedy, 8 windows": ("long", 1, 8),
    }
    print(f"| {'clip':24} | type    | alloyforge           | faster-whisper       | ratio | peak MB   |")
    for name, (which, beams, batch) in kinds.items():
        if arguments.only and arguments.only not in name:
            continue
        path = clips[which]
        for kind in arguments.types.split(","):
            job = {"model": model, "clips": [str(path)], "beams": beams, "batch": batch, "type": kind}
            job |= {"language": "en", "threads": arguments.threads, "warm": 1}
            job["rounds"] = arguments.rounds if which == "short" else 1
            ours = run(arguments, {**job, "engine": "alloyforge"})
            theirs = run(arguments, {**job, "engine": "faster-whisper"})
            a, b = statistics.median(ours["seconds"]), statistics.median(theirs["seconds"])
            length = seconds(path)
            cells = [f"{s:7.3f} s, RTF {s / length:.4f}" for s in (a, b)]
            peaks = f"{ours['peak']:.0f}, {theirs['peak']:.0f}"
            print(
                f"| {name:24} | {kind:7} | {cells[0]} | {cells[1]} | {b / a:5.2f} | {peaks:9} |", flush=True
            )


def text(arguments: argparse.Namespace, model: str, clips: dict[str, pathlib.Path]) -> None:
    is_english = arguments.model.endswith(".en")
    for name, path in clips.items():
        if is_english and name in ("de", "es"):
            continue
        found = {}
        for engine, kind in (
            ("alloyforge", "float32"),
            ("faster-whisper", "float32"),
            ("alloyforge", "int8"),
        ):
            job = {"model": model, "clips": [str(path)], "beams": arguments.beams, "batch": 1, "type": kind}
            job |= {"language": None, "threads": arguments.threads, "rounds": 1, "warm": 0, "engine": engine}
            (found[engine, kind],) = run(arguments, job)["found"]
        (language, ours), (their_language, theirs) = (
            found["alloyforge", "float32"],
            found["faster-whisper", "float32"],
        )
        a, b, small = words(ours), words(theirs), words(found["alloyforge", "int8"][1])
        apart = [max(abs(x[0] - y[0]), abs(x[1] - y[1])) for x, y in zip(ours, theirs, strict=False)]
        times = (
            f"{max(apart, default=0):.2f} s"
            if len(ours) == len(theirs)
            else f"{len(ours)} and {len(theirs)} segments"
        )
        known = f"{language} {their_language}"
        changed = f"int8 differs from float32 in {differences(small, a)} words"
        print(
            f"{name:6} {known}: {differences(a, b)} of {len(b)} words differ, times by {times}; {changed}",
            flush=True,
        )
        if a != b or arguments.verbose:
            print("  ours:  ", "".join(s[2] for s in ours), "\n  theirs:", "".join(s[2] for s in theirs))
        if arguments.verbose or len(ours) != len(theirs):
            for s, t in zip(ours, theirs, strict=False):
                print(f"    {s[0]:7.2f} {s[1]:7.2f}   {t[0]:7.2f} {t[1]:7.2f}  {s[2]}")


def errors(arguments: argparse.Namespace, model: str, folder: pathlib.Path) -> None:
    said: list[list[str]] = []
    clips: list[pathlib.Path] = []
    for sentence in SENTENCES["en"]:
        for voice in ("en-us", "en-gb", "en-us+f3", "en-gb+m2"):
            for pace in (130, 145, 160):
                said.append(words([(0.0, 0.0, sentence)]))
                clips.append(folder / f"errors-{len(clips)}.wav")
                if not clips[-1].exists():
                    clip(clips[-1], [sentence], voice, [0.4], pace)
    total = sum(map(len, said))
    for engine in ("alloyforge", "faster-whisper"):
        for kind in arguments.types.split(","):
            job = {"model": model, "clips": [str(clip) for clip in clips], "beams": arguments.beams}
            job |= {"batch": 1, "type": kind, "language": "en", "threads": arguments.threads}
            found = run(arguments, {**job, "rounds": 1, "warm": 0, "engine": engine})["found"]
            heard = [words(segments) for _, segments in found]
            wrong = sum(differences(a, b) for a, b in zip(heard, said, strict=True))
            share = 100 * wrong / total
            print(f"{engine:14} {kind:7} {wrong} of {total} words wrong, {share:.2f} %", flush=True)


def main() -> None:
    if sys.argv[1:2] == ["work"]:
        work(json.loads(sys.argv[2]))
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["speed", "text", "errors"])
    parser.add_argument("--peer", default=sys.executable)
    parser.add_argument("--model", default="whisper-tiny.en")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--beams", type=int, default=1)
    parser.add_argument("--types", default="float32,int8")
    parser.add_argument("--only", default="", help="a part of the kind of work's name")
    parser.add_argument("--clips", type=pathlib.Path)
    parser.add_argument("--verbose", action="store_true")
    arguments = parser.parse_args()
    import alloyforge as af

    model = str(af.find_model(arguments.model))
    with tempfile.TemporaryDirectory() as folder:
        clips = make_clips(arguments.clips or pathlib.Path(folder))
        arguments.peer_model = peer_folder(pathlib.Path(model), pathlib.Path(folder))
        if arguments.what == "errors":
            errors(arguments, model, arguments.clips or pathlib.Path(folder))
        else:
            {"speed": speed, "text": text}[arguments.what](arguments, model, clips)


if __name__ == "__main__":
    main()
