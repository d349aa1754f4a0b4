"""Predict all clips of a folder, and write the results to a table.

python examples/02_predict_folder.py [FOLDER] [TABLE]

Run it again after an interruption: it resumes. `umons predict FOLDER --output TABLE` does the same.
"""

import csv
import sys
from pathlib import Path

from modeling_umons.inference.tables import PredictionSettings, predict_table


HUB = Path(__file__).resolve().parents[1] / "hub"


def main():
    folder = sys.argv[1] if len(sys.argv) > 1 else str(HUB / "sample" / "clips")
    output = Path(sys.argv[2]) if len(sys.argv) > 2 else Path("runs/predictions.csv")
    output.parent.mkdir(parents=True, exist_ok=True)

    settings = PredictionSettings("umons-mini", batch_size=8)
    report = predict_table([folder], output, settings)

    print(f"{report.num_rows} clips of {folder} in {output}, {report.num_failed} failed. The first ones:")
    with output.open(encoding="utf-8", newline="") as file:
        for row in list(csv.DictReader(file))[:3]:
            print(f"{row['file']}  sentiment {float(row['sentiment']):+.2f}  {row['label']} {row['confidence']}")


if __name__ == "__main__":  # worker processes import this file
    main()
