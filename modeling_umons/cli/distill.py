"""`umons distill`: mix the labels of a data set with the predictions of a model."""

import argparse
import sys
from functools import partial

from .command import make_parser, run


DESCRIPTION = """Mix the labels of a data set with the predictions of a model, to train a smaller model on them.

    umons distill runs/text-data --model runs/umons-base-text --output runs/mini-text-data

Known labels of the training split become (1 - weight) * label + weight * prediction, unknown ones the prediction.
The other splits are copied.
"""


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = make_parser("distill", DESCRIPTION)
    parser.add_argument("dataset", help="data set of texts, of `umons prepare --layout mini`")
    parser.add_argument("--model", required=True, help="teacher, a model of the task joint-neutral")
    parser.add_argument("--output", required=True, help="folder to write")
    parser.add_argument(
        "--weight", type=float, default=0.7, help="share of the teacher in known labels (default: 0.7)"
    )
    parser.add_argument("--batch_size", type=int, default=128, help="rows of a batch (default: 128)")
    return parser.parse_args(argv)


def distill(arguments: argparse.Namespace) -> None:
    """Write the data set."""
    from ..training.distillation import distill

    count = distill(arguments.dataset, arguments.model, arguments.output, arguments.weight, arguments.batch_size)
    print(f"{arguments.output}: {count} training rows with labels of {arguments.model}.")


def main(argv: list[str] | None = None) -> int:
    return run("umons distill", "train", partial(distill, parse_arguments(argv)))


if __name__ == "__main__":
    sys.exit(main())
