"""Measure what models promise: intervals, calibration, confidence, explanations and warnings.

    python scripts/measure_trust.py hub/umons-base hub/umons-mini --data DATA --output docs/trust.json

DATA has the folders `mosei`, `goemotions`, `meld`, `ravdess` and `emodb`. Texts are those of the validation splits.
Each of `NUM_HALVES` random halves of the videos is calibrated on the other half. Odd inputs are
`tests/behaviour/odd_texts.csv`, texts and recordings that are too long, and distorted, cut and synthetic recordings.
"""

import argparse
import csv
import json
import time
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset

from modeling_umons.data.arguments import DataArguments
from modeling_umons.data.layouts import open_source
from modeling_umons.data.waveforms import add_noise, change_gain, make_noise
from modeling_umons.evaluation.calibration import calibrate_out_of_fold, calibrate_splits
from modeling_umons.evaluation.explanation_curves import measure_explanations
from modeling_umons.evaluation.report import to_json
from modeling_umons.evaluation.scoring import Member, score
from modeling_umons.inference.loading import load_pipeline
from modeling_umons.models.umons.media_umons import read_clip
from modeling_umons.tasks.task import task_of
from modeling_umons.utils.files import write_atomically


ROOT = Path(__file__).resolve().parent.parent
NUM_HALVES = 20
RATE = 16_000
NUM_TEXTS, NUM_VOICES = 300, 200  # ordinary inputs
NUM_EXPLAINED = 60


def read_texts(data: Path) -> list[dict]:
    """Return the rows of the validation splits of texts, a fourth of those of GoEmotions."""
    source = open_source("mini", data, sources=["mosei", "goemotions", "meld"])
    names = source.segments["validation"]
    kept = [n for n in names if not n.startswith("goemotions")] + [n for n in names if n.startswith("goemotions")][::4]
    rows = [source.read("validation", name) for name in kept]
    return [{column: row.get(column) for column in source.features} for row in rows]


def measure_calibration(path: str, rows: list[dict]) -> dict:
    """Return coverage, calibration errors and the accuracy of the surest half, out of fold and as published."""
    member = Member.load(path, torch.device("cpu"))
    task = task_of(member.model.config)
    columns = ("segment_id", "video_id", "source", "text", *task.columns)
    dataset = Dataset.from_list([{column: row.get(column) for column in columns} for row in rows])
    split = score([member], task, "validation", dataset, DataArguments(), 64)[path]
    halves = [calibrate_out_of_fold(task, split, seed)[1] for seed in range(NUM_HALVES)]
    _, published, _ = calibrate_splits(member.model.config, task, {"validation": split}, refit=False)
    coverage = [metrics["coverage"] for metrics in halves]
    half = halves[0]["risk_coverage"]["shares"].index(0.5)
    surest = halves[0]["risk_coverage"]["acc2_non0"]
    labels = halves[0]["risk_coverage"]["label_accuracy"]
    return {
        "rows": len(split),
        "rows_with_sentiment": halves[0]["interval_rows"],
        "coverage": {"mean": np.mean(coverage), "lowest": np.min(coverage), "highest": np.max(coverage)},
        "interval_width": np.mean([metrics["interval_width"] for metrics in halves]),
        "ece": {label: np.mean([metrics["ece"][label] for metrics in halves]) for label in halves[0]["ece"]},
        "ece_published": published["validation"]["ece"],
        "acc2_non0": {"all": surest[0], "surest_half": surest[half]},
        "label_accuracy": {"all": labels[0], "surest_half": labels[half]},
        "risk_coverage": halves[0]["risk_coverage"],
    }


def time_explanations(recognize, texts: list[str]) -> float:
    """Return the median ratio of the time of an explained text to that of a batch of as many texts as it has words."""
    ratios = []
    for text in texts:
        number = len(text.split())
        times = []
        for options, inputs in (({"return_explanations": True}, {"text": text}), ({}, [{"text": text}] * number)):
            runs = []
            for _ in range(3):
                start = time.perf_counter()
                recognize(inputs, batch_size=number, **options)
                runs.append(time.perf_counter() - start)
            times.append(min(runs))
        ratios.append(times[0] / times[1])
    return float(np.median(ratios))


