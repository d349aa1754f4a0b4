"""`umons explain-metrics`: definitions of the metrics in reports."""

import argparse
import sys

from .command import make_parser, run
from .output import print_or_stop


DESCRIPTION = """Print the definition of every metric in reports, or of some.

    umons explain-metrics
    umons explain-metrics acc2_non0 anger_auroc
"""


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = make_parser("explain-metrics", DESCRIPTION)
    parser.add_argument("names", nargs="*", metavar="NAME", help="names of metrics (default: all)")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    arguments = parse_arguments(argv)

    def explain() -> None:
        from ..evaluation.legend import format_legend

        print_or_stop(format_legend(arguments.names), has_files=False)

    return run("umons explain-metrics", None, explain)


if __name__ == "__main__":
    sys.exit(main())
