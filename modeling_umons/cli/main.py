"""The command `umons`."""

import argparse
import json
import os
import sys
from importlib.util import find_spec
from pathlib import Path


PREDICT_HELP = """Predict sentiment and emotions of clips, sound files and words.

    umons predict clip.mp4
    umons predict clip.mp4 --text "what was said" --plot clip.png
    umons predict --text "what a wonderful day" --json

One file that cannot be read does not stop the others; the exit status is then 1.
"""
TIMELINE_HELP = """Show how sentiment and emotions change in a clip or sound file, from segment to segment.

    umons timeline talk.mp4
    umons timeline talk.mp4 --output talk.csv talk.vtt talk.png
    umons timeline talk.mp4 --transcriber openai/whisper-base --output talk.srt

The suffix of an output says its format: .csv or .json for the numbers, .srt or .vtt for captions with
the strongest emotion, .png or .svg for a picture. Files of any length are read segment by segment, and
outputs are written whole or not at all, even if nobody reads what is printed to its end, as in
`umons timeline talk.mp4 --output talk.csv | head`. The exit status is 1 if the file cannot be read.
"""
SERVE_HELP = """Answer requests over HTTP: POST /predict, GET /health, GET /metrics.

    umons serve --port 8000
    curl localhost:8000/predict -F file=@clip.mp4 -F text="what is said"
    curl "localhost:8000/predict?text=so+glad" -H "Content-Type: video/mp4" --data-binary @clip.mp4
    curl localhost:8000/predict -H "Content-Type: application/json" \\
      -d '{"inputs": {"text": "what a wonderful day"}, "parameters": {"top_k": 3}}'

The body is JSON, a form or a raw file. Inputs are a text, {"text", "audio", "video"} with media in
base64, or a list of those; parameters are top_k, chunk_length_s, return_timestamps and
return_attention. URLs are not fetched. The schema is at /docs. The server has neither
authentication nor TLS: put a reverse proxy in front of it before others can reach it.
"""
NOBODY_READS = 141  # what shells say of a command that SIGPIPE has ended
DEFAULT_MODEL = Path(__file__).resolve().parent.parent.parent / "hub" / "umons-mini"


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="umons", description="Sentiment and emotion in text, sound and video.")
    commands = parser.add_subparsers(dest="command", required=True)
    predict = commands.add_parser(
        "predict",
        help="predict sentiment and emotions",
        description=PREDICT_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    predict.add_argument("files", nargs="*", metavar="FILE", help="clips or sound files, or URLs of them")
    predict.add_argument("--text", help="what is said in the file, or words alone")
    predict.add_argument("--json", action="store_true", help="print a JSON list, one entry for each input, in order")
    predict.add_argument("--plot", type=Path, metavar="out.png", help="draw the scores and where the model looked")
    _add_model_arguments(predict)

    timeline = commands.add_parser(
        "timeline",
        help="show how they change in a clip",
        description=TIMELINE_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    timeline.add_argument("file", metavar="FILE", help="a clip or sound file, or the URL of one")
    timeline.add_argument("--chunk_length_s", type=float, default=5.0, help="seconds of a segment (default: 5)")
    timeline.add_argument("--output", nargs="+", type=Path, default=[], metavar="PATH", help="files to write")
    words = timeline.add_mutually_exclusive_group()
    words.add_argument("--transcriber", metavar="MODEL", help="a speech recognition model, which hears the words")
    words.add_argument(
        "--words",
        type=Path,
        metavar="PATH",
        help='a JSON list of words, as a transcriber gives them: [{"word": "glad", "timestamp": [0.5, 0.9]}, ...]',
    )
    timeline.add_argument("--json", action="store_true", help="print a JSON list, one entry for each segment")
    _add_model_arguments(timeline)

    serve = commands.add_parser(
        "serve",
        help="answer requests over HTTP",
        description=SERVE_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    serve.add_argument("--host", default="127.0.0.1", help="address to listen at (default: this machine alone)")
    serve.add_argument("--port", type=int, default=8000, help="port to listen at (default: 8000; 0: any that is free)")
    serve.add_argument("--max_batch_size", type=int, default=8, help="requests answered at once (default: 8)")
    serve.add_argument(
        "--max_wait_ms", type=float, default=5.0, help="how long a request waits for others in its batch (default: 5)"
    )
    serve.add_argument("--max_queue", type=int, default=64, help="requests inside; others get 503 (default: 64)")
    serve.add_argument("--timeout_s", type=float, default=30.0, help="seconds for a request (default: 30)")
    serve.add_argument("--max_media_mb", type=int, default=23, help="of one request, in MiB (default: 23)")
    serve.add_argument("--max_media_s", type=float, default=600.0, help="of the media of one request (default: 600)")
    _add_model_arguments(serve)
    return parser


def _add_model_arguments(command: argparse.ArgumentParser):
    command.add_argument(
        "--model", help=f"a folder or Hub repository (default: {DEFAULT_MODEL.parent.name}/{DEFAULT_MODEL.name})"
    )
    command.add_argument(
        "--trust_remote_code", action="store_true", help="let a model that is not of this package bring its own code"
    )


def predict(arguments: argparse.Namespace) -> int:
    """Prints a result for each input; returns the exit status."""
    inputs = [{"video": file} for file in arguments.files] or [{}]
    if arguments.text is not None:
        if len(inputs) > 1:
            raise ValueError(f"--text belongs to one file, but {len(inputs)} are given: run the command for each.")
        inputs[0]["text"] = arguments.text
    if inputs == [{}]:
        raise ValueError("There is nothing to predict: name a file, or pass --text.")
    if arguments.plot is not None and len(inputs) > 1:
        raise ValueError(f"--plot draws one input, but {len(inputs)} are given: run the command for each.")
    if arguments.plot is not None and find_spec("matplotlib") is None:
        raise ValueError("--plot needs matplotlib: pip install 'modeling-umons[serve]'.")

    recognize = load_pipeline(arguments.model, arguments.trust_remote_code)
    results, failed = [], False
    for entry in inputs:
        name = entry.get("video", entry.get("text"))
        try:
            result = recognize(entry, return_attention=arguments.plot is not None)
        except (OSError, ValueError) as error:
            failed = True
            results.append({"input": name, "error": str(error)})
            print(f"umons: {error}", file=sys.stderr)
            continue
        attention = result.pop("attention", None)
        results.append({"input": name, **result})
        if not arguments.json:
            _say(format_result(results[-1]), goes_on=arguments.plot is not None)
    if arguments.json:
        _say(json.dumps(results, indent=2), goes_on=arguments.plot is not None)
    if arguments.plot is not None and not failed:
        from ..inference.plots import plot_result

        plot_result({**result, "attention": attention}, arguments.plot, title=name)
    return int(failed)


def timeline(arguments: argparse.Namespace) -> int:
    """Prints the segments of a file as they come and writes what is asked for; returns the exit status."""
    from ..inference.timeline import check_paths, write_timeline

    check_paths(arguments.output)
    inputs = {"video": arguments.file}
    if arguments.words is not None:
        inputs["words"] = read_words(arguments.words)
    recognize = load_pipeline(arguments.model, arguments.trust_remote_code)
    options = {"chunk_length_s": arguments.chunk_length_s}
    if arguments.transcriber is not None:
        options["transcriber"] = load_transcriber(arguments.transcriber)
    segments = recognize.stream(inputs, **options)
    shown = (print_json if arguments.json else print_table)(segments, goes_on=bool(arguments.output))
    try:
        write_timeline(shown, *arguments.output, labels=recognize.labels, title=Path(arguments.file).name)
    except OSError as error:
        print(f"umons: {error}", file=sys.stderr)
        return 1
    return 0


def print_table(segments, goes_on: bool = False):
    """Passes segments on, and prints a line for each; `goes_on` when nobody reads them any more."""
    from ..inference.timeline import describe, format_time

    _say(f"{'time':<20}{'sentiment':>10}  {'strongest emotions':<32}words", goes_on=goes_on)
    for segment in segments:
        start, end = (format_time(time, digits=1) for time in segment["timestamp"])
        sentiment = f"{segment['sentiment']:+.2f}" if "sentiment" in segment else ""
        scores = describe({name: segment[name] for name in ("emotions", "labels") if name in segment}, num_scores=2)
        if not segment["modalities"]:
            scores = "(nothing here)"
        _say(f"{start}-{end} {sentiment:>9}  {scores:<32}{segment.get('text', '')}".rstrip(), goes_on=goes_on)
        yield segment


def print_json(segments, goes_on: bool = False):
    """Passes segments on, and prints them as a list, a line for each; `goes_on` when nobody reads them any more."""
    separator = "["
    for segment in segments:
        _say(f"{separator}\n{json.dumps(segment, allow_nan=False)}", end="", goes_on=goes_on)
        separator = ","
        yield segment
    _say("\n]" if separator == "," else "[]", goes_on=goes_on)


def _say(text: str, goes_on: bool, end: str = "\n"):
    """Prints. Where nobody reads it, as after `| head`, the command ends; or `goes_on` with its files, and is quiet."""
    try:
        print(text, end=end, flush=True)
    except BrokenPipeError:
        # What is still to be printed, now or when Python ends, goes nowhere.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
        if not goes_on:
            sys.exit(NOBODY_READS)


def read_words(path: Path) -> list:
    """The list of words in a JSON file; raises ValueError for another file."""
    try:
        words = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # no JSON, or no text
        raise ValueError(f"--words {path} is no JSON file: {error}") from error
    if not isinstance(words, list):
        raise ValueError(f"--words {path} holds no list of words, but a {type(words).__name__}.")
    return words


def load_transcriber(model: str):
    """The pipeline of a speech recognition model; raises ValueError where it is not there or is no such model."""
    from transformers import pipeline

    try:
        return pipeline("automatic-speech-recognition", model=model)
    except (OSError, ValueError) as error:
        raise ValueError(f"--transcriber {model}: {error}") from error


def serve(arguments: argparse.Namespace) -> int:
    """Answers requests until it is told to stop; returns the exit status."""
    for name in ("max_batch_size", "max_queue", "timeout_s", "max_media_mb", "max_media_s"):
        if not 0 < getattr(arguments, name) < float("inf"):
            raise ValueError(f"--{name} is {getattr(arguments, name):g}: it must be more than 0, and finite.")
    if not 0 <= arguments.max_wait_ms < float("inf"):
        raise ValueError(f"--max_wait_ms is {arguments.max_wait_ms:g}: it must be 0 or more, and finite.")
    if not 0 <= arguments.port < 65536:
        raise ValueError(f"--port is {arguments.port}: ports are 0 to 65535.")
    if any(find_spec(name) is None for name in ("fastapi", "uvicorn", "python_multipart")):
        raise ValueError(
            "`umons serve` needs fastapi, uvicorn and python-multipart: pip install 'modeling-umons[serve]'."
        )
    from ..serving.request_handling import Limits
    from ..serving.server import serve as serve_pipeline

    # base64 takes four bytes for three, and JSON a little more
    num_bytes = arguments.max_media_mb * 2**20
    limits = Limits(
        max_body_bytes=num_bytes * 4 // 3 + 2**20, max_media_bytes=num_bytes, max_media_s=arguments.max_media_s
    )
    options = {
        name: getattr(arguments, name) for name in ("host", "port", "max_batch_size", "max_wait_ms", "max_queue")
    }
    model = load_pipeline(arguments.model, arguments.trust_remote_code)
    name = Path(arguments.model or DEFAULT_MODEL).name
    serve_pipeline(model, name=name, limits=limits, timeout_s=arguments.timeout_s, **options)
    return 0


def load_pipeline(model: str | None, trust_remote_code: bool = False):
    """The pipeline of a model; raises ValueError where it is not there or is no model."""
    if model is None and not DEFAULT_MODEL.is_dir():
        raise ValueError(
            "No --model is given, and the default model, hub/umons-mini, stands in the checkout of the project only: pass "
            "--model with a folder or a Hub repository."
        )
    from transformers import pipeline
    from transformers.utils import logging

    logging.disable_progress_bar()
    model = str(model or DEFAULT_MODEL)
    try:
        return pipeline("multimodal-emotion-recognition", model=model, trust_remote_code=trust_remote_code or None)
    except (OSError, ValueError) as error:
        place = "" if Path(model).is_dir() else ", which is no folder here"
        raise ValueError(f"--model {model}{place}: {error}") from error


def format_result(result: dict) -> str:
    """A few lines for people."""
    lines = [f"{result['input']}  ({' + '.join(result['modalities'])})"]
    if "sentiment" in result:
        lines.append(f"  sentiment {result['sentiment']:+.2f}")
    for entry in result.get("emotions", result.get("labels", [])):
        lines.append(f"  {entry['label']:<14}{entry['score']:5.2f}  {'█' * round(20 * entry['score'])}")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    arguments = make_parser().parse_args(argv)
    from ..registration import register_auto_classes

    register_auto_classes()
    try:
        return {"predict": predict, "timeline": timeline, "serve": serve}[arguments.command](arguments)
    except (OSError, ValueError) as error:
        print(f"umons: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
