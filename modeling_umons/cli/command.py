"""Parts that all subcommands share: the parser, model options, error messages and exit statuses."""

import argparse
import os
import sys
from collections.abc import Callable
from importlib.util import find_spec

from ..utils.redact import redact
from ..utils.suggest import did_you_mean
from .output import printable


FAILURE, WRONG_USAGE, SOME_FAILED, INTERRUPTED = 1, 2, 3, 130


class _Parser(argparse.ArgumentParser):
    """Parser that suggests the nearest option for an unknown one."""

    def parse_args(self, args=None, namespace=None):
        parsed, unknown = self.parse_known_args(args, namespace)
        if unknown:
            hint = did_you_mean(unknown[0].partition("=")[0], self._option_string_actions)
            self.error(f"unrecognized arguments: {' '.join(unknown)}.{hint}" if hint else
                       f"unrecognized arguments: {' '.join(unknown)}")  # fmt: skip
        return parsed


def make_parser(name: str, description: str, **options) -> argparse.ArgumentParser:
    """Return a parser that prints `description` as it is written, and takes no abbreviated options."""
    return _Parser(
        prog=f"umons {name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        **options,
    )


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Add `--model` and `--trust_remote_code`."""
    parser.add_argument("--model", help="a folder or Hub id (default: umons-base in a checkout, else umons-mini)")
    parser.add_argument("--trust_remote_code", action="store_true", help="allow models that bring their own code")


def add_engine_arguments(parser: argparse._ActionsContainer) -> None:
    """Add `--num_proc`, `--engine` and `--gpus_per_worker`."""
    parser.add_argument(
        "--num_proc",
        "--num_workers",
        type=int,
        metavar="N",
        help="worker processes or actors (default: one per GPU, or 1)",
    )
    parser.add_argument(
        "--engine",
        choices=["local", "ray"],
        default="local",
        help="ray runs the workers as actors on the cluster of RAY_ADDRESS, or on this machine (default: local)",
    )
    parser.add_argument(
        "--gpus_per_worker",
        type=float,
        default=1.0,
        metavar="SHARE",
        help="GPUs of a Ray actor: 0.25 runs four on each GPU (default: 1)",
    )


def positive_int(text: str) -> int:
    """Convert an option to an integer of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


class StoreOnce(argparse.Action):
    """Action of an option that must not be given twice."""

    def __call__(self, parser, namespace, values, option_string=None):
        if getattr(namespace, self.dest) is not None:
            parser.error(f"{option_string} is given twice: run the command for each.")
        setattr(namespace, self.dest, values)


def require_package(option: str, package: str, extra: str) -> None:
    """Raise ImportError if the package that an option needs is not installed."""
    if find_spec(package) is None:
        raise ImportError(f'{option} needs {package}: pip install "modeling-umons[{extra}]"')


def check_segment_packages(granularity: str | None, transcriber: str | None) -> None:
    """Raise ImportError if a package that finds or transcribes speech is not installed."""
    if granularity in ("utterance", "sentence", "word"):
        require_package(f"--granularity {granularity}", "faster_whisper", "transcribe")
    # A folder of that name is loaded by transformers.
    if transcriber is not None and transcriber.startswith("whisper") and not os.path.isdir(transcriber):
        require_package(f"--transcriber {transcriber}", "faster_whisper", "transcribe")


def run(prog: str, extra: str | None, work: Callable[[], int | None], interrupted: str = "Interrupted.") -> int:
    """
    Call `work`, print the errors that a user can cause as one line, and return the exit status: 2 for wrong options or
    values, 1 for a file, folder, model or package that is missing or cannot be used.

    Args:
        prog: Name of the program in messages.
        extra: The extra of the package that installs what `work` imports.
        work: Returns an exit status, or `None` for 0.
        interrupted: Message after Ctrl-C.
    """
    if not sys.stderr.isatty():
        # Progress bars fill log files. Both variables are read by imports.
        os.environ.setdefault("TQDM_DISABLE", "1")
        os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    from safetensors import SafetensorError

    try:
        return work() or 0
    except KeyboardInterrupt:
        print(f"{prog}: {interrupted}", file=sys.stderr)
        return INTERRUPTED
    except ModuleNotFoundError as error:
        if extra is None or not error.name or error.name.startswith("modeling_umons"):
            raise
        # transformers raises a sentence as the name if a launch configuration asks for DeepSpeed.
        name, extra = ("deepspeed", "deepspeed") if "deepspeed" in error.name else (error.name, extra)
        message = f'the package {name} is not installed: pip install "modeling-umons[{extra}]"'
        print_error(prog, message)
        return FAILURE
    except ValueError as error:
        print_error(prog, error)
        return WRONG_USAGE
    except (ImportError, OSError, SafetensorError) as error:
        print_error(prog, error)
        return FAILURE


def print_error(prog: str, error: Exception | str) -> None:
    """Print an error without control characters and without anything that looks like a Hub token."""
    print(printable(redact(f"{prog}: error: {error}")), file=sys.stderr)
