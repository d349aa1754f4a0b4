"""Evaluate a model on a test fold of EmoBox (Ma et al., 2024), with its metrics.

    python scripts/evaluate_emobox.py hub/umons-base EmoBox/data/emodb/fold_1/emodb_test_fold_1.jsonl --audio EMODB

The fold has a JSON object on each line, with `wav` and `emo`; `label_map.json` in the folder above it names its
classes. `--audio` has the recordings, found by name with any suffix. Classes that the model does not have, such as
boredom, and recordings that are not there or cannot be predicted are counted and left out: scores are comparable with
those of EmoBox only if nothing was left out. Prints WA (accuracy), UA (balanced accuracy) and macro F1 as JSON.
"""

import argparse
import json
import sys
from collections import Counter
from pathlib import Path

from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score

from modeling_umons.cli.command import run
from modeling_umons.data.clip_tables import MEDIA_SUFFIXES
from modeling_umons.inference.loading import load_pipeline


# Classes of EmoBox by the labels of the models.
LABELS = {"Angry": "anger", "Disgust": "disgust", "Fear": "fear", "Happy": "happy", "Neutral": "neutral", "Sad": "sad",
          "Surprise": "surprise", "Surprised": "surprise"}  # fmt: skip


def read_fold(fold: Path) -> list[tuple[str, str]]:
    """Return (name of the recording, class) of each row of a fold. Raises ValueError for a row without them."""
    path = fold.parent.parent / "label_map.json"
    names = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    rows = []
    for number, line in enumerate(fold.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            rows.append((Path(row["wav"]).stem, names.get(row["emo"], row["emo"])))
        except (ValueError, TypeError, KeyError):
            raise ValueError(f"{fold}, line {number}: expected a JSON object with `wav` and `emo`.") from None
    return rows


def evaluate(model: str, fold: Path, audio: Path) -> dict:
    """Return the metrics of EmoBox on a fold, and what was left out. Raises ValueError if no row can be predicted."""
    files = {path.stem: path for path in sorted(audio.rglob("*")) if path.suffix.lower() in MEDIA_SUFFIXES}
    recognize = load_pipeline(model)
    known = set(recognize.model.config.id2label.values())
    rows, left_out = [], Counter()
    for name, label in read_fold(fold):
        if LABELS.get(label) not in known:
            left_out[f"class {label}"] += 1
        elif name not in files:
            left_out["recording missing"] += 1
        else:
            rows.append((files[name], LABELS[label]))
    classes = {label for _, label in rows}
    truth, predicted = [], []
    results = recognize([{"audio": str(path)} for path, _ in rows], batch_size=16, on_error="return")
    for (_, label), result in zip(rows, results, strict=True):
        if "error" in result:
            left_out["recording without prediction"] += 1
            continue
        entries = result.get("emotions") or result.get("labels") or result["values"]
        scores = {entry["label"]: entry["score"] for entry in entries if entry["label"] in classes}
        truth.append(label)
        predicted.append(max(scores, key=scores.get))
    if not truth:
        raise ValueError(f"{fold} has no row that {model} can predict from {audio} (--audio): {dict(left_out)}.")
    return {
        "rows": len(truth),
        "left_out": dict(left_out),
        "WA": accuracy_score(truth, predicted),
        "UA": balanced_accuracy_score(truth, predicted),
        "macro_f1": f1_score(truth, predicted, average="macro"),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder or Hub id")
    parser.add_argument("fold", type=Path, help="JSON Lines file of a test fold")
    parser.add_argument("--audio", type=Path, required=True, help="folder of the recordings")
    options = vars(parser.parse_args())
    return run("evaluate_emobox.py", "train", lambda: print(json.dumps(evaluate(**options), indent=2)))


if __name__ == "__main__":
    sys.exit(main())
