"""`umons push`: push a model, data set, metric or Space to the Hugging Face Hub."""

import argparse
import sys
from functools import partial
from pathlib import Path

from .command import make_parser, run


DESCRIPTION = """Push a finished folder to the Hugging Face Hub.

    umons push runs/emotion --repo_id user/emotion --dry_run
    umons push runs/emotion --repo_id user/emotion --private --tag v1.0
    umons push hub/umons-mini --repo_id user/umons-mini --endpoint
    umons push runs/mosei --repo_id user/mosei
    umons push hub/metrics --repo_id user/metrics
    umons push hub/space --repo_id user/umons --create_pr

The type of the folder follows from its content:
  model     config.json; pushed with its code, weights, processor, tokenizer, report and card
  dataset   Parquet files of `umons prepare` and their card
  metric    a metric of `evaluate`: a Space named as its .py file
  space     an application: app.py, and README.md with `sdk: gradio`

The folder is checked first: a model must load from the Hub alone, weights must be complete safetensors
files, and no file may contain a token. Hidden files, caches and checkpoints are not pushed; symbolic links
are refused. The code of a model is added if the folder has none. In the uploaded card, the examples load
the repository.

A push is one commit, so that the repository never has half a model; it is refused if somebody else commits
meanwhile. Old weights, and Parquet shards that the pushed configurations would load, are deleted and
listed; other files of the repository stay. Files that it has already are not sent again: repeat an
interrupted push. Log in with `hf auth login` first, or set HF_TOKEN.

exit status: 0 the repository equals the folder; 1 not pushed, or not confirmed by the Hub (push again);
2 wrong usage; 130 interrupted
"""


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = make_parser("push", DESCRIPTION)
    parser.add_argument("folder", type=Path, help="folder to push")
    parser.add_argument("--repo_id", required=True, help="repository: user/name or organization/name")
    parser.add_argument(
        "--type",
        choices=["model", "dataset", "metric", "space"],
        help="type of the folder, if its content is ambiguous",
    )
    parser.add_argument("--private", action="store_true", help="create a private repository")
    parser.add_argument("--revision", help="branch, created if missing (default: main)")
    parser.add_argument("--create_pr", action="store_true", help="open a pull request instead of committing to main")
    parser.add_argument("--tag", help="tag of the commit, such as v1.0; the examples of the card then load this tag")
    parser.add_argument("--commit_message", help="message of the commit")
    parser.add_argument(
        "--endpoint",
        nargs="?",
        type=Path,
        const=True,
        help="with a model: add the handler of an Inference Endpoint, from this folder (default: hub/endpoint)",
    )
    parser.add_argument("--dry_run", action="store_true", help="show what would be pushed, without network access")
    return parser.parse_args(argv)


def push(arguments: argparse.Namespace) -> None:
    """Show the plan, and push it."""
    from ..publishing.plan import plan_push
    from ..publishing.push import push as push_plan
    from ..utils.hub_files import hub_path

    endpoint = hub_path("endpoint") if arguments.endpoint is True else arguments.endpoint
    with plan_push(arguments.folder, arguments.repo_id, arguments.type, endpoint, arguments.tag) as plan:
        print(plan.describe())
        if arguments.dry_run:
            return
        pushed = push_plan(plan, arguments.private, arguments.revision, arguments.commit_message, arguments.create_pr)
    for name in pushed.removed:
        print(f"removed: {name}")
    print(f"{pushed.url} is at {pushed.commit}" + ("" if pushed.is_new else ": nothing has changed"))


def main(argv: list[str] | None = None) -> int:
    interrupted = "Interrupted. The repository is unchanged unless the commit was under way: push again to be sure."
    return run("umons push", None, partial(push, parse_arguments(argv)), interrupted)


if __name__ == "__main__":
    sys.exit(main())
