"""Timelines: predictions of the segments of a clip as tables, captions, annotations and plots."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..models.umons.configuration_umons import EMOTIONS
from ..utils.files import atomic_path
from .timeline_formats import FORMATS, REQUIREMENTS, Description, scores_of


def write_timeline(
    segments: Iterable[dict[str, Any]],
    *paths: str | Path,
    labels: list[str] | None = None,
    title: str = "",
    media: str | Path | None = None,
):
    """
    Write the predictions of the segments of a clip to files, atomically.

    ```python
    >>> write_timeline(recognize("clip.mp4", chunk_length_s=5), "clip.csv", "clip.vtt", "clip.png")
    >>> write_timeline(recognize.stream("long.mp4", chunk_length_s=5), "long.csv", labels=recognize.labels)
    ```

    The suffix of a path sets the format:

    | suffix | content | segment without prediction |
    |---|---|---|
    | `.csv`, `.parquet` | table with a column for each score | row without scores |
    | `.json` | the predictions | the prediction |
    | `.srt`, `.vtt` | captions: strongest emotion, sentiment, speaker and text | left out |
    | `.rttm` | turns of the speakers | left out without a speaker |
    | `.eaf` | ELAN annotations: text, words, label and sentiment, for each speaker | without label and sentiment |
    | `.png`, `.svg` | plot of the sentiment, the scores, the speakers and the words over time | hatched |

    In a table, a score with the name of another column, such as `text`, gets the prefix `score_`. A text or name that
    a spreadsheet would take for a formula (=, +, -, @) gets an apostrophe as prefix.

    Args:
        segments: predictions with `timestamp`, in order of time, all with the same scores.
        paths: files to write.
        labels: names of the scores, in the order of columns. With them, segments are written as they come; without
            them, all segments are collected first. A plot and annotations are held in memory.
        title: title of the plot, and name of the recording.
        media: the clip, which `.eaf` files refer to.

    Raises:
        ValueError: an unknown suffix, a path given twice, segments without `timestamp` or out of order, a score that
            is not in `labels`, or an `.rttm` file without speakers. Paths are checked first.
        ImportError: a package is missing.
        OSError: a folder that does not exist, or a file that cannot be written.
    """
    check_paths(paths)
    if labels is None:
        segments = list(segments)
        labels = _gather_labels(segments)
    with ExitStack() as files:
        writers = []
        for path in map(Path, paths):
            description = Description(path, labels, title, None if media is None else Path(media))
            writer = FORMATS[path.suffix.lower()](files.enter_context(_open_output(path)), description)
            writers.append(files.enter_context(closing(writer)))
            next(writer)
        for segment in _checked(segments, labels):
            for writer in writers:
                writer.send(segment)
        for writer in writers:
            next(writer, None)


def check_paths(paths: Iterable[str | Path]):
    """Raise ValueError, ImportError or OSError for paths that [`write_timeline`] cannot write."""
    seen = set()
    for path in map(Path, paths):
        suffix = path.suffix.lower()
        if suffix not in FORMATS:
            raise ValueError(f"{path}: the suffix is not a format of a timeline. Use one of {', '.join(FORMATS)}.")
        package, extra = REQUIREMENTS.get(suffix, ("csv", ""))
        if find_spec(package) is None:
            raise ImportError(f'{path}: {suffix} files need {package}: pip install "modeling-umons[{extra}]"')
        if path.resolve() in seen:
            raise ValueError(f"{path} is given twice.")
        seen.add(path.resolve())
        check_place(path)


def check_place(path: Path):
    """Raise OSError for a path at which no file can be written."""
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder, not a file.")
    if not (folder := path.resolve().parent).is_dir():
        raise FileNotFoundError(f"{path}: the folder {folder} does not exist. Create it first.")


def _gather_labels(segments: list[dict[str, Any]]) -> list[str]:
    names = {name for segment in segments for name in scores_of(segment)}
    return [name for name in EMOTIONS if name in names] + sorted(names.difference(EMOTIONS))


def _checked(segments: Iterable[dict[str, Any]], labels: list[str]) -> Iterator[dict[str, Any]]:
    before = 0.0
    for number, segment in enumerate(segments, start=1):
        if "timestamp" not in segment:
            raise ValueError(
                f"Segment {number} has no `timestamp`. Call the pipeline with `chunk_length_s` or "
                "`return_timestamps=True`."
            )
        start, end = segment["timestamp"]
        if not before <= start <= end:
            raise ValueError(
                f"Segment {number} is from {start} s to {end} s, but the previous one begins at {before} s."
            )
        if unknown := sorted(set(scores_of(segment)).difference(labels)):
            raise ValueError(f"Segment {number} has scores of {unknown}, which are not in `labels`, {labels}.")
        yield segment
        before = start


@contextmanager
def _open_output(path: Path) -> Iterator[Path]:
    """Yield an empty temporary file that replaces `path` at the end. Errors come first, and name `path`."""
    with atomic_path(path) as temporary:
        try:
            with suppress(FileNotFoundError):
                path.stat()  # raises if the name is too long
            open(temporary, "x").close()
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from None
        yield temporary
