"""Tables in Markdown and on the screen, with text to the left and numbers to the right, and cells of CSV."""

from collections.abc import Sequence
from typing import Any


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[Any]], align: bool = False) -> str:
    """Return a Markdown table. `align` pads the cells, for a table that is also shown on the screen."""
    cells = _format(header, rows)
    widths = _widths(cells, minimum=3) if align else [0] * len(header)
    rule = [f"{'-' * max(3, width)}{':' if i else ''}"[-max(width, 4 if i else 3) :] for i, width in enumerate(widths)]
    return "\n".join(f"| {' | '.join(_align(row, widths))} |" for row in [cells[0], rule, *cells[1:]])


def escape_formula(text: str | None) -> str | None:
    """Prefix a cell of CSV that a spreadsheet would evaluate by an apostrophe."""
    return f"'{text}" if text and text[0] in "=+-@\t\r" else text


def print_table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print an empty line and a table."""
    cells = _format(header, rows)
    widths = _widths(cells)
    print()
    for row in cells:
        print("  ".join(_align(row, widths)).rstrip())


def _format(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[list[str]]:
    """Return the cells as text, with thousands separators in whole numbers."""
    return [[f"{value:,}" if isinstance(value, int) else str(value) for value in row] for row in (header, *rows)]


def _widths(cells: list[list[str]], minimum: int = 0) -> list[int]:
    return [max(minimum, *map(len, column)) for column in zip(*cells, strict=True)]


def _align(row: list[str], widths: list[int]) -> list[str]:
    return [f"{text:{'>' if i else '<'}{width}}" for i, (text, width) in enumerate(zip(row, widths, strict=True))]
