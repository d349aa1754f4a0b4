"""Measure the times of words and utterances, the cost of each granularity, and answers to sound without speech.

    python scripts/measure_timeline.py words utterances sounds cost hour --data DATA --output docs/timeline.json

Words are those of espeak-ng, whose library reports the time of each (package `libespeak-ng1`). Utterances are
recordings of RAVDESS (--data, actors 13 to 24) without their silence, with known pauses between them. Costs are CPU
seconds per second of sound, with the decoding process.
"""

import argparse
import csv
import ctypes
import difflib
import itertools
import json
import resource
import tempfile
import wave
from pathlib import Path

import numpy as np

from modeling_umons.inference.loading import load_pipeline
from modeling_umons.models.umons.input_checks_umons import split_words
from modeling_umons.models.umons.media_umons import iter_windows, read_clip, resample
from modeling_umons.models.umons.transcription_umons import load_transcriber
from modeling_umons.models.umons.units_umons import GRANULARITIES, iter_utterances
from modeling_umons.models.umons.voice_activity_umons import SAMPLING_RATE
from modeling_umons.utils.files import write_atomically


ROOT = Path(__file__).resolve().parent.parent
PARTS = ("words", "utterances", "sounds", "cost", "hour")
# Voices of espeak-ng and words per minute. The first two set `transcription_umons.DELAY_S`.
VOICES = (
    ("en-us", 175),
    ("en-gb", 175),
    ("en-us+f3", 175),
    ("en-gb+f2", 175),
    ("en-gb-scotland", 130),
    ("en-us+m3", 210),
)
WORD_EVENT, END_EVENT = 1, 5
NUM_SAMPLES = 1000  # of the bootstrap


class Event(ctypes.Structure):
    """`espeak_EVENT` of speak_lib.h."""

    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", ctypes.c_char * 8),
    ]


class Synthesizer:
    """espeak-ng, with the times of words."""

    def __init__(self):
        self.library = ctypes.CDLL("libespeak-ng.so.1")
        self.rate = self.library.espeak_Initialize(2, 0, None, 0)  # synchronous
        signature = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(Event))
        self.callback = signature(self._receive)
        self.library.espeak_SetSynthCallback(self.callback)

    def _receive(self, samples, count, events) -> int:
        if samples and count:
            self.samples.append(np.ctypeslib.as_array(samples, (count,)).copy())
        index = 0
        while events[index].type:
            event = events[index]
            if event.type in (WORD_EVENT, END_EVENT):
                self.events.append((event.type, event.audio_position / 1000, event.text_position, event.length))
            index += 1
        return 0

    def speak(self, text: str, voice: str, words_per_minute: int) -> tuple[np.ndarray, list[tuple[str, float, float]]]:
        """Return speech at 16 kHz without silence around it, and its words with their start and end in seconds."""
        self.samples, self.events = [], []
        self.library.espeak_SetVoiceByName(voice.encode())
        self.library.espeak_SetParameter(1, words_per_minute, 0)
        data = text.encode()
        self.library.espeak_Synth(data, len(data) + 1, 0, 1, 0, 1, None, None)
        audio = np.concatenate(self.samples).astype(np.float32) / 32768
        first, last = _range_of_sound(audio, self.rate)
        times = [time for _, time, _, _ in self.events]
        words = [
            (text[position - 1 : position - 1 + length], start - first, min(end, last) - first)
            for (kind, start, position, length), end in zip(self.events, [*times[1:], last], strict=True)
            if kind == WORD_EVENT
        ]
        audio = audio[round(first * self.rate) : round(last * self.rate)]
        return resample(audio, self.rate, SAMPLING_RATE), words


