"""`umons predict`: sentiment and emotions of clips, audio files and texts."""

import argparse
import json
import re
import sys
from functools import partial
from pathlib import Path

from .command import (
    StoreOnce,
    add_engine_arguments,
    add_model_arguments,
    check_segment_packages,
    make_parser,
    require_package,
    run,
)
from .output import print_failures, print_or_stop, printable
from .timeline import GRANULARITIES


TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
PIPELINE_OPTIONS = ("granularity", "chunk_length_s", "hop_length_s", "overflow", "strict", "abstain_below")
SUFFIX = re.compile(r"\.\w{2,5}$")
SHOWN_UNITS = 5  # words or moments of each modality

NO_INTERVALS = (
    "The model has no 90 % intervals for these modalities. `umons evaluate --calibrate` computes them from your own "
    "labelled data."
)

DESCRIPTION = """Predict sentiment and emotions of clips, audio files and texts.

    umons predict clip.mp4
    umons predict clip.mp4 --text "what was said" --plot clip.png
    umons predict --text "what a wonderful day" --json
    umons predict clips.csv --output predictions.parquet

With --output, the input is a table (.csv, .tsv, .jsonl, .parquet), a folder of clips, files, or a folder or Hub
repository of `datasets`; the output (.parquet, .csv, .jsonl) has one row per input, or per segment with
--granularity, --chunk_length_s or --hop_length_s. The same command resumes an interrupted run. Rows that failed are
also in a table next to the output.

A file that cannot be read does not stop the others; the exit status is then 1.
"""


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = make_parser("predict", DESCRIPTION)
    parser.add_argument("files", nargs="*", metavar="FILE", help="clips or audio files; with --output also a table")
    parser.add_argument("--text", action=StoreOnce, help="words spoken in the file, or a text without a file")
    parser.add_argument("--json", action="store_true", help="print a JSON list with one entry per input")
    parser.add_argument("--plot", type=Path, metavar="PNG", help="plot the scores and the attention weights")
    parser.add_argument(
        "--abstain_below", type=float, metavar="P", help='label results of a lower confidence "unsure" (0 to 1)'
    )
    parser.add_argument(
        "--explain", action="store_true", help="show what each modality and word contributes to the prediction"
    )
    parser.add_argument("--strict", action="store_true", help="fail for an input with warnings")
    parser.add_argument(
        "--overflow",
        choices=["segment", "truncate", "error"],
        default="segment",
        help="for an input longer than the model processes at once: predict it in parts, use its beginning, or "
        "fail (default: segment)",
    )
    add_model_arguments(parser)
    common = vars(parser.parse_args([])).keys()
    add_table_arguments(parser.add_argument_group("tables"))
    arguments = parser.parse_args(argv)
    for name, value in vars(arguments).items():
        if arguments.output is None and name not in common and value != parser.get_default(name):
            parser.error(f"--{name} needs --output, the table to write.")
    return arguments


def add_table_arguments(group) -> None:
    """Add the options of batch prediction."""
    group.add_argument("--output", metavar="PATH", help="predict a table, folder or data set into this file")
    group.add_argument("--text_column", metavar="COLUMN", help="column of texts (default: one with a usual name)")
    group.add_argument("--audio_column", metavar="COLUMN", help="column of files of which only the audio is used")
    group.add_argument("--video_column", metavar="COLUMN", help="column of clips or audio files")
    group.add_argument(
        "--keep_columns",
        nargs="+",
        metavar="COLUMN",
        help="columns of the input to copy to the output (default: identifiers and names of files)",
    )
    group.add_argument("--split", help="split to predict (default: all)")
    group.add_argument("--dataset_config_name", metavar="NAME", help="configuration of a data set")
    group.add_argument(
        "--granularity",
        choices=[name for name in GRANULARITIES if name != "turn"],  # turns need speakers, which tables lack
        help="predict segments of files: windows of --chunk_length_s, utterances between pauses, sentences or words",
    )
    group.add_argument("--chunk_length_s", type=float, metavar="S", help="predict segments of this length in seconds")
    group.add_argument("--hop_length_s", type=float, metavar="S", help="seconds between them (default: the length)")
    group.add_argument("--transcriber", metavar="MODEL", help="speech recognition model for files without texts")
    group.add_argument("--batch_size", type=int, default=32, metavar="N", help="rows per batch (default: 32)")
    group.add_argument(
        "--shard_size", type=int, metavar="N", help="rows between two saves (default: 1024 texts or 64 files)"
    )
    add_engine_arguments(group)


