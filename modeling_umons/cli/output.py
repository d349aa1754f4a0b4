"""Output of commands to pipes that may close early, as in `umons timeline talk.mp4 | head`."""

import os
import sys


SIGPIPE_EXIT_CODE = 128 + 13


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
