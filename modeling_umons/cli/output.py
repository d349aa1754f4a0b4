"""Output of commands: tables of failures, text of untrusted files, and pipes that may close early, as in `| head`."""

import os
import sys
from collections.abc import Sequence


SIGPIPE_EXIT_CODE = 128 + 13
SHOWN_FAILURES = 20
# Of C0, but for tab and line feed, and C1: a terminal would execute them.
CONTROL_CHARACTERS = {code: f"\\x{code:02x}" for code in (*range(9), *range(11, 32), *range(127, 160))}


def printable(text: str) -> str:
    """Replace control characters by their codes."""
    return text.translate(CONTROL_CHARACTERS)


def print_or_stop(text: str, has_files: bool, end: str = "\n") -> None:
    """
    Print `text`.

    If the reader has closed the pipe, exit with `SIGPIPE_EXIT_CODE`. A command that `has_files` to write continues
    without printing.
    """
    try:
        print(text, end=end, flush=True)
    except BrokenPipeError:
        # Python also flushes stdout at exit.
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
        if not has_files:
            sys.exit(SIGPIPE_EXIT_CODE)


def print_failures(failures: Sequence[tuple[int, str, str]], table: str) -> None:
    """Print the first failures (row, file, reason), and the name of the table that has all."""
    if not failures:
        return
    shown = [(row, printable(file), printable(reason)) for row, file, reason in failures[:SHOWN_FAILURES]]
    width = max(4, *(len(file) for _, file, _ in shown))
    print(f"\n{'row':>6}  {'file':{width}}  reason")
    for row, file, reason in shown:
        print(f"{row:6}  {file:{width}}  {reason}")
    if len(failures) > len(shown):
        print(f"... and {len(failures) - len(shown)} more in {table}")
