"""The command `umons`: dispatches to the subcommands, whose modules are imported on use."""

import argparse
import gc
import sys
from importlib import import_module

from .. import __version__
from ..utils.suggest import did_you_mean


COMMANDS = {
    "predict": "predict sentiment and emotions of clips, audio files and texts",
    "timeline": "predict a long file segment by segment",
    "live": "predict a microphone or a pipe while it records",
    "serve": "serve predictions over HTTP",
    "train": "train a model on a table or data set",
    "evaluate": "evaluate saved models on a split",
    "explain-metrics": "print the definitions of the metrics in reports",
    "compare": "train several models on the same rows and compare them",
    "reproduce": "reproduce the results table of the paper on CMU-MOSEI",
    "prepare": "convert CMU-MOSEI and other corpora to Parquet",
    "distill": "mix the labels of a data set with the predictions of a model",
    "extract": "extract features of clips to Parquet",
    "export": "export a model to ONNX",
    "convert": "convert a checkpoint of the published implementation",
    "push": "push a model, data set, metric or Space to the Hub",
}


def make_parser() -> argparse.ArgumentParser:
    width = max(map(len, COMMANDS))
    commands = "\n".join(f"  {name:{width}}  {text}" for name, text in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="umons",
        usage="umons COMMAND [OPTIONS]",
        description="Sentiment and emotion recognition from text, audio and video.",
        epilog=f"commands:\n{commands}\n\n`umons COMMAND --help` explains a command.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"modeling-umons {__version__}")
    parser.add_argument("command", choices=list(COMMANDS), metavar="COMMAND", help="one of the commands below")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run a subcommand and return its exit status."""
    if argv is None:
        argv = sys.argv[1:]
        if argv and argv[0] in COMMANDS:
            # The package does not register for the program name `umons`. Worker processes inherit the name.
            sys.argv[0] = f"umons {argv[0]}"
        # Imports create many objects and few cycles: at the default of 700, collections take a fifth of a start.
        gc.set_threshold(50_000, 20, 20)
    parser = make_parser()
    if argv and argv[0] not in COMMANDS and not argv[0].startswith("-"):
        parser.error(f"unknown command {argv[0]!r}.{did_you_mean(argv[0], COMMANDS)}")
    command = parser.parse_args(argv[:1]).command
    return import_module(f".{command.replace('-', '_')}", __package__).main(argv[1:])


if __name__ == "__main__":
    sys.exit(main())
