"""The command `umons`."""

import argparse
import json
import sys
from importlib.util import find_spec
from pathlib import Path


PREDICT_HELP = """Predict sentiment and emotions of clips, sound files and words.

    umons predict clip.mp4
    umons predict clip.mp4 --text "what was said" --plot clip.png
    umons predict --text "what a wonderful day" --json

One file that cannot be read does not stop the others; the exit status is then 1.
"""
DEFAULT_MODEL = Path(__file__).resolve().parent.parent / "hub" / "umons-mini"


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
    predict.add_argument(
        "--model", help=f"a folder or Hub repository (default: {DEFAULT_MODEL.parent.name}/{DEFAULT_MODEL.name})"
    )
    predict.add_argument("--json", action="store_true", help="print a JSON list, one entry for each input, in order")
    predict.add_argument("--plot", type=Path, metavar="out.png", help="draw the scores and where the model looked")
    predict.add_argument(
        "--trust_remote_code", action="store_true", help="let a model that is not of this package bring its own code"
    )
    return parser


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
            print(format_result(results[-1]))
    if arguments.json:
        print(json.dumps(results, indent=2))
    if arguments.plot is not None and not failed:
        from .plots import plot_result

        plot_result({**result, "attention": attention}, arguments.plot, title=name)
    return int(failed)


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
    try:
        return {"predict": predict}[arguments.command](arguments)
    except (OSError, ValueError) as error:
        print(f"umons: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