def make_odd_sounds(voices: list[np.ndarray]) -> dict[str, list[np.ndarray]]:
    """Return recordings that a model of speech cannot be expected to understand, by kind."""
    rng, time_s = np.random.default_rng(0), np.arange(3 * RATE) / RATE
    voices = [voice / np.abs(voice).max() for voice in voices]

    def play(notes: np.ndarray) -> np.ndarray:
        """Return chords of three harmonics, a quarter of a second each."""
        length = RATE // 4
        chords = [
            sum(np.sin(2 * np.pi * note * k * time_s[:length]) / k for note in chord for k in (1, 2, 3))
            for chord in notes
        ]
        return 0.1 * np.concatenate([chord * np.exp(-time_s[:length] * 3) for chord in chords]).astype(np.float32)

    scale = 220 * 2 ** (np.array([0, 2, 4, 5, 7, 9, 11, 12]) / 12)
    return {
        "noise": [0.1 * make_noise(3 * RATE, color, rng) for color in ("white", "pink", "brown") for _ in range(4)],
        "hum": [0.2 * np.sin(2 * np.pi * pitch * time_s) for pitch in (50, 100, 440, 1000)],
        "music": [play(rng.choice(scale, (12, 3))) for _ in range(10)],
        "silence": [np.zeros(length * RATE) for length in (1, 2, 5, 10)],
        "clipped": [np.clip(10 * voice, -1, 1) for voice in voices[:10]],
        "short": [voice[RATE // 2 : RATE // 2 + RATE // 5] for voice in voices[:6]],
        "quiet": [change_gain(voice, -60) for voice in voices[:6]],
        "noisy": [0.3 * add_noise(voice, make_noise(len(voice), "white", rng), 0, RATE) for voice in voices[:10]],
        "offset": [0.3 * voice + 0.5 for voice in voices[:4]],
        "long": [0.3 * np.tile(voice, 60 * RATE // len(voice)) for voice in voices[:4]],
    }


def measure_warnings(recognize, rows: list[dict], voices: list[np.ndarray]) -> dict:
    """Return the shares of odd and of ordinary inputs with a warning or an error, and the inputs that are wrong."""
    with (ROOT / "tests" / "behaviour" / "odd_texts.csv").open(encoding="utf-8", newline="") as file:
        odd = [(row["kind"], {"text": row["text"]}) for row in csv.DictReader(file)]
    texts = [row["text"] for row in rows]
    odd += [("long text", {"text": " ".join(texts[i : i + 40])}) for i in range(0, 320, 40)]
    for kind, sounds in make_odd_sounds(voices).items():
        odd += [(kind, {"audio": sound.astype(np.float32), "sampling_rate": RATE}) for sound in sounds]
    ordinary = [("text", {"text": text}) for text in texts[:: max(1, len(texts) // NUM_TEXTS)][:NUM_TEXTS]]
    ordinary += [
        ("voice", {"audio": voice, "sampling_rate": RATE})
        for voice in voices[:: max(1, len(voices) // NUM_VOICES)][:NUM_VOICES]
    ]
    report = {}
    for name, inputs in (("odd", odd), ("ordinary", ordinary)):
        results = recognize([given for _, given in inputs], batch_size=16, on_error="return")
        flagged = ["error" in result or bool(result["warnings"]) for result in results]
        wrong = [i for i, is_flagged in enumerate(flagged) if is_flagged != (name == "odd")]
        report[name] = {
            "inputs": len(inputs),
            "flagged": sum(flagged),
            "wrong": [f"{inputs[i][0]}: {inputs[i][1].get('text', 'recording')}" for i in wrong],
        }
    return report


def read_voices(data: Path) -> list[np.ndarray]:
    """Return the recordings of the validation and test speakers of RAVDESS and EMO-DB, 16 kHz."""
    voices = []
    for name in ("ravdess", "emodb"):
        source = open_source(name, data / name, keep_audio=True)
        rows = [source.read(split, n) for split in ("validation", "test") for n in source.segments.get(split, ())]
        voices += [read_clip(row["audio"]["bytes"], video=False, sampling_rate=RATE).audio for row in rows]
    return voices


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help="folders of models")
    parser.add_argument("--data", type=Path, required=True, help="folder of the corpora")
    parser.add_argument("--output", type=Path, required=True, help="JSON file to write; other models in it are kept")
    arguments = parser.parse_args()
    report = json.loads(arguments.output.read_text(encoding="utf-8")) if arguments.output.is_file() else {}
    rows, voices = read_texts(arguments.data), read_voices(arguments.data)
    for path in arguments.models:
        recognize = load_pipeline(path)
        texts = [row["text"] for row in rows if row["source"] == "mosei"]
        measured = {
            "calibration": measure_calibration(path, rows),
            "explanations": measure_explanations(recognize, texts, NUM_EXPLAINED),
            "explanation_time": time_explanations(recognize, [t for t in texts if 8 <= len(t.split()) <= 30][::150]),
            "warnings": measure_warnings(recognize, rows, voices),
        }
        report[Path(path).name] = measured
        write_atomically(arguments.output, to_json(report))
        print(to_json(measured))


if __name__ == "__main__":
    main()
