"""`umons train`: train a model on a table or data set."""

import logging
import sys
from functools import partial

from .command import run
from .option_names import check_option_names


DESCRIPTION = """Train a UMONS model or a baseline on a table of utterances or on a data set of `datasets`.

    umons train --train_file clips/metadata.csv --task joint --output_dir runs/clips
    umons train emotion --train_file clips/metadata.csv
    umons train path/to/recipe.yaml --num_train_epochs 5 --seeds 3
    accelerate launch --config_file FILE -m modeling_umons.cli.train emotion --dataset_name mosei

A table (.csv, .tsv, .jsonl, .parquet) has a column of texts, a column of audio or video files with paths
relative to the table, or both, and labels: `sentiment` in [-3, 3] and the emotions `happy sad anger surprise
disgust fear`, or one column of classes. A column `split` (train, validation, test) divides it; without one,
and without --validation_file, a fraction is held out. `umons prepare` and `umons extract` write data sets
with precomputed features.

A recipe is a YAML file of options, given by path or by name; the command line overrides it.
{recipes}

The best epoch by validation is kept. The output folder loads with `pipeline` and the Auto classes; its
report/ has the metrics next to those of baselines. --resume_from_checkpoint last resumes an interrupted run.
--push_to_hub pushes the finished model (--hub_model_id user/name), as `umons push` does.
"""
RESUME = "Interrupted. --resume_from_checkpoint last resumes the run."


def train(argv: list[str], prog: str, description: str) -> None:
    """Parse the options of the command `prog`, train, and push if asked to."""
    check_option_names(argv)  # before the imports
    from transformers.utils.logging import disable_progress_bar

    from ..recipes import format_recipes
    from ..registration import register_auto_classes
    from ..training.arguments import parse_arguments
    from ..training.run import train_all

    register_auto_classes()
    *others, run_arguments = parse_arguments(argv, description.format(recipes=format_recipes()), prog)
    level = logging.INFO if run_arguments.should_log else logging.WARNING
    logging.basicConfig(level=level, format="%(message)s")
    disable_progress_bar()  # of loading and saving; that of training stays
    push = run_arguments.take_push(run_arguments.seeds * len(set(others[1].model)))
    if push is not None:
        push = push.check() if run_arguments.process_index == 0 else None  # before the training, not after it
    train_all(*others, run_arguments)
    if push is not None:
        logging.getLogger(__name__).info("Pushed to %s", push(run_arguments.output_dir).url)


def main(argv: list[str] | None = None, prog: str = "umons train", description: str = DESCRIPTION) -> int:
    argv = sys.argv[1:] if argv is None else argv
    if argv == ["--list_recipes"]:
        from ..recipes import format_launch_files, format_recipes

        print(f"{format_recipes()}\n\nfiles for accelerate launch --config_file:\n{format_launch_files()}")
        return 0
    return run(prog, "train", partial(train, argv, prog, description), RESUME)


if __name__ == "__main__":
    sys.exit(main())