def _range_of_sound(audio: np.ndarray, rate: int, below_peak_db: float = 40.0) -> tuple[float, float]:
    """Return the first and the last second that are louder than a level below the peak, in frames of 10 ms."""
    size = rate // 100
    levels = np.abs(audio[: len(audio) // size * size]).reshape(-1, size).max(axis=1)
    loud = np.flatnonzero(levels > levels.max() * 10 ** (-below_peak_db / 20))
    return loud[0] / 100, (loud[-1] + 1) / 100


def join(parts: list[np.ndarray], pauses: np.ndarray) -> tuple[np.ndarray, list[tuple[float, float]]]:
    """Return parts with a pause in seconds before each and after the last, and the time of each part."""
    rng, joined, times, position = np.random.default_rng(0), [], [], 0
    for part, pause in zip([*parts, np.zeros(0, np.float32)], [*pauses, 1.0], strict=True):
        silence = rng.normal(0, 1e-4, round(pause * SAMPLING_RATE)).astype(np.float32)
        joined += [silence, part]
        position += len(silence)
        times.append((position / SAMPLING_RATE, (position + len(part)) / SAMPLING_RATE))
        position += len(part)
    return np.concatenate(joined), times[:-1]


def median_interval(errors: np.ndarray) -> list[float]:
    """Return [median, low, high], with the 95 % interval of a bootstrap."""
    rng = np.random.default_rng(0)
    samples = [np.median(rng.choice(errors, len(errors))) for _ in range(NUM_SAMPLES)]
    return [float(np.median(errors)), *np.percentile(samples, [2.5, 97.5]).tolist()]


def find_utterances(audio: np.ndarray, transcriber=None) -> list[dict]:
    return list(iter_utterances({"audio": audio, "sampling_rate": SAMPLING_RATE}, transcriber, iter_windows))


def measure_words(transcriber, synthesizer: Synthesizer, sentences: list[str], voice: str, rate: int) -> dict:
    """Compare the times of transcribed words with those of the synthesizer."""
    spoken = [synthesizer.speak(sentence, voice, rate) for sentence in sentences]
    pauses = np.random.default_rng(1).uniform(0.3, 2.0, len(spoken))
    audio, times = join([part for part, _ in spoken], pauses)
    truth = [
        ("".join(split_words(word)), start + first, start + last)
        for (start, _), (_, words) in zip(times, spoken, strict=True)
        for word, first, last in words
    ]
    found = [
        ("".join(split_words(word["word"])), *word["timestamp"])
        for unit in find_utterances(audio, transcriber)
        for word in unit["words"]
    ]
    matcher = difflib.SequenceMatcher(None, [w for w, *_ in truth], [w for w, *_ in found], autojunk=False)
    errors = np.array(
        [
            np.subtract(found[block.b + i][1:], truth[block.a + i][1:])
            for block in matcher.get_matching_blocks()
            for i in range(block.size)
        ]
    )
    return {
        "voice": voice,
        "words_per_minute": rate,
        "num_words": len(truth),
        "share_recognized": len(errors) / len(truth),
        "start_error_s": median_interval(np.abs(errors[:, 0])),
        "end_error_s": median_interval(np.abs(errors[:, 1])),
        "boundary_error_s": median_interval(np.abs(errors).ravel()),
        "within_100_ms": float((np.abs(errors) <= 0.1).mean()),
        "median_shift_s": np.median(errors, axis=0).tolist(),
    }


def measure_utterances(parts: list[np.ndarray], low: float, high: float) -> dict:
    """Compare speech between pauses of `low` to `high` seconds with the known times."""
    audio, times = join(parts, np.random.default_rng(2).uniform(low, high, len(parts)))
    found = np.array([unit["timestamp"] for unit in find_utterances(audio)])
    starts = np.array([found[np.abs(found[:, 0] - start).argmin(), 0] - start for start, _ in times])
    ends = np.array([found[np.abs(found[:, 1] - end).argmin(), 1] - end for _, end in times])
    return {
        "pauses_s": [low, high],
        "num_utterances": len(times),
        "num_found": len(found),
        "start_error_s": median_interval(np.abs(starts)),
        "end_error_s": median_interval(np.abs(ends)),
        "both_within_200_ms": float(((np.abs(starts) <= 0.2) & (np.abs(ends) <= 0.2)).mean()),
        "median_shift_s": [float(np.median(starts)), float(np.median(ends))],
    }


def cpu_seconds() -> float:
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def measure_cost(recognize, inputs: dict, duration: float, **options) -> dict:
    """Return the CPU seconds and the number of results of one file, per second of sound."""
    before = cpu_seconds()
    worker = recognize.decode_in_worker()  # another process, so that its time counts when it ends
    results = list(recognize.stream(inputs, batch_size=8, **options))
    worker.close()
    return {"cpu_s_per_s": (cpu_seconds() - before) / duration, "num_results": len(results)}


def list_costs(arguments, transcriber) -> list[dict]:
    """Return the cost of each granularity and model on two minutes of dialogue, and the memory on an hour of it."""
    parts = read_speech(arguments.data / "ravdess", 45)
    audio, times = join(parts, np.random.default_rng(3).uniform(0.3, 1.5, len(parts)))
    speakers = [{"timestamp": time, "speaker": "AB"[i % 2]} for i, time in enumerate(times)]
    duration, rows = len(audio) / SAMPLING_RATE, []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "talk.wav"
        _write_wav(path, [audio])
        for name in arguments.models:
            recognize = load_pipeline(name)
            for granularity, words in itertools.product(GRANULARITIES, (None, transcriber)):
                if words is None and granularity in ("sentence", "word"):
                    continue
                inputs = {"audio": str(path), "speakers": speakers}
                options = {"granularity": granularity, "chunk_length_s": 5.0, "transcriber": words}
                cost = measure_cost(recognize, inputs, duration, **options)
                rows.append({"model": name, "granularity": granularity, "with_words": words is not None, **cost})
    return rows


def measure_hour(arguments) -> dict:
    """Return the growth of memory between the fifth minute and the end of an hour."""
    parts = read_speech(arguments.data / "ravdess", 45)
    audio, _ = join(parts, np.random.default_rng(3).uniform(0.3, 1.5, len(parts)))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "hour.wav"
        count = round(3600 * SAMPLING_RATE / len(audio))
        _write_wav(path, [audio] * count)
        recognize, start = load_pipeline(arguments.models[0]), cpu_seconds()
        early = number = 0
        for result in recognize.stream(str(path), granularity="utterance", batch_size=8):
            number += 1
            if not early and result["timestamp"][0] > 300:
                early = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        growth = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - early
        seconds = count * len(audio) / SAMPLING_RATE
    return {
        "model": arguments.models[0],
        "duration_s": seconds,
        "num_utterances": number,
        "growth_mib": growth / 1024,
        "cpu_s_per_s": (cpu_seconds() - start) / seconds,
    }


def _write_wav(path: Path, parts: list[np.ndarray]):
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, SAMPLING_RATE, 0, "NONE", ""))
        for part in parts:
            file.writeframes(np.round(part * 32767).astype(np.int16).tobytes())


