"""Measure one model, or several as an ensemble, on a split of a data set.

    python scripts/evaluate.py --model runs/sample --dataset hub/sample/metadata.csv --split test --output report.json
    python scripts/evaluate.py --model runs/mosei/seed-* --dataset mosei --split test --output runs/mosei/test

A data set is a table (.csv, .tsv, .jsonl, .parquet) with a column `split`, or of one split alone; or a folder or a Hub
repository that `load_dataset` takes. The task is the models' own, and its labels are in the columns that training reads.

Beside each figure stand its 95 % interval, and, where the data set has a split to train on, a constant predictor and a
rival that reads nothing but the words. Where it has a validation split, several models join in the order of their figures
there, and as many of them are averaged as do best there; thresholds of emotions are chosen there, too.

The report goes to --output: the figures as JSON, and beside it the same to read (.md) with pictures (.png).
"""

import argparse
import json
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from datasets.exceptions import DatasetsError
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForSequenceClassification
from transformers.utils.logging import disable_progress_bar

from .. import UmonsProcessor
from ..data.arguments import DataArguments
from ..data.collator import UtteranceCollator
from ..data.rows import load_splits, make_collator, usable_rows, with_missing_labels
from ..data.schema import SPLIT_NAMES
from ..evaluation.ensemble import AVERAGES
from ..evaluation.metrics import task_metrics
from ..evaluation.report import print_results, write_report
from ..evaluation.results import measure
from ..evaluation.seeds import combine
from ..evaluation.splits import Split
from ..inference.logits import predict_logits
from ..tasks.task import Task, task_of


logger = logging.getLogger("evaluate")

SHOWN_PROBLEMS = 5


@dataclass
class Member:
    """One of the models, on its device, and its processor."""

    name: str
    model: torch.nn.Module
    processor: UmonsProcessor

    @classmethod
    def load(cls, name: str, device: torch.device) -> "Member":
        """Raises OSError where there is no such model."""
        try:
            config = AutoConfig.from_pretrained(name)
            if not hasattr(config, "modalities"):
                raise ValueError(f"it is of the type {config.model_type!r}, which is none of this package's.")
            model = AutoModelForSequenceClassification.from_pretrained(name, config=config).to(device).eval()
            return cls(name, model, UmonsProcessor.from_pretrained(name))
        except (OSError, ValueError, SafetensorError) as error:
            reason = str(error).strip().splitlines()[0]
            raise OSError(f"--model {name}: no model can be loaded from there: {reason}") from error

    def logits(self, rows: Dataset, collator: UtteranceCollator, batch_size: int) -> np.ndarray:
        """(rows, num_labels) float32."""
        return predict_logits(self.model, rows, collator, batch_size, Path(self.name).name)


def with_numbers(dataset: Dataset) -> Dataset:
    """Rows whose `segment_id` is their number, by which rows that models can use are found again."""
    dataset = dataset.remove_columns("segment_id") if "segment_id" in dataset.column_names else dataset
    return dataset.add_column("segment_id", [str(i) for i in range(len(dataset))])


def labelled(task: Task, dataset: Dataset, data: DataArguments, name: str) -> Dataset:
    """The rows that have a label, with the texts as `text`."""
    dataset = with_missing_labels(dataset, task)
    wanted = task.columns if data.text_column == "text" else (*task.columns, data.text_column)
    if missing := [column for column in wanted if column not in dataset.column_names]:
        raise ValueError(f"The split {name} has no column {missing}; its columns are {dataset.column_names}.")
    if data.text_column != "text":
        dataset = dataset.remove_columns("text") if "text" in dataset.column_names else dataset
        dataset = dataset.rename_column(data.text_column, "text")
    _, has_label = task.label_array(dataset.select_columns(list(task.columns)).with_format("arrow")[:])
    return dataset.select(np.flatnonzero(has_label))


def score(
    members: list[Member], task: Task, name: str, dataset: Dataset, data: DataArguments, batch_size: int
) -> dict[str, Split]:
    """What each model says of the rows that all of them can use."""
    dataset = labelled(task, dataset, data, name)
    numbered, prepared = with_numbers(dataset), {}
    logits, usable = {}, {}
    for member in members:
        processor, extractor = member.processor, member.processor.feature_extractor
        collator = make_collator(processor, member.model.config, task, numbered.column_names)
        # Models of one recipe differ in their weights: what they read is read once.
        kind = [collator.modality_columns, type(processor.tokenizer).__name__, extractor.to_dict()]
        kind.append(processor.max_audio_length)
        key = json.dumps(kind, sort_keys=True, default=str)
        if key not in prepared:
            options = DataArguments(audio_column=data.audio_column, label_column=data.label_column)
            prepared[key] = usable_rows(numbered, collator, processor, options, is_trained=True)
            report_problems(name, *prepared[key])
        rows = prepared[key][0]
        if not len(rows):
            raise ValueError(f"{member.name} can use no row of the split {name!r}: {prepared[key][1][0]}")
        usable[member.name] = np.array(rows["segment_id"], dtype=int)
        logits[member.name] = member.logits(rows, collator, batch_size)
    common = sorted(set.intersection(*(set(numbers.tolist()) for numbers in usable.values())))
    if not common:
        raise ValueError(f"The models have no row of the split {name!r} in common that they can all use.")
    rows = dataset.select(common)
    return {
        member: Split.of(task, rows, logits[member][np.searchsorted(numbers, common)])
        for member, numbers in usable.items()
    }


