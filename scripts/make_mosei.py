#!/usr/bin/env python
"""Generate a synthetic CMU-MOSEI in the layout of the published implementation, to test loading, memory and resuming.

    python scripts/make_mosei.py labels.csv MOSEI
    umons reproduce MOSEI --num_train_epochs 1 --hidden_size 16 --intermediate_size 32 --num_hidden_layers 1

labels.csv has the columns segment_id, split, start, end, sentiment and the six emotions. Segments, splits, durations
and labels are those of the table, so that all sizes are official. Words and features are random: models learn nothing
from them.
"""

import argparse
import csv
import pickle
from pathlib import Path

import numpy as np

from modeling_umons import EMOTIONS
from modeling_umons.utils.files import atomic_path


SPLITS = {"train": "train", "valid": "valid", "validation": "valid", "test": "test"}
WORDS_PER_SECOND, VOCABULARY = 2.6, 14_000
MEL_HOP = 16 * 275 / 22050  # seconds from one kept frame to the next
FPS, CLIP_FRAMES, CLIP_STRIDE = 30, 32, 8  # of R(2+1)D


def make_segment(row: dict[str, str], random: np.random.Generator, video: bool) -> dict:
    """Return the parts of a segment: words, mels (T, 80), r21d (T, 512), sentiment and emotion (6,)."""
    seconds = max(float(row["end"]) - float(row["start"]), 0.5)
    words = random.zipf(1.3, size=max(round(WORDS_PER_SECOND * seconds), 1)) % VOCABULARY
    parts = {
        "sentences": [f"word{number}" for number in words],
        "mels": random.random((int(seconds / MEL_HOP) + 1, 80), np.float32),
        "sentiment": float(row["sentiment"]),
        "emotion": np.array([float(row[name]) for name in EMOTIONS]),
    }
    if video:
        clips = max((int(FPS * seconds) - CLIP_FRAMES) // CLIP_STRIDE + 1, 1)
        parts["r21d"] = random.random((clips, 512), np.float32)
    return parts


def make_mosei(labels: Path, output: Path, video: bool = False, seed: int = 0) -> None:
    """Write {train,valid,test}_{sentences,mels,r21d,sentiment,emotion}.p for the segments of a table of labels."""
    random = np.random.default_rng(seed)
    with labels.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    output.mkdir(parents=True, exist_ok=True)
    for split in dict.fromkeys(SPLITS[row["split"]] for row in rows):
        parts: dict[str, dict] = {}
        for row in rows:
            if SPLITS[row["split"]] == split:
                for part, value in make_segment(row, random, video).items():
                    parts.setdefault(part, {})[row["segment_id"]] = value
        for part, values in parts.items():
            with atomic_path(output / f"{split}_{part}.p") as path, open(path, "wb") as file:
                pickle.dump(values, file)
        print(f"{split}: {len(parts['sentences']):,} segments of {', '.join(parts)}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("labels", type=Path, help="table of labels")
    parser.add_argument("output", type=Path, help="folder to write")
    parser.add_argument("--video", action="store_true", help="write R(2+1)D features too (1.2 GB)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random values (default: 0)")
    arguments = parser.parse_args()
    make_mosei(**vars(arguments))


if __name__ == "__main__":
    main()
