"""Measure speaker diarization, and emotions by speaker, on dialogues stitched from RAVDESS and EMO-DB.

    python scripts/measure_speakers.py --data DATA --model hub/umons-base --output docs/benchmarks/speakers.json

DATA has the folders `ravdess` and `emodb`. A dialogue has turns of 2 to 10 s with pauses of 0.2 to 1 s between them;
a turn joins recordings of one speaker in one emotion. Speakers of the split `select` served to choose the clustering
(docs/speakers.md); the reported ones are others. Intervals of 95 % are by bootstrap over dialogues.
"""

import argparse
import hashlib
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from modeling_umons import EMOTIONS
from modeling_umons.data.layouts import open_source
from modeling_umons.evaluation.metrics import emotion_metrics
from modeling_umons.inference.loading import load_pipeline
from modeling_umons.models.umons.media_umons import read_clip
from modeling_umons.models.umons.speaker_encoders_umons import (
    CAMPPLUS,
    SAMPLING_RATE,
    SpeakerEncoder,
    load_speaker_encoder,
)
from modeling_umons.models.umons.speakers_umons import diarize
from modeling_umons.utils.files import write_atomically
from modeling_umons.utils.tables import markdown_table


SPEAKERS = {
    "select": {
        "ravdess": [f"actor_{number:02}" for number in range(1, 13)],
        "emodb": ["emodb_03", "emodb_08", "emodb_10"],
    },
    "test": {
        "ravdess": [f"actor_{number:02}" for number in range(13, 21)],
        "emodb": ["emodb_09", "emodb_11", "emodb_12"],
    },
}
# Speakers that no model was trained on. Emotions of emodb_12 were seen in validation.
EMOTION_SPEAKERS = {"ravdess": ["actor_18", "actor_19", "actor_20"], "emodb": ["emodb_09", "emodb_12"]}
MAX_SPEAKERS = {"ravdess": 4, "emodb": 3}
DIALOGUE_S, TURN_S, PAUSE_S, GAP_S = 60.0, (2.0, 10.0), (0.2, 1.0), (0.05, 0.2)
ROOM_NOISE = 5e-4  # RMS
NUM_BOOTSTRAP = 1000
PARTS = ("diarization", "emotions")


@dataclass
class Dialogue:
    """A waveform at `SAMPLING_RATE` with its turns, and a row of labels of `EMOTIONS` for each."""

    corpus: str
    waveform: np.ndarray
    turns: list[dict[str, Any]]
    labels: np.ndarray

    @property
    def num_speakers(self) -> int:
        return len({turn["speaker"] for turn in self.turns})

    @property
    def seconds(self) -> float:
        return len(self.waveform) / SAMPLING_RATE

    @property
    def inputs(self) -> dict[str, Any]:
        return {"audio": self.waveform, "sampling_rate": SAMPLING_RATE}


def read_voices(corpus: str, data: Path, speakers: list[str]) -> dict[str, dict[str, list]]:
    """Return the trimmed recordings of speakers, with their labels, by speaker and emotion."""
    source = open_source(corpus, data / corpus, keep_audio=True)
    voices: dict[str, dict[str, list]] = {speaker: {} for speaker in speakers}
    for split, segment_ids in source.segments.items():
        for segment_id in segment_ids:
            row = source.read(split, segment_id)
            if row["speaker"] in voices:
                audio = read_clip(row["audio"]["bytes"], video=False, sampling_rate=SAMPLING_RATE).audio
                labels = [row[name] for name in EMOTIONS]
                voices[row["speaker"]].setdefault(row["emotion"], []).append((trim(audio), labels))
    return voices


