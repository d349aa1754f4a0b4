r"""Measure voice, face and both on the eight emotions of RAVDESS: logistic regression and UMONS.

    umons prepare --layout ravdess --source RAVDESS --output runs/ravdess-faces-data --faces ACTION_UNITS.csv \
        --audio_encoder WHISPER --average_audio
    umons train ravdess-faces --dataset_name runs/ravdess-faces-data
    python scripts/measure_fusion.py runs/ravdess-faces-data --runs runs/ravdess-faces \
        --output docs/results_fusion.json

Scores are the accuracy on the test actors. Intervals are by bootstrap over recordings, because there are three actors:
they do not describe other voices. Prints the table.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from modeling_umons.data.arguments import DataArguments
from modeling_umons.data.rows import load_splits
from modeling_umons.evaluation.scoring import Member, common_task, score
from modeling_umons.registration import register_auto_classes
from modeling_umons.utils.files import write_atomically
from modeling_umons.utils.tables import markdown_table


COLUMNS = {"voice": ("audio_features",), "face": ("video_features",), "both": ("audio_features", "video_features")}
SYSTEMS = {"voice": "umons_audio", "face": "umons_video", "both": "umons"}
INVERSE_REGULARISATION = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
NUM_SAMPLES = 2000  # of the bootstrap


def fit_logistic(splits: dict, columns: tuple[str, ...]) -> tuple[np.ndarray, float]:
    """Fit on the mean features, with C chosen on validation; returns (1, test rows) whether it is right, and C."""
    inputs, truth = {}, {}
    for name, rows in splits.items():
        features = [[np.mean(steps, axis=0) for steps in rows[column]] for column in columns]
        inputs[name], truth[name] = np.hstack(features), np.array(rows["emotion"])
    models = {}
    for c in INVERSE_REGULARISATION:
        model = make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=2000))
        models[c] = model.fit(inputs["train"], truth["train"])
    best = max(models, key=lambda c: models[c].score(inputs["validation"], truth["validation"]))
    return (models[best].predict(inputs["test"]) == truth["test"])[None], best


def score_umons(splits: dict, folder: Path) -> np.ndarray:
    """Return (seeds, test rows) whether the models of a run are right."""
    device, data = torch.device("cpu"), DataArguments(label_columns=["emotion"])
    members = [Member.load(str(path), device) for path in sorted(folder.glob("seed-*"))]
    scored = score(members, common_task(members, data), "test", splits["test"], data, batch_size=32)
    return np.stack([split.logits.argmax(axis=1) == split.truth for split in scored.values()])


def interval(right: np.ndarray, minus: np.ndarray | None = None) -> list[float]:
    """Return mean accuracy (or its difference from `minus`) over seeds, and its 95 % interval over recordings."""
    per_row = right.mean(axis=0) - (0 if minus is None else minus.mean(axis=0))
    rng = np.random.default_rng(0)
    samples = per_row[rng.integers(len(per_row), size=(NUM_SAMPLES, len(per_row)))].mean(axis=1)
    return [float(per_row.mean()), *np.percentile(samples, [2.5, 97.5]).tolist()]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", help="folder of `umons prepare --layout ravdess --faces`")
    parser.add_argument("--runs", type=Path, required=True, help="folder of `umons train ravdess-faces`")
    parser.add_argument("--output", type=Path, required=True, help="JSON file to write")
    arguments = parser.parse_args()
    register_auto_classes()
    data = DataArguments(label_columns=["emotion"])
    splits = load_splits(arguments.dataset, data)
    report: dict[str, dict] = {"rows": {name: len(rows) for name, rows in splits.items()}}
    logistic = {kind: fit_logistic(splits, columns) for kind, columns in COLUMNS.items()}
    report["logistic regression"] = {"c": {kind: c for kind, (_, c) in logistic.items()}}
    right = {
        "logistic regression": {kind: rows for kind, (rows, _) in logistic.items()},
        "UMONS": {kind: score_umons(splits, arguments.runs / name) for kind, name in SYSTEMS.items()},
    }
    table = []
    for model, by_kind in right.items():
        found = report.setdefault(model, {})
        found |= {kind: interval(rows) for kind, rows in by_kind.items()}
        found |= {f"{kind}_seeds": rows.mean(axis=1).tolist() for kind, rows in by_kind.items()}
        found["both_minus_voice"] = interval(by_kind["both"], minus=by_kind["voice"])
        kinds = (*COLUMNS, "both_minus_voice")
        table.append([model, *("{:.3f} ({:.3f} to {:.3f})".format(*found[kind]) for kind in kinds)])
    write_atomically(arguments.output, json.dumps(report, indent=2) + "\n")
    print(markdown_table(["model", *COLUMNS, "both - voice"], table))


if __name__ == "__main__":
    main()
