"""`umons evaluate`: evaluate saved models on a split."""

import argparse
import logging
import sys
from functools import partial
from pathlib import Path

from .command import add_engine_arguments, make_parser, positive_int, run


DESCRIPTION = """Evaluate a model, or several and their ensemble, on a split of a data set.

    umons evaluate --model runs/sample --dataset metadata.csv --split test --output report.json
    umons evaluate --model runs/mosei/seed-* --dataset mosei --split test --output runs/mosei/test

A data set is a table (.csv, .tsv, .jsonl, .parquet), with a column `split` or of one split only, or a folder
or Hub repository of `datasets`. The task is that of the models. Pass the same --text_column, --audio_column
and --label_columns as for training.

The report contains every metric with its 95 % bootstrap interval. If the data set has a training split, the
report also contains a constant predictor and a TF-IDF baseline. If it has a validation split, an ensemble
takes the models in the order of their validation scores, as many as score best there; thresholds of emotions
are tuned on it as well. `umons explain-metrics` prints the definition of every metric.

--output gets the report as JSON, and next to it as Markdown with plots.
"""


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = make_parser("evaluate", DESCRIPTION)
    parser.add_argument("--model", nargs="+", required=True, help="folders or Hub ids of models")
    parser.add_argument("--dataset", required=True, help="a table, or a folder or Hub repository of `datasets`")
    parser.add_argument("--dataset_config_name", help="configuration of the data set")
    parser.add_argument("--split", default="test", help="split to evaluate on (default: test)")
    parser.add_argument("--output", type=Path, required=True, help="a .json file for the report, or a folder")
    parser.add_argument("--text_column", default="text", help="column of texts (default: text)")
    parser.add_argument(
        "--audio_column",
        default="file_name",
        help="column of audio or video files, if there is no column `audio_features` (default: file_name)",
    )
    parser.add_argument(
        "--label_columns", "--label_column", nargs="+", default=[],
        help="columns of the labels, in the order of the model (default: their names; label for classes)",
    )  # fmt: skip
    parser.add_argument(
        "--label_range", nargs=2, type=float, metavar=("LOW", "HIGH"),
        help="scale of the sentiments in the data set, which are rescaled to [-3, 3] (default: -3 3)",
    )  # fmt: skip
    parser.add_argument(
        "--average",
        choices=["logits", "probabilities"],
        default="logits",
        help="average of an ensemble (default: logits)",
    )
    parser.add_argument("--batch_size", type=positive_int, default=32, help="rows per batch (default: 32)")
    parser.add_argument(
        "--tune_thresholds", action="store_true", help="evaluate also at thresholds tuned on the validation split"
    )
    parser.add_argument(
        "--calibrate",
        action="store_true",
        help="fit temperatures, thresholds and the sentiment interval on the validation split, and write them into "
        "the config.json of the model",
    )
    parser.add_argument(
        "--group_by", nargs="+", default=[], metavar="COLUMN",
        help="evaluate also each group of rows with the same value of a column, such as speaker or gender, and name "
        "the worst; numbers are cut at their quartiles; length (words), duration (s) and level (dB) are measured",
    )  # fmt: skip
    parser.add_argument(
        "--robustness",
        action="store_true",
        help="evaluate a model also by voice only on distorted recordings (level, noise, babble, room, band, codec, "
        "duration), and the clean ones by --group_by: robustness.json, .md and .png; requires audio files",
    )
    parser.add_argument(
        "--explanations",
        action="store_true",
        help="test the explanations of a model on texts: deletion and insertion curves of words, compared with a "
        "random order and with the best words",
    )
    parser.add_argument(
        "--num_bootstrap", type=positive_int, default=1000, help="bootstrap samples per interval (default: 1000)"
    )
    add_engine_arguments(parser)
    return parser.parse_args(argv)


def evaluate(arguments: argparse.Namespace) -> None:
    """Evaluate the models, and write and print the report."""
    from transformers.utils.logging import disable_progress_bar

    from ..data.arguments import DataArguments
    from ..data.sharding import Engine
    from ..evaluation.scoring import evaluate_models

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    disable_progress_bar()
    options = dict(vars(arguments))
    columns = ("dataset_config_name", "text_column", "audio_column", "label_columns", "label_range")
    data = DataArguments(**{name: options.pop(name) for name in columns})
    engine = Engine(options.pop("engine"), options.pop("num_proc"), options.pop("gpus_per_worker"))
    is_this_process = engine.name == "local" and engine.num_proc is None
    evaluate_models(options.pop("model"), data=data, engine=None if is_this_process else engine, **options)


def main(argv: list[str] | None = None) -> int:
    return run("umons evaluate", "evaluate", partial(evaluate, parse_arguments(argv)))


if __name__ == "__main__":
    sys.exit(main())