def trim(audio: np.ndarray) -> np.ndarray:
    """Cut frames 30 dB below the loudest one from both ends."""
    frames = audio[: len(audio) // 160 * 160].reshape(-1, 160)
    power = np.sqrt(np.square(frames).mean(axis=1))
    loud = np.flatnonzero(power > 0.03 * power.max())
    return audio[max(0, loud[0] - 3) * 160 : (loud[-1] + 4) * 160]


def stitch(corpus: str, voices: dict[str, dict], speakers: list[str], rng: np.random.Generator) -> Dialogue:
    """Make a dialogue in which each of the speakers has a turn."""
    parts: list[np.ndarray] = []
    turns: list[dict[str, Any]] = []
    labels, position, speaker = [], 0, ""
    order = rng.permutation(speakers).tolist()

    def append(samples: np.ndarray):
        nonlocal position
        parts.append(samples)
        position += len(samples)

    def silence(seconds: tuple[float, float]) -> np.ndarray:
        return np.zeros(int(rng.uniform(*seconds) * SAMPLING_RATE), np.float32)

    while position < DIALOGUE_S * SAMPLING_RATE or len(turns) < len(speakers):
        others = [name for name in speakers if name != speaker] or speakers
        speaker = order[len(turns)] if len(turns) < len(order) else others[rng.integers(len(others))]
        emotion = rng.choice(sorted(voices[speaker]))
        recordings, start = voices[speaker][emotion], position
        target, waiting = rng.uniform(*TURN_S) * SAMPLING_RATE, []
        while position - start < target:
            waiting = waiting or list(rng.permutation(len(recordings)))
            audio, label = recordings[waiting.pop()]
            if position > start and position - start + len(audio) > TURN_S[1] * SAMPLING_RATE:
                break
            if position > start:
                append(silence(GAP_S))
            append(audio)
        turns.append({"speaker": speaker, "timestamp": (start / SAMPLING_RATE, position / SAMPLING_RATE)})
        labels.append(label)
        append(silence(PAUSE_S))
    waveform = np.concatenate(parts)
    waveform = waveform + ROOM_NOISE * rng.standard_normal(len(waveform))
    return Dialogue(corpus, waveform.astype(np.float32), turns, np.array(labels, float))


def make_dialogues(
    data: Path, speakers: dict[str, list[str]], counts: list[int], number: int, seed: int = 1
) -> list[Dialogue]:
    """Make `number` dialogues of each corpus and count of speakers."""
    dialogues = []
    for corpus, names in speakers.items():
        voices = read_voices(corpus, data, names)
        for count in [count for count in counts if count <= min(MAX_SPEAKERS[corpus], len(names))]:
            for index in range(number):
                rng = np.random.default_rng([count, index, seed])
                dialogues.append(stitch(corpus, voices, rng.permutation(names)[:count].tolist(), rng))
    return dialogues


def measure_errors(dialogue: Dialogue, turns: list[dict[str, Any]]) -> dict[str, float]:
    """Return the seconds of speech, and of missed speech, false alarms and confused speakers, without a collar."""
    from pyannote.core import Annotation, Segment, Timeline
    from pyannote.metrics.diarization import DiarizationErrorRate

    def annotation(turns: list[dict[str, Any]]) -> Annotation:
        found = Annotation()
        for index, turn in enumerate(turns):
            found[Segment(*turn["timestamp"]), index] = turn["speaker"]
        return found

    whole = Timeline([Segment(0, dialogue.seconds)])
    parts = DiarizationErrorRate()(annotation(dialogue.turns), annotation(turns), uem=whole, detailed=True)
    return {name: parts[name] for name in ("total", "missed detection", "false alarm", "confusion")}


def bootstrap(rows: list[Any], measure) -> list[float]:
    """Return [value, low, high] of `measure(rows)`."""
    rng = np.random.default_rng(0)
    samples = [measure([rows[i] for i in rng.integers(len(rows), size=len(rows))]) for _ in range(NUM_BOOTSTRAP)]
    return [float(measure(rows)), *np.nanquantile(samples, [0.025, 0.975]).tolist()]


def remember(encode: SpeakerEncoder) -> SpeakerEncoder:
    """Return an encoder that encodes the same waveforms once."""
    known: dict[bytes, np.ndarray] = {}

    def encode_once(waveforms: np.ndarray) -> np.ndarray:
        key = hashlib.blake2b(waveforms.tobytes(), digest_size=16).digest()
        if key not in known:
            known[key] = encode(waveforms)
        return known[key]

    return encode_once


def measure_diarization(dialogues: list[Dialogue], encode: SpeakerEncoder) -> dict[str, Any]:
    """Measure error rates by corpus and number of speakers, with this number known and estimated."""
    rows = []
    for dialogue in dialogues:
        started = time.process_time()
        estimated = diarize(dialogue.inputs, speaker_encoder=encode)
        row = {"seconds": dialogue.seconds, "time": time.process_time() - started}
        count = dialogue.num_speakers
        row["known"] = measure_errors(dialogue, diarize(dialogue.inputs, count, speaker_encoder=encode))
        row["estimated"] = measure_errors(dialogue, estimated)
        row["right_count"] = len({turn["speaker"] for turn in estimated}) == count
        row["group"] = f"{dialogue.corpus}, {count}"
        rows.append(row)
    groups = {name: [row for row in rows if row["group"] == name] for name in dict.fromkeys(r["group"] for r in rows)}
    return {name: summarize(some) for name, some in {**groups, "all": rows}.items()}


def summarize(rows: list[dict[str, Any]]) -> dict[str, Any]:
    def rate(kind: str, names: list[str]):
        return lambda rows: sum(r[kind][n] for r in rows for n in names) / sum(r[kind]["total"] for r in rows)

    errors = ["missed detection", "false alarm", "confusion"]
    report: dict[str, Any] = {"dialogues": len(rows), "seconds": sum(row["seconds"] for row in rows)}
    for kind in ("known", "estimated"):
        report[f"der_{kind}"] = bootstrap(rows, rate(kind, errors))
        report[f"confusion_{kind}"] = bootstrap(rows, rate(kind, ["confusion"]))
    report["right_count"] = bootstrap(rows, lambda rows: np.mean([row["right_count"] for row in rows]))
    report["cpu_seconds_per_second"] = sum(row["time"] for row in rows) / report["seconds"]
    return report


def measure_emotions(recognize, dialogues: list[Dialogue], encode: SpeakerEncoder) -> dict[str, Any]:
    """
    Measure the mean AUROC of the emotions of true turns, from the scores of true, and of found turns.

    A true turn has the mean score of the found turns of its speaker, weighted by their overlap; without any, zero.
    Found speakers are matched to the true ones by the largest overlap.
    """
    rows: dict[str, list] = {"true": [], "known": [], "estimated": []}
    for dialogue in dialogues:
        found = {
            "true": dialogue.turns,
            "known": diarize(dialogue.inputs, dialogue.num_speakers, speaker_encoder=encode),
            "estimated": diarize(dialogue.inputs, speaker_encoder=encode),
        }
        for kind, turns in found.items():
            results = recognize({**dialogue.inputs, "speakers": turns}, granularity="turn")
            rows[kind].append((dialogue.labels, attribute(dialogue.turns, results)))

    def auroc(some: list) -> float:
        labels, scores = (np.concatenate(parts) for parts in zip(*some, strict=True))
        known = [i for i in range(len(EMOTIONS)) if 0 < labels[:, i].sum() < len(labels)]
        metrics = emotion_metrics(labels[:, known], scores[:, known], [EMOTIONS[i] for i in known])
        return metrics.get("emotion_auroc", np.nan)

    report = {kind: bootstrap(some, auroc) for kind, some in rows.items()}
    return {"dialogues": len(dialogues), "turns": sum(len(d.turns) for d in dialogues), **report}


def attribute(turns: list[dict[str, Any]], results: list[dict[str, Any]]) -> np.ndarray:
    """Return the scores (num_turns, num_emotions) that found turns give to true ones."""
    from scipy.optimize import linear_sum_assignment

    seconds = np.array([[overlap(turn, result) for result in results] for turn in turns])
    true, found = (sorted({turn["speaker"] for turn in some}) for some in (turns, results))
    is_true = np.array([[turn["speaker"] == name for turn in turns] for name in true], float)
    is_found = np.array([[result["speaker"] == name for result in results] for name in found], float)
    pairs = linear_sum_assignment(-(is_true @ seconds @ is_found.T))
    matches = {true[i]: found[j] for i, j in zip(*pairs, strict=True)}
    own = np.array([[matches.get(turn["speaker"]) == result["speaker"] for result in results] for turn in turns])
    weights = seconds * own
    scores = np.array([[score_of(result, name) for name in EMOTIONS] for result in results])
    return weights @ scores / np.maximum(weights.sum(axis=1, keepdims=True), 1e-9)


def overlap(turn: dict[str, Any], result: dict[str, Any]) -> float:
    (start, end), (first, last) = turn["timestamp"], result["timestamp"]
    return max(0.0, min(end, last) - max(start, first))


def score_of(result: dict[str, Any], name: str) -> float:
    return next((entry["score"] for entry in result.get("emotions", ()) if entry["label"] == name), 0.0)


def format_report(report: dict[str, Any]) -> str:
    """Return the tables of a report in Markdown."""

    def percent(value: list[float]) -> str:
        return f"{100 * value[0]:.1f} ({100 * value[1]:.1f} to {100 * value[2]:.1f})"

    names = ["der_known", "confusion_known", "der_estimated", "confusion_estimated", "right_count"]
    rows = [
        [group, row["dialogues"], *(percent(row[name]) for name in names)]
        for group, row in report.get("diarization", {}).items()
    ]
    header = ["Speakers", "dialogues", "DER, number known", "confusion", "DER, estimated", "confusion"]
    tables = [markdown_table([*header, "right number"], rows)] if rows else []
    kinds = {"true": "true turns", "known": "found turns, number known", "estimated": "found turns, number estimated"}
    if emotions := report.get("emotions"):
        rows = [
            [text, *("{:.3f} ({:.3f} to {:.3f})".format(*measured[kind]) for measured in emotions.values())]
            for kind, text in kinds.items()
        ]
        tables.append(markdown_table(["Mean AUROC of emotions", *emotions], rows))
    return "\n\n".join(tables)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the corpora")
    parser.add_argument("--model", default="umons-base", help="model of the emotions")
    parser.add_argument("--speaker_encoder", default=CAMPPLUS, help="campplus (default), or a folder or Hub id")
    parser.add_argument("--split", choices=SPEAKERS, default="test", help="speakers: to choose settings, or others")
    parser.add_argument("--number", type=int, default=5, help="dialogues of each corpus and number of speakers")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="what to measure; the rest is kept")
    arguments = parser.parse_args()
    encode = remember(load_speaker_encoder(arguments.speaker_encoder))

    def save(name: str, measured: dict[str, Any]):
        report = json.loads(arguments.output.read_text(encoding="utf-8")) if arguments.output.is_file() else {}
        report[name] = {**report.get(name, {}), **measured}
        write_atomically(arguments.output, json.dumps(report, indent=2) + "\n")

    if "diarization" in arguments.parts:
        dialogues = make_dialogues(
            arguments.data, SPEAKERS[arguments.split], [1, 2, 3, 4], arguments.number, arguments.seed
        )
        save("diarization", measure_diarization(dialogues, encode))
    if "emotions" in arguments.parts:
        recognize = load_pipeline(arguments.model)
        for corpus, speakers in EMOTION_SPEAKERS.items():
            dialogues = make_dialogues(arguments.data, {corpus: speakers}, [2, 3], arguments.number)
            save("emotions", {corpus: measure_emotions(recognize, dialogues, encode)})
    report = json.loads(arguments.output.read_text(encoding="utf-8"))
    print(format_report(report))


if __name__ == "__main__":
    main()