def report_problems(name: str, rows: Dataset, problems: list[str]) -> None:
    logger.info("%s: %d rows, %d with a problem", name, len(rows), len(problems))
    for problem in problems[:SHOWN_PROBLEMS]:
        logger.warning("%s, %s", name, problem)
    if len(problems) > SHOWN_PROBLEMS:
        logger.warning("%s: and %d more", name, len(problems) - SHOWN_PROBLEMS)


def common_task(members: list[Member], label_column: str) -> Task:
    """The task of all models. Raises ValueError where it is not the same."""
    tasks = {member.name: task_of(member.model.config, label_column) for member in members}
    first = members[0].name
    for name, task in tasks.items():
        if task != tasks[first]:
            raise ValueError(
                f"The models do not say the same: {first} is of the task {tasks[first].name} with the labels "
                f"{', '.join(tasks[first].labels)}, {name} of {task.name} with {', '.join(task.labels)}."
            )
    return tasks[first]


def evaluate(args: argparse.Namespace) -> None:
    data = DataArguments(
        dataset_config_name=args.dataset_config_name,
        text_column=args.text_column,
        audio_column=args.audio_column,
        label_column=args.label_column,
    )
    splits = load_splits(args.dataset, data, args.split)
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
    members = [Member.load(name, device) for name in dict.fromkeys(args.model)]
    task = common_task(members, args.label_column)

    about = {"models": [member.name for member in members], "dataset": args.dataset, "split": args.split}
    has_validation = args.split != "validation" and len(splits.get("validation", ())) > 0
    chosen_on = ["validation"] if has_validation and (len(members) > 1 or args.tune_thresholds) else []
    scores = {
        name: score(members, task, name, splits[name], data, args.batch_size) for name in [*chosen_on, args.split]
    }
    by_member = {member.name: {name: scores[name][member.name] for name in scores} for member in members}
    scored = by_member[members[0].name]
    if len(members) > 1:
        scored, about["ensemble"] = combine(task, by_member, args.average, "validation" if chosen_on else None)

    train = None
    if args.split != "train" and "train" in splits:
        rows = labelled(task, splits["train"], data, "train")
        train = Split.of(task, rows) if len(rows) else None
    known = dict(scored)
    if has_validation and "validation" not in known:  # for the regularisation of the TF-IDF baseline, without logits
        rows = labelled(task, splits["validation"], data, "validation")
        known |= {"validation": Split.of(task, rows)} if len(rows) else {}
    results = measure(task, train, known, tune=args.tune_thresholds, num_bootstrap=args.num_bootstrap)
    if len(members) > 1:
        for name, figures in results.items():
            figures["members"] = {
                member: task_metrics(task, alone[name].truth, alone[name].logits)
                for member, alone in by_member.items()
            }
    output = args.output if args.output.suffix == ".json" else args.output / "report.json"
    write_report(output.parent, task, results, scored, about=about, json_name=output.name, shown=args.split)
    print_results(results)
    if "ensemble" in about:
        print(f"\n{about['ensemble']}")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", required=True, help="folders of models, or their names on the Hub")
    parser.add_argument("--dataset", required=True, help="a table, or a folder or Hub repository of `datasets`")
    parser.add_argument("--dataset_config_name", help="its configuration")
    parser.add_argument("--split", default="test", help="what to measure on (default: test)")
    parser.add_argument("--output", type=Path, required=True, help="the report: a .json file, or a folder for it")
    parser.add_argument("--text_column", default="text", help="the column of texts (default: text)")
    parser.add_argument(
        "--audio_column",
        default="file_name",
        help="the column of sound or video files, where there is no `audio_features` (default: file_name)",
    )
    parser.add_argument("--label_column", default="label", help="the column of classes, if any (default: label)")
    parser.add_argument(
        "--average", choices=AVERAGES, default="logits", help="what of several models is averaged (default: logits)"
    )
    parser.add_argument("--batch_size", type=_positive, default=32, help="rows at a time (default: 32)")
    parser.add_argument(
        "--tune_thresholds", action="store_true", help="also with thresholds of emotions chosen on validation"
    )
    parser.add_argument(
        "--num_bootstrap", type=_positive, default=1000, help="samples that intervals are made from (default: 1000)"
    )
    return parser.parse_args()


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of 1 or more")
    return int(text)


def main():
    args = parse_arguments()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    disable_progress_bar()
    args.split = SPLIT_NAMES.get(args.split.lower(), args.split)
    try:
        evaluate(args)
    except (OSError, ValueError, DatasetsError) as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    main()
