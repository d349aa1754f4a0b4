"""Calls of subcommands in the process of the tests."""

import io
import re
import sys
from collections.abc import Callable
from contextlib import redirect_stderr


def call(main: Callable[[list[str]], int], *arguments) -> None:
    """Call the `main` of a subcommand. A nonzero exit status raises SystemExit with its error message."""
    errors = io.StringIO()
    try:
        with redirect_stderr(errors):
            status = main([str(argument) for argument in arguments])
    finally:
        sys.stderr.write(errors.getvalue())
    if status:
        message = re.search(r"umons \w+: error: [^\r]*", errors.getvalue())
        raise SystemExit(message[0] if message else errors.getvalue())