def make_sounds() -> dict[str, np.ndarray]:
    """Return ten seconds of sounds that are not speech, at 16 kHz."""
    time, rng = np.arange(10 * SAMPLING_RATE) / SAMPLING_RATE, np.random.default_rng(0)
    beat = np.exp(-6 * (time % 0.5))
    chords = [(220, 277, 330), (247, 311, 370), (196, 247, 294), (220, 277, 330)]
    notes = np.array([chords[int(t // 2.5)] for t in time]).T
    clicks = np.zeros_like(time)
    clicks[rng.integers(0, len(clicks), 40)] = 0.9
    return {
        "silence": np.zeros_like(time),
        "white noise": rng.normal(0, 0.1, len(time)),
        "music": 0.2 * beat * np.sin(2 * np.pi * np.cumsum(notes, axis=1) / SAMPLING_RATE).sum(axis=0),
        "hum": 0.3 * np.sin(2 * np.pi * 50 * time),
        "clicks": clicks,
    }


def measure_sounds(recognize, transcriber, recordings: dict[str, np.ndarray]) -> list[dict]:
    """Return what an utterance timeline with a transcriber says about sounds."""
    rows = []
    for name, audio in {**make_sounds(), **recordings}.items():
        inputs = {"audio": audio.astype(np.float32), "sampling_rate": SAMPLING_RATE}
        results = recognize(inputs, granularity="utterance", transcriber=transcriber)
        warnings = sorted({warning["code"] for result in results for warning in result["warnings"]})
        text = " ".join(result["text"] for result in results if "text" in result)
        predicted = sum(bool(result["modalities"]) for result in results)
        rows.append({"sound": name, "num_predictions": predicted, "text": text, "warnings": warnings})
    return rows


def read_speech(folder: Path, count: int, first_actor: int = 1) -> list[np.ndarray]:
    """Return recordings at 16 kHz without the silence around them; of RAVDESS, from one actor on."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix in (".flac", ".wav", ".mp3", ".ogg", ".opus"))
    paths = [path for path in paths if path.parent.name >= f"actor_{first_actor:02d}" or first_actor == 1]
    parts = []
    for path in paths[:: max(1, len(paths) // count)][:count]:
        audio = read_clip(path, video=False, sampling_rate=SAMPLING_RATE).audio
        first, last = _range_of_sound(audio, SAMPLING_RATE, below_peak_db=30.0)
        parts.append(audio[round(first * SAMPLING_RATE) : round(last * SAMPLING_RATE)])
    return parts


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="+", choices=PARTS, help="what to measure")
    parser.add_argument("--transcriber", default="whisper-tiny.en", help="transcriber (default: whisper-tiny.en)")
    parser.add_argument("--data", type=Path, help="folder with the recordings of ravdess/ and emodb/")
    parser.add_argument("--models", nargs="+", default=["umons-mini"], help="models whose cost is measured")
    parser.add_argument("--output", type=Path, required=True, help="JSON file; other parts in it are kept")
    arguments = parser.parse_args()
    transcriber = load_transcriber(arguments.transcriber)
    results = json.loads(arguments.output.read_text()) if arguments.output.exists() else {}
    results["transcriber"] = Path(arguments.transcriber).parent.name or arguments.transcriber
    if "words" in arguments.parts:
        with open(ROOT / "tests" / "behaviour" / "plain_sentences.csv", encoding="utf-8") as file:
            sentences = [row["text"] for row in csv.DictReader(file)]
        groups = [sentences[i :: len(VOICES)] for i in range(len(VOICES))]
        synthesizer, pairs = Synthesizer(), zip(groups, VOICES, strict=True)
        results["words"] = [measure_words(transcriber, synthesizer, group, *voice) for group, voice in pairs]
    if "utterances" in arguments.parts:
        parts = read_speech(arguments.data / "ravdess", 60, first_actor=13)
        results["utterances"] = [measure_utterances(parts, *pauses) for pauses in ((0.7, 1.2), (1.2, 3.0))]
    if "sounds" in arguments.parts:
        speech = read_speech(arguments.data / "ravdess", 3)
        german = np.concatenate(read_speech(arguments.data / "emodb", 5))
        narrow = resample(resample(np.concatenate(speech), SAMPLING_RATE, 8000), 8000, SAMPLING_RATE)
        recordings = {"speech at 8 kHz": narrow, "German speech": german}
        results["sounds"] = measure_sounds(load_pipeline("umons-mini"), transcriber, recordings)
    if "cost" in arguments.parts:
        results["cost"] = list_costs(arguments, transcriber)
    if "hour" in arguments.parts:
        results["hour"] = measure_hour(arguments)
    write_atomically(arguments.output, json.dumps(results, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
