"""Push a finished folder to the Hugging Face Hub, where others load it by its name.

    python scripts/push_to_hub.py runs/emotion --repo_id user/emotion --dry_run
    python scripts/push_to_hub.py runs/emotion --repo_id user/emotion --private
    python scripts/push_to_hub.py hub/umons-mini --repo_id user/umons-mini --endpoint
    python scripts/push_to_hub.py runs/mosei --repo_id user/mosei
    python scripts/push_to_hub.py hub/metrics --repo_id user/metrics
    python scripts/push_to_hub.py hub/space --repo_id user/umons

What the folder is, it tells by what is in it:
  model     config.json; goes with its code, weights, processor, tokenizer, report and card
  dataset   Parquet files of scripts/prepare_mosei.py, and their card
  metric    a metric of `evaluate`: a Space whose name is that of its .py file
  space     an application: app.py, and README.md with `sdk: gradio`

Before anything is sent, the folder is checked: a model must load for one who has the Hub alone, weights must be
safetensors, and no file may hold a token. Hidden files, caches and the checkpoints of a run stay here. In the card that
is uploaded, the examples load the repository; the one in the folder stays as it is.

Links are followed to Python files wherever they are, and to all else within the folder that the pushed one stands in
(where that is / or your home, within the pushed folder alone), but to nothing hidden. Where a link leads is shown.

All goes in one commit, so the repository is as before until all is there (a new one is empty); what it has already is
not sent again. Of what it has beside, only weights of the model, or Parquet files that the pushed configurations would
read, are removed; they are listed. When a push was interrupted, repeat it. Files go by plain HTTP, also where hf_xet is
installed. Log in with `hf auth login` first, or set HF_TOKEN.

exit status: 0 the repository is as the folder; 1 not pushed, or the Hub did not say that it was (then push again);
2 wrong usage; 130 stopped by Ctrl-C
"""

import argparse
import sys
from pathlib import Path

from ..publishing.push import REPO_TYPES, PushError, make_plan, push


ENDPOINT = Path(__file__).resolve().parent.parent.parent / "hub" / "endpoint"


def parse_arguments() -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="what to push")
    parser.add_argument("--repo_id", required=True, help="the repository: user/name or organization/name")
    parser.add_argument("--type", choices=list(REPO_TYPES), help="what the folder is, where it does not tell")
    parser.add_argument("--private", action="store_true", help="a new repository that others do not see")
    parser.add_argument("--revision", help="the branch, made where it is missing (default: main)")
    parser.add_argument("--commit_message", help="what the commit is called")
    parser.add_argument(
        "--endpoint",
        nargs="?",
        type=Path,
        const=ENDPOINT,
        help="with a model, also the handler of an inference endpoint, from this folder (default: hub/endpoint)",
    )
    parser.add_argument("--dry_run", action="store_true", help="show what would be pushed, without any network")
    return parser, parser.parse_args()


def main() -> int:
    parser, args = parse_arguments()
    try:
        plan = make_plan(args.folder, args.repo_id, args.type, args.endpoint)
        print(plan.describe())
        if args.dry_run:
            return 0
        pushed = push(plan, args.private, args.revision, args.commit_message)
    except ValueError as error:
        parser.error(str(error))
    except (PushError, OSError) as error:
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            "Stopped. The repository is as it was, unless the commit was under way already: push again to be sure.",
            file=sys.stderr,
        )
        return 130
    for name in pushed.removed:
        print(f"removed: {name}")
    print(f"{pushed.url} is at {pushed.commit}" + ("" if pushed.is_new else ", as it was: there is nothing new"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
