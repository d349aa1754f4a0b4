"""Predict all clips of a folder in batches, and write the results to a CSV file.

python examples/02_predict_folder.py [FOLDER] [CSV]
"""

import csv
import sys
from pathlib import Path

from transformers import pipeline

import modeling_umons  # noqa: F401 - registers the model and the pipeline with transformers


HUB = Path(__file__).resolve().parents[1] / "hub"
folder = Path(sys.argv[1]) if len(sys.argv) > 1 else HUB / "sample" / "clips"
output = Path(sys.argv[2]) if len(sys.argv) > 2 else Path("runs/predictions.csv")

recognize = pipeline("multimodal-emotion-recognition", model=str(HUB / "umons-mini"), batch_size=8)
clips = sorted(folder.glob("*.mp4"))


def predict_each(paths: list[Path]):
    """Yield path and result of each clip, `None` for an unreadable one: a bad clip does not stop the rest."""
    try:
        yield from zip(paths, recognize([str(path) for path in paths], top_k=None), strict=True)
    except (OSError, ValueError) as error:
        if len(paths) == 1:
            print(f"{paths[0]}: {error}", file=sys.stderr)
            yield paths[0], None
        else:
            for path in paths:
                yield from predict_each([path])


rows = []
for start in range(0, len(clips), 8):
    for path, result in predict_each(clips[start : start + 8]):
        scores = {emotion["label"]: round(emotion["score"], 4) for emotion in (result or {}).get("emotions", [])}
        rows.append({"file": path.name, "sentiment": result and round(result["sentiment"], 4), **scores})

names = ["file", "sentiment", *sorted({name for row in rows for name in row} - {"file", "sentiment"})]
output.parent.mkdir(parents=True, exist_ok=True)
with output.open("w", newline="", encoding="utf-8") as file:
    writer = csv.DictWriter(file, names)
    writer.writeheader()
    writer.writerows(rows)
print(f"{len(rows)} clips of {folder} in {output}. The first ones:")
print("\n".join(output.read_text(encoding="utf-8").splitlines()[:4]))
