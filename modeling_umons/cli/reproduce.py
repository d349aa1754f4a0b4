"""`umons reproduce`: the results table of the paper on CMU-MOSEI."""

import argparse
import logging
import sys
from functools import partial
from pathlib import Path

from ..registration import MODELS, register_auto_classes
from ..tasks.paper import COMBINATIONS, TASK_METRICS
from .command import make_parser, positive_int, run
from .option_names import check_option_names


DESCRIPTION = """Reproduce the results table of the paper: each task from each combination of modalities.

    umons reproduce MOSEI --output_dir runs/paper
    umons reproduce MOSEI --tasks sentiment-7 --combinations L L+A --seeds 3
    umons reproduce MOSEI --num_train_epochs 10 --hidden_size 128 --class_weights balanced
    umons reproduce MOSEI --combinations L+A --models umons mult --ablations

MOSEI is a folder in one of the layouts of `umons prepare`, or the output of that command. L, A and V are text, audio
and video; cells without data are named and left out. Each cell is trained with the paper's recipe and several seeds.
Other options are those of `umons train` and apply to all runs; the other models have the sizes and learning rates of
their papers.

The output has reproduction.md, .json and .png: validation, test, the ensemble whose size is chosen on validation,
baselines, the published scores, parameters and seconds. Without test inputs the ensemble of all seeds is scored on
validation. An interrupted call resumes with the same command.
"""


def parse_arguments(argv: list[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """Return the options of this command, and those of the runs."""
    parser = make_parser("reproduce", DESCRIPTION)
    parser.add_argument("data", metavar="DATA", help="folder of CMU-MOSEI")
    parser.add_argument("--output_dir", type=Path, default=Path("runs/paper"), help="output (default: runs/paper)")
    parser.add_argument("--seeds", type=positive_int, default=5, help="number of seeds per cell (default: 5)")
    tasks = list(TASK_METRICS)
    parser.add_argument("--tasks", nargs="+", choices=tasks, default=tasks, help="tasks (default: all)")
    parser.add_argument(
        "--combinations", nargs="+", choices=COMBINATIONS, default=COMBINATIONS, metavar="C",
        help=f"combinations of modalities: {', '.join(COMBINATIONS)} (default: all)",
    )  # fmt: skip
    parser.add_argument(
        "--models", nargs="+", choices=MODELS, default=["umons"], metavar="M",
        help=f"models, each a row of the table: {', '.join(MODELS)} (default: umons)",
    )  # fmt: skip
    parser.add_argument(
        "--ablations", dest="with_ablations", action="store_true",
        help="also train UMONS without each of its parts (docs/comparison.md has the equations)",
    )  # fmt: skip
    parser.add_argument("--layout", help="layout of DATA, as for `umons prepare` (default: by its files)")
    parser.add_argument("--num_proc", type=positive_int, default=1, help="processes that convert DATA (default: 1)")
    return parser.parse_known_args(argv)


def reproduce(arguments: argparse.Namespace, options: list[str]) -> None:
    """Train all cells and write the table."""
    check_option_names(options)  # before the imports
    from transformers.utils.logging import disable_progress_bar

    from ..training.reproduce import reproduce as reproduce_table

    register_auto_classes()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    disable_progress_bar()
    names = ("seeds", "tasks", "combinations", "models", "with_ablations", "layout", "num_proc")
    reproduce_table(
        arguments.data, arguments.output_dir, options, **{name: getattr(arguments, name) for name in names}
    )


def main(argv: list[str] | None = None) -> int:
    work = partial(reproduce, *parse_arguments(argv))
    return run("umons reproduce", "train", work, "Interrupted. The same command resumes.")


if __name__ == "__main__":
    sys.exit(main())
