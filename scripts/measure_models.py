"""Measure models on texts and voices that they were not trained on.

    python scripts/measure_models.py hub/umons-base hub/umons-mini --data DATA --output docs/results.json

DATA has the folders of `umons prepare --layout mini`. Texts are those of the official validation splits; voices those
of speakers in no training split. Intervals of 95 % are by bootstrap over videos or speakers; of a single speaker, over
recordings.
"""

import argparse
import csv
import json
from pathlib import Path

import numpy as np

from modeling_umons import EMOTIONS
from modeling_umons.data.layouts import open_source
from modeling_umons.data.layouts.ravdess import STATEMENTS
from modeling_umons.data.waveforms import add_noise, change_gain, make_noise
from modeling_umons.evaluation.metrics import emotion_metrics, sentiment_metrics
from modeling_umons.inference.loading import load_pipeline
from modeling_umons.models.umons.media_umons import read_clip
from modeling_umons.utils.files import write_atomically


ROOT = Path(__file__).resolve().parent.parent
LABELS = (*EMOTIONS, "neutral")
NUM_SAMPLES = 300  # of the bootstrap


class Predictions:
    """Sentiments (N,) and scores of `LABELS` (N, 7) of inputs, NaN for labels that the model does not have."""

    def __init__(self, recognize, inputs: list[dict]):
        results = recognize(inputs, batch_size=32)
        self.sentiment = np.array([result["sentiment"] for result in results])
        found = [{entry["label"]: entry["score"] for entry in result["emotions"]} for result in results]
        self.scores = np.array([[scores.get(label, np.nan) for label in LABELS] for scores in found])

    @property
    def top(self) -> np.ndarray:
        """Index of the label with the highest score."""
        return np.nanargmax(self.scores, axis=1)


def interval(groups: list[str], measure, seed: int = 0) -> dict[str, list[float]]:
    """Return {metric: [score, low, high]} of `measure(rows)`, by a bootstrap over groups (rows of one)."""
    groups = groups if len(set(groups)) > 1 else [str(row) for row in range(len(groups))]
    names, index = np.unique(groups, return_inverse=True)
    members = [np.flatnonzero(index == i) for i in range(len(names))]
    rng, samples = np.random.default_rng(seed), []
    for _ in range(NUM_SAMPLES):
        samples.append(measure(np.concatenate([members[i] for i in rng.integers(len(names), size=len(names))])))
    whole = measure(np.arange(len(groups)))
    return {
        name: [value, *np.nanpercentile([sample.get(name, np.nan) for sample in samples], [2.5, 97.5]).tolist()]
        for name, value in whole.items()
    }


def measure_texts(recognize, data: Path) -> dict:
    """Measure sentiment and emotions of the official validation split of MOSEI, and the top label of comments."""
    report = {}
    source = open_source("mini", data, sources=["mosei", "goemotions"])
    rows = [source.read("validation", name) for name in source.segments["validation"]]
    for name, some in (("mosei", rows), ("goemotions", rows)):
        some = [row for row in some if row["source"] == name]
        some = some if name == "mosei" else some[::4]
        predicted = Predictions(recognize, [{"text": row["text"]} for row in some])
        truth = np.array([[np.nan if row.get(k) is None else row[k] for k in LABELS] for row in some], float)
        if name == "mosei":
            sentiment = np.array([row["sentiment"] for row in some])

            def measure(index, truth=truth, sentiment=sentiment, predicted=predicted):
                auroc = emotion_metrics(truth[index, :6], predicted.scores[index, :6], EMOTIONS)["emotion_auroc"]
                return {**sentiment_metrics(sentiment[index], predicted.sentiment[index]), "emotion_auroc": auroc}

        else:

            def measure(index, truth=truth, predicted=predicted):
                return {"top_label": float((truth[index, predicted.top[index]] >= 0.5).mean())}

        report[name] = {"rows": len(some), **interval([row["video_id"] for row in some], measure)}
    with (ROOT / "tests" / "behaviour" / "plain_sentences.csv").open(encoding="utf-8", newline="") as file:
        plain = list(csv.DictReader(file))
    predicted = Predictions(recognize, [{"text": row["text"]} for row in plain])
    right = [LABELS[i] in row["labels"].split("|") for i, row in zip(predicted.top, plain, strict=True)]
    report["plain_sentences"] = {"rows": len(plain), "right": int(sum(right))}
    return report


