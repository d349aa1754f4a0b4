"""Push a finished folder to the Hugging Face Hub.

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

The folder is checked first: a model must load from the Hub alone, weights must be complete safetensors files, and no
file may contain a token. Hidden files, caches and checkpoints are not pushed; symbolic links are refused. The code of a
model is added if the folder has none. In the uploaded card, the examples load the repository.

A push is one commit, so that the repository never has half a model; it is refused if somebody else commits meanwhile.
Old weights, and Parquet shards that the pushed configurations would load, are deleted and listed; other files of the
repository stay. Files that it has already are not sent again: repeat an interrupted push. Log in with `hf auth login`
first, or set HF_TOKEN.

exit status: 0 the repository equals the folder; 1 not pushed, or not confirmed by the Hub (push again); 2 wrong usage;
130 interrupted
"""

import argparse
import sys
from pathlib import Path

from ..publishing.plan import REPO_TYPES, plan_push
from ..publishing.push import PushError, push


ENDPOINT = Path(__file__).resolve().parent.parent.parent / "hub" / "endpoint"


def parse_arguments() -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder to push")
    parser.add_argument("--repo_id", required=True, help="repository: user/name or organization/name")
    parser.add_argument("--type", choices=list(REPO_TYPES), help="type of the folder, if its content is ambiguous")
    parser.add_argument("--private", action="store_true", help="create a private repository")
    parser.add_argument("--revision", help="branch, created if missing (default: main)")
    parser.add_argument("--create_pr", action="store_true", help="open a pull request instead of committing to main")
    parser.add_argument("--tag", help="tag of the commit, such as v1.0; the examples of the card then load this tag")
    parser.add_argument("--commit_message", help="message of the commit")
    parser.add_argument(
        "--endpoint",
        nargs="?",
        type=Path,
        const=ENDPOINT,
        help="with a model: add the handler of an Inference Endpoint, from this folder (default: hub/endpoint)",
    )
    parser.add_argument("--dry_run", action="store_true", help="show what would be pushed, without network access")
    return parser, parser.parse_args()


def main() -> int:
    parser, args = parse_arguments()
    try:
        with plan_push(args.folder, args.repo_id, args.type, args.endpoint, args.tag) as plan:
            print(plan.describe())
            if args.dry_run:
                return 0
            pushed = push(plan, args.private, args.revision, args.commit_message, args.create_pr)
    except ValueError as error:
        parser.error(str(error))
    except (PushError, OSError) as error:
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            "Interrupted. The repository is unchanged unless the commit was under way: push again to be sure.",
            file=sys.stderr,
        )
        return 130
    for name in pushed.removed:
        print(f"removed: {name}")
    print(f"{pushed.url} is at {pushed.commit}" + ("" if pushed.is_new else ": nothing has changed"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
