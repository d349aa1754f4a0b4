"""Suggestions for misspelt names of options, columns and choices."""

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the name of `known` that is spelt most like `name`, or `None` if none is similar."""
    by_lower = {candidate.lower(): candidate for candidate in known}
    close = get_close_matches(name.lower(), by_lower, n=1)
    return by_lower[close[0]] if close else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a question with the nearest name, to append to an error; empty if none is similar."""
    close = nearest(name, known)
    return "" if close is None else f" Did you mean {close}?"