def make_inputs(arguments: argparse.Namespace) -> list[dict[str, str]]:
    """Return the inputs of the pipeline. Raises ValueError for wrong options, ImportError for a missing package."""
    files = arguments.files
    for file in files:
        if Path(file).suffix.lower() in TABLE_SUFFIXES:
            raise ValueError(f"{file} is a table: pass --output predictions.csv to predict its rows.")
        if Path(file).is_dir():
            raise ValueError(f"{file} is a folder: pass --output predictions.csv to predict its files.")
    if files and arguments.text is None and not any(SUFFIX.search(file) or Path(file).exists() for file in files):
        raise ValueError(f"There is no file {files[0]!r}. To predict a text, pass --text {' '.join(files)!r}.")
    inputs = [{"video": file} for file in files] or [{}]
    if arguments.text is not None:
        if len(inputs) > 1:
            raise ValueError(f"--text belongs to one file, but {len(inputs)} are given: run the command for each.")
        inputs[0]["text"] = arguments.text
    if inputs == [{}]:
        raise ValueError("There is nothing to predict: name a file, or pass --text.")
    if arguments.plot is not None and len(inputs) > 1:
        raise ValueError(f"--plot draws one input, but {len(inputs)} are given: run the command for each.")
    if arguments.plot is not None:
        require_package("--plot", "matplotlib", "plot")
    return inputs


def check_table_options(arguments: argparse.Namespace) -> None:
    """Raise ValueError for options that do not go together with `--output`."""
    for name in ("text", "json", "plot", "explain"):
        if getattr(arguments, name):
            raise ValueError(f"--{name} and --output do not go together: leave out one of them.")
    if not arguments.files:
        raise ValueError("There is nothing to predict: name a table, a folder, files or a data set.")
    for file in arguments.files:
        if len(arguments.files) > 1 and (Path(file).is_dir() or Path(file).suffix.lower() in TABLE_SUFFIXES):
            raise ValueError(f"{file} is a table or folder, but several inputs are given: run the command for each.")
    check_segment_packages(arguments.granularity, arguments.transcriber)


def predict_rows(arguments: argparse.Namespace) -> int:
    """Predict a table, a folder, files or a data set; return 1 if a row failed."""
    from ..data.input_tables import InputOptions
    from ..data.sharding import Engine
    from ..inference.tables import PredictionSettings, name_failures, predict_table

    check_table_options(arguments)
    engine = Engine(arguments.engine, arguments.num_proc, arguments.gpus_per_worker)
    names = ("text_column", "audio_column", "video_column", "split", "dataset_config_name")
    kept = None if arguments.keep_columns is None else tuple(arguments.keep_columns)
    input_options = InputOptions(**{name: getattr(arguments, name) for name in names}, keep_columns=kept)
    settings = PredictionSettings(
        arguments.model,
        arguments.trust_remote_code,
        {name: getattr(arguments, name) for name in PIPELINE_OPTIONS},
        arguments.transcriber,
        arguments.batch_size,
        arguments.shard_size,
    )
    report = predict_table(arguments.files, arguments.output, settings, input_options, engine)
    kinds = {"text": "text", "audio": "audio", "video": "files"}  # clips or audio files
    columns = ", ".join(f"{kinds[name]} from `{column}`" for name, column in report.inputs.items())
    print(f"{report.num_rows} inputs in {arguments.output} ({columns}), {report.num_failed} failed.")
    print_failures(report.failures, str(name_failures(Path(arguments.output))))
    return int(bool(report.failures))