def measure_voices(recognize, data: Path, name: str) -> dict:
    """Measure the voices of the test speakers of a corpus: alone, with neutral words, quieter, louder and in noise."""
    rate = recognize.processor.feature_extractor.sampling_rate
    source = open_source(name, data / name, keep_audio=True)
    rows = [source.read("test", segment_id) for segment_id in source.segments["test"]]
    waveforms = [read_clip(row["audio"]["bytes"], video=False, sampling_rate=rate).audio for row in rows]
    truth = np.array([[row[label] for label in LABELS] for row in rows])
    known = [i for i, label in enumerate(EMOTIONS) if 0 < truth[:, i].sum() < len(truth)]
    rng = np.random.default_rng(0)

    def inputs(change=lambda waveform: waveform, **more):
        return [{"audio": change(waveform), "sampling_rate": rate, **more} for waveform in waveforms]

    def noisy(waveform):
        return add_noise(waveform, make_noise(len(waveform), "white", rng), 20, rate)

    predicted = {
        "alone": Predictions(recognize, inputs()),
        "minus_20_db": Predictions(recognize, inputs(lambda waveform: change_gain(waveform, -20))),
        "plus_10_db": Predictions(recognize, inputs(lambda waveform: np.clip(change_gain(waveform, 10), -1, 1))),
        "white_noise_20_db": Predictions(recognize, inputs(noisy)),
    }
    if name == "ravdess":
        words = [{**one, "text": STATEMENTS[i % 2]} for i, one in enumerate(inputs())]
        predicted["with_neutral_words"] = Predictions(recognize, words)
    report = {"rows": len(rows)}
    for kind, found in predicted.items():

        def measure(index, found=found):
            names = [EMOTIONS[i] for i in known]
            metrics = emotion_metrics(truth[index][:, known], found.scores[index][:, known], names)
            top = float((found.top[index] == truth[index].argmax(axis=1)).mean())
            return {"emotion_auroc": metrics.get("emotion_auroc", np.nan), "top_label": top}

        shift = float(np.nanmean(np.abs(found.scores - predicted["alone"].scores)))
        report[kind] = {**interval([row["speaker"] for row in rows], measure), "mean_shift": shift}
    quiet, loud = predicted["minus_20_db"].scores, predicted["plus_10_db"].scores
    report["shift_from_minus_20_to_plus_10_db"] = float(np.nanmean(np.abs(quiet - loud)))
    return report


def measure_neutral(recognize, clips: Path) -> dict:
    """Count readers of neutral sentences (GRID) without any emotion of at least 0.5."""
    files = sorted(clips.glob("grid_*"))
    predicted = Predictions(recognize, [{"audio": str(file)} for file in files])
    return {"rows": len(files), "neutral": int((predicted.scores[:, :6].max(axis=1) < 0.5).sum())}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help="folders of models")
    parser.add_argument("--data", type=Path, required=True, help="folder of the corpora")
    parser.add_argument("--output", type=Path, required=True, help="JSON file to write; other models in it are kept")
    arguments = parser.parse_args()
    report = json.loads(arguments.output.read_text(encoding="utf-8")) if arguments.output.is_file() else {}
    for model in arguments.models:
        recognize = load_pipeline(model)
        measured = {"texts": measure_texts(recognize, arguments.data)}
        for name in ("ravdess", "emodb"):
            measured[name] = measure_voices(recognize, arguments.data, name)
        if (arguments.data / "clips").is_dir():
            measured["neutral_readers"] = measure_neutral(recognize, arguments.data / "clips")
        report[Path(model).name] = measured
        write_atomically(arguments.output, json.dumps(report, indent=2) + "\n")
        print(json.dumps(measured, indent=2))


if __name__ == "__main__":
    main()
