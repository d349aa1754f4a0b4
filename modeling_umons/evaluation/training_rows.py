"""Hashes of the training rows of a model, to find them in evaluation data. They stay in the folder of the run."""

import json
from pathlib import Path

from datasets import Dataset

from ..data.collator import UtteranceCollator
from ..data.row_hash import hash_rows
from ..utils.files import write_atomically
from ..utils.hub_files import find_model


FILE = ".training_rows.json"  # a hidden file, which is not pushed


def write_training_rows(folder: str | Path, rows: Dataset, collator: UtteranceCollator) -> None:
    """Write the hashes of the inputs of training rows into the folder of a model."""
    hashes = sorted(set(hash_rows(rows, collator.modality_columns.values())))
    write_atomically(Path(folder, FILE), json.dumps(hashes, indent=0) + "\n")


def find_training_rows(model: str | Path, rows: Dataset, collator: UtteranceCollator) -> str:
    """Return a sentence on the rows that a model was trained on; empty if there are none, or they are unknown."""
    path = Path(find_model(str(model)), FILE)
    if not path.is_file():
        return ""
    known = set(json.loads(path.read_text(encoding="utf-8")))
    count = sum(row in known for row in hash_rows(rows, collator.modality_columns.values()))
    if not count:
        return ""
    return f"{count} of {len(rows)} rows were in the training data; metrics on such rows are too high."