def predict(inputs: list[dict[str, str]], arguments: argparse.Namespace) -> int:
    """Print a result for each input; return 1 if one failed."""
    from ..inference.loading import load_pipeline

    recognize = load_pipeline(arguments.model, arguments.trust_remote_code, pack=len(inputs) >= 20)
    results, failed, with_plot = [], False, arguments.plot is not None
    options = {"on_error": "return", "return_attention": with_plot, "abstain_below": arguments.abstain_below}
    options |= {"return_explanations": arguments.explain}
    options |= {"strict": arguments.strict, "overflow": arguments.overflow}
    predictions = recognize((entry for entry in inputs), **options)
    for entry, result in zip(inputs, predictions, strict=True):
        name, attention = entry.get("video") or entry["text"], result.pop("attention", None)
        results.append({"input": name, **result})
        if "error" in result:
            failed = True
            print(printable(f"umons predict: {result['error']}"), file=sys.stderr)
        elif not arguments.json:
            print_or_stop(printable(format_result(results[-1])), has_files=with_plot)
    if arguments.json:
        print_or_stop(json.dumps(results, indent=2), has_files=with_plot)
    elif any("sentiment" in result and "sentiment_interval" not in result for result in results):
        print(NO_INTERVALS, file=sys.stderr)
    if with_plot and not failed:
        from ..inference.plots import plot_result

        plot_result({**result, "attention": attention}, arguments.plot, title=name)
    return int(failed)


def format_result(result: dict) -> str:
    """Format a result as a line for each score."""
    lines = [f"{result['input']}  ({' + '.join(result['modalities'])})"]
    if "sentiment" in result:
        limits = result.get("sentiment_interval")
        interval = "  (90 %: {:+.2f} to {:+.2f})".format(*limits) if limits else ""
        lines.append(f"  sentiment {result['sentiment']:+.2f}{interval}")
    if "label" in result:
        lines.append(f"  label     {result['label']}")
    for entry in result.get("emotions", result.get("labels", [])):
        lines.append(f"  {entry['label']:<14}{entry['score']:5.2f}  {'█' * round(20 * entry['score'])}")
    for entry in result.get("values", []):
        limits = "  (trained on {:g} to {:g})".format(*entry["range"]) if "range" in entry else ""
        lines.append(f"  {entry['label']:<14}{entry['score']:7.2f}{limits}")
    if "explanations" in result:
        numbers = result.get("values", [{}])
        explained = "sentiment" if "sentiment" in result else result.get("label", numbers[0].get("label"))
        lines += format_explanations(result["explanations"], explained)
    lines += [f"  warning   {warning['message']}" for warning in result.get("warnings", ())]
    return "\n".join(lines)


def format_explanations(explanations: dict, score: str) -> list[str]:
    """Format the contributions to a score: of the modalities, and of the words and moments with the largest ones."""
    lines = [f"  contributions to the {score}:"]
    if score not in next(iter(explanations["modalities"].values()), {score: 0}):  # "neutral" is not a score
        return []
    for modality, scores in explanations["modalities"].items():
        lines.append(f"    {modality:<14}{scores[score]:+.2f}")
        units = sorted(explanations.get(modality, ()), key=lambda unit: -abs(unit[score]))[:SHOWN_UNITS]
        for unit in units:
            name = unit["word"] if "word" in unit else f"{unit['time']:.1f} s"
            lines.append(f"      {name:<16.16}{unit[score]:+.2f}")
    return lines


def main(argv: list[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    if arguments.output is not None:
        work = partial(predict_rows, arguments)
        return run("umons predict", "data", work, "Interrupted. The same command resumes.")
    return run("umons predict", None, lambda: predict(make_inputs(arguments), arguments))


if __name__ == "__main__":
    sys.exit(main())
