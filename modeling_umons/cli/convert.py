"""`umons convert`: convert a checkpoint of the published implementation."""

import argparse
import sys
from functools import partial
from pathlib import Path

from .command import make_parser, run


DESCRIPTION = """Convert a checkpoint of the published UMONS implementation to a folder for the Auto classes.

    umons convert best69.79_1234.pkl umons-emotion --token_to_ix token_to_ix.pkl

The folder loads with AutoModelForSequenceClassification and AutoProcessor, and reproduces the logits of the
published code (`legacy_masking=True`). Both pickles are read without executing anything in them.
"""


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = make_parser("convert", DESCRIPTION)
    parser.add_argument("checkpoint", type=Path, help="checkpoint of the published training loop (best*.pkl)")
    parser.add_argument("output", type=Path, help="folder to write")
    parser.add_argument("--token_to_ix", type=Path, help="vocabulary of the checkpoint (token_to_ix.pkl)")
    return parser.parse_args(argv)


def convert(arguments: argparse.Namespace) -> None:
    """Convert the checkpoint."""
    from ..export.original_checkpoint import convert_checkpoint

    convert_checkpoint(arguments.checkpoint, arguments.output, arguments.token_to_ix)
    print(f"{arguments.output} loads with AutoModelForSequenceClassification and AutoProcessor.")


def main(argv: list[str] | None = None) -> int:
    return run("umons convert", None, partial(convert, parse_arguments(argv)))


if __name__ == "__main__":
    sys.exit(main())
