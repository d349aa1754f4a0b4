"""Progress of long runs with the time left: a bar on a terminal, and a line now and then in a log file."""

import sys
import time

from tqdm import tqdm


LINE_S = 10.0  # seconds between two lines


class Progress:
    """
    Progress on stderr. Without a terminal it is a line every `LINE_S` seconds, and none for shorter runs.

    Args:
        label: name of the work.
        total: number of units.
        done: units that an earlier run has done.
        unit: name of a unit.
        is_shown: false for the processes that leave the output to another one.
    """

    def __init__(self, label: str, total: int, done: int = 0, unit: str = "row", is_shown: bool = True):
        self.label, self.total, self.first, self.done, self.unit = label, total, done, done, unit
        self.is_shown = is_shown
        self.start = self.last_line = time.monotonic()
        has_bar = is_shown and sys.stderr.isatty()
        self.bar = tqdm(total=total, initial=done, unit=unit, desc=label) if has_bar else None

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *error) -> None:
        if self.bar is not None:
            self.bar.close()

    def update(self, count: int = 1) -> None:
        """Count further units."""
        self.done += count
        if self.bar is not None:
            self.bar.update(count)
        elif self.is_shown and time.monotonic() - self.last_line >= LINE_S:
            self.last_line = time.monotonic()
            print(self.describe(), file=sys.stderr, flush=True)

    def describe(self) -> str:
        """Format the units done, their rate and the time left."""
        rate = (self.done - self.first) / max(time.monotonic() - self.start, 1e-9)
        left = tqdm.format_interval((self.total - self.done) / rate) if rate else "?"
        return f"{self.label}: {self.done:,} of {self.total:,} {self.unit}s, {rate:.3g} {self.unit}s/s, {left} left"
