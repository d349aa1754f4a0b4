"""`umons compare`: train several models on the same rows and compare them."""

import sys

from . import train


DESCRIPTION = """Train UMONS models and baselines on the same rows, with several seeds, and compare them.

    umons compare --model umons umons_text tfn mfn --train_file clips/metadata.csv --output_dir runs/compared
    umons compare compare-ravdess --dataset_name ravdess --seeds 3

The recipe is `compare` unless another one is given. A suffix leaves modalities out: umons_text. The output has a
folder for each model, and comparison.md, .json and .png with scores, intervals, baselines, parameters and times.

Recipes:
{recipes}
"""


def main(argv: list[str] | None = None) -> int:
    """Run `umons train` with the recipe `compare`, unless another one is given."""
    argv = sys.argv[1:] if argv is None else argv
    has_recipe = bool(argv) and not argv[0].startswith("-")
    return train.main(argv if has_recipe else ["compare", *argv], "umons compare", DESCRIPTION)


if __name__ == "__main__":
    sys.exit(main())
