"""Evaluation of saved models on a split of a data set."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset

from ..data.arguments import DataArguments
from ..data.collator import UtteranceCollator
from ..data.conversations import add_history
from ..data.rows import (
    check_columns,
    load_splits,
    log_missing_inputs,
    make_collator,
    read_labels,
    usable_rows,
    with_missing_labels,
)
from ..data.schema import SPLIT_NAMES
from ..data.sharding import Engine
from ..inference.loading import load_model
from ..inference.logits import predict_logits, predict_logits_in_parts
from ..models.umons.processing_umons import UmonsProcessor
from ..registration import PIPELINE_TASK, register_auto_classes
from ..tasks.task import Task, task_of
from .calibration import MIN_ROWS, calibrate_splits, combine_modalities, write_calibration
from .explanation_curves import NUM_WORDS, measure_explanations
from .groups import read_groupings
from .metrics import task_metrics
from .report import print_results, write_report
from .results import measure
from .robustness import measure_robustness, print_robustness, write_robustness
from .seeds import combine
from .splits import Split
from .training_rows import find_training_rows


logger = logging.getLogger(__name__)

SHOWN_PROBLEMS = 5


@dataclass
class Member:
    """
    Model on its device, with its processor, and by split its calibration metrics and a note on training rows;
    `engine` predicts in its place.
    """

    name: str
    model: torch.nn.Module
    processor: UmonsProcessor
    calibration: dict[str, dict] = field(default_factory=dict)
    training_rows: dict[str, str] = field(default_factory=dict)
    engine: Engine | None = None
    folder: Path = Path()  # of temporary files of the engine

    @classmethod
    def load(cls, name: str, device: torch.device) -> "Member":
        """Load a model of this package. Raises OSError if there is no such model."""
        model, processor = load_model(name)
        return cls(name, model.to(device), processor)

    def logits(self, rows: Dataset, collator: UtteranceCollator, batch_size: int) -> np.ndarray:
        """Predict logits (rows, num_labels) float32."""
        if self.engine is not None:
            return predict_logits_in_parts(self.name, rows, collator, batch_size, self.engine, self.folder)
        return predict_logits(self.model, rows, collator, batch_size, Path(self.name).name)


def with_numbers(dataset: Dataset) -> Dataset:
    """Set `segment_id` to the row number, to identify the rows that a model can use."""
    dataset = dataset.remove_columns("segment_id") if "segment_id" in dataset.column_names else dataset
    return dataset.add_column("segment_id", [str(i) for i in range(len(dataset))])


def labelled(task: Task, dataset: Dataset, data: DataArguments, name: str) -> Dataset:
    """Select the rows that have a label, with their texts in the column `text`."""
    dataset = with_missing_labels(dataset, task)
    inputs = {} if data.text_column == "text" else {"text": "text"}
    check_columns(dataset, task, inputs, data, name=f"split {name}")
    if data.text_column != "text":
        dataset = dataset.remove_columns("text") if "text" in dataset.column_names else dataset
        dataset = dataset.rename_column(data.text_column, "text")
    return dataset.select(np.flatnonzero(read_labels(dataset, task)))


def score(
    members: list[Member],
    task: Task,
    name: str,
    dataset: Dataset,
    data: DataArguments,
    batch_size: int,
    group_by: Sequence[str] = (),
) -> dict[str, Split]:
    """Predict with each model the rows that all of them can use. The logits are not calibrated."""
    size = max(getattr(member.model.config, "context_size", 0) for member in members)
    dataset = add_history(dataset, size, data.text_column)  # also of rows without a label
    dataset = labelled(task, dataset, data, name)
    groupings = read_groupings(dataset, group_by, data)  # first, because it raises for unknown columns
    numbered, prepared = with_numbers(dataset), {}
    logits, usable, modalities = {}, {}, {}
    for member in members:
        processor, extractor = member.processor, member.processor.feature_extractor
        collator = make_collator(processor, member.model.config, task, numbered.column_names)
        # Models with equal inputs share prepared rows.
        kind = [collator.modality_columns, type(processor.tokenizer).__name__, extractor.to_dict()]
        kind.append(processor.max_audio_length)
        key = json.dumps(kind, sort_keys=True, default=str)
        if key not in prepared:
            options = DataArguments(audio_column=data.audio_column, label_columns=data.label_columns)
            prepared[key] = usable_rows(numbered, collator, processor, options, is_trained=True)
            log_missing_inputs(numbered, collator, options)
            report_problems(name, *prepared[key])
        rows = prepared[key][0]
        if not len(rows):
            raise ValueError(
                f"{member.name} cannot use any row of the split {name!r}. First problem: {prepared[key][1][0]}"
            )
        if note := find_training_rows(member.name, rows, collator):
            member.training_rows[name] = f"{member.name}: {note}"
            logger.warning("%s, %s", name, member.training_rows[name])
        usable[member.name] = np.array(rows["segment_id"], dtype=int)
        logits[member.name] = member.logits(rows, collator, batch_size)
        modalities[member.name] = np.array(combine_modalities(rows, collator))
    common = sorted(set.intersection(*(set(numbers.tolist()) for numbers in usable.values())))
    if not common:
        raise ValueError(f"There is no row of the split {name!r} that all models can use.")
    rows = dataset.select(common)
    groupings = {column: tuple(names[row] for row in common) for column, names in groupings.items()}
    picked = {member: np.searchsorted(numbers, common) for member, numbers in usable.items()}
    return {
        member: replace(
            Split.of(task, rows, logits[member][places], tuple(modalities[member][places].tolist())),
            groupings=groupings,
        )
        for member, places in picked.items()
    }


def report_problems(name: str, rows: Dataset, problems: list[str]) -> None:
    """Log the number of rows, and the first problems."""
    logger.info("%s: %d rows, %d with a problem", name, len(rows), len(problems))
    for problem in problems[:SHOWN_PROBLEMS]:
        logger.warning("%s, %s", name, problem)
    if len(problems) > SHOWN_PROBLEMS:
        logger.warning("%s: %d more", name, len(problems) - SHOWN_PROBLEMS)


def calibrate_member(member: Member, task: Task, splits: dict[str, Split], refit: bool) -> dict[str, Split]:
    """Calibrate the logits of a model; `refit` fits its calibration on `validation` and writes it into its folder."""
    config = member.model.config
    calibrated, member.calibration, notes = calibrate_splits(config, task, splits, refit)
    for note in notes:
        logger.warning("%s: %s", member.name, note)
    if refit and config.calibration is None:
        raise ValueError(
            f"--calibrate needs {MIN_ROWS} rows with the same modalities in the validation split, which has "
            f"{len(splits['validation'])} rows."
        )
    if refit:
        write_calibration(member.name, config.calibration)
    return calibrated


def common_task(members: list[Member], data: DataArguments) -> Task:
    """Return the task of all models. Raises ValueError if it differs."""
    tasks = {member.name: task_of(member.model.config, data.label_columns, data.label_range) for member in members}
    first = members[0].name
    for name, task in tasks.items():
        if task != tasks[first]:
            raise ValueError(
                f"The models have different tasks: {first} has {tasks[first].name} with the labels "
                f"{', '.join(tasks[first].labels)}, and {name} has {task.name} with {', '.join(task.labels)}."
            )
    return tasks[first]


def describe_calibration(member: Member, refit: bool) -> str:
    """Return a note on the calibration of a model for a report."""
    if getattr(member.model.config, "calibration", None) is None:
        return "The model is not calibrated; `umons evaluate --calibrate` does it on a validation split."
    if refit:
        return (
            "The model was calibrated on `validation`; each half of its videos is evaluated with the fit of the other."
        )
    return "Scores are calibrated as in the configuration of the model."


def unscored_split(task: Task, splits: Mapping[str, Dataset], name: str, data: DataArguments) -> Split | None:
    """Return the rows of a split that have a label, without logits; `None` without such rows."""
    rows = labelled(task, splits[name], data, name) if len(splits.get(name, ())) else ()
    return Split.of(task, rows) if len(rows) else None


def describe_members(
    results: dict[str, Any], task: Task, members: list[Member], by_member: dict[str, dict[str, Split]], refit: bool
) -> None:
    """Add notes, and the calibration of a single model or the metrics of each of several, to the results of splits."""
    for name, result in results.items():
        result["notes"] += [member.training_rows[name] for member in members if name in member.training_rows]
        if len(members) == 1:
            result["calibration"] = members[0].calibration[name]
            result["notes"].append(describe_calibration(members[0], refit))
        else:
            result["members"] = {
                member: task_metrics(task, alone[name].truth, alone[name].logits)
                for member, alone in by_member.items()
            }


def explain_texts(member: Member, split: Split) -> dict:
    """Test the explanations of a model on the texts of a split. Raises ValueError without texts."""
    register_auto_classes()
    from transformers import pipeline

    task: Any = PIPELINE_TASK  # the overloads of `pipeline` have the tasks of transformers only
    recognize = pipeline(task, model=member.model, processor=member.processor, device=member.model.device)
    measured = measure_explanations(recognize, split.texts or ()) if "text" in member.model.config.modalities else None
    if measured is None:
        low, high = NUM_WORDS
        raise ValueError(
            f"--explanations needs a model with text, and texts of {low} to {high} words (--text_column)."
        )
    return measured


def evaluate_models(
    models: list[str],
    dataset: str,
    split: str,
    output: Path,
    data: DataArguments,
    average: str = "logits",
    batch_size: int = 32,
    tune_thresholds: bool = False,
    num_bootstrap: int = 1000,
    calibrate: bool = False,
    robustness: bool = False,
    group_by: Sequence[str] = (),
    explanations: bool = False,
    engine: Engine | None = None,
) -> None:
    """
    Evaluate a model, or several and their ensemble, on a split, and write and print the report.

    Args:
        models: Folders or Hub ids.
        dataset: A table, or a folder or Hub repository of `datasets`.
        split: The split to evaluate on.
        output: The .json file of the report, or a folder for it.
        data: Names of the columns and of the configuration.
        average: What an ensemble averages, one of `AVERAGES`.
        batch_size: Rows per batch.
        tune_thresholds: Evaluate also at thresholds tuned on the validation split.
        num_bootstrap: Number of bootstrap samples of an interval.
        calibrate: Fit the calibration of each model on the validation split, and write it into its folder.
        robustness: Measure the model on distorted voices too.
        explanations: Test the explanations of the model on texts too.
        group_by: Columns whose groups are evaluated too, or names of `groups.DERIVED`.
        engine: Processes that predict; this process by default.
    """
    split = SPLIT_NAMES.get(split.lower(), split)
    splits = load_splits(dataset, data, split)
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
    members = [Member.load(name, device) for name in dict.fromkeys(models)]
    for member in members:
        member.engine, member.folder = engine, output.parent if output.suffix == ".json" else output
    task = common_task(members, data)
    missing = [column for column in task.columns if column not in splits[split].column_names]
    if task.name == "joint" and missing:
        logger.info("No column %s: not evaluated.", ", ".join(missing))
    for option, is_given in (("robustness", robustness), ("explanations", explanations)):
        if is_given and len(members) > 1:
            raise ValueError(f"--{option} measures a single model: pass one --model.")

    about = {"models": [member.name for member in members], "dataset": dataset, "split": split}
    has_validation = split != "validation" and len(splits.get("validation", ())) > 0
    if calibrate and split != "validation" and not has_validation:
        raise ValueError(f"--calibrate needs a validation split, and {dataset} has none.")
    chosen_on = ["validation"] if has_validation and (len(members) > 1 or tune_thresholds or calibrate) else []
    scores = {name: score(members, task, name, splits[name], data, batch_size) for name in chosen_on}
    scores[split] = score(members, task, split, splits[split], data, batch_size, group_by)
    by_member = {
        member.name: calibrate_member(member, task, {name: scores[name][member.name] for name in scores}, calibrate)
        for member in members
    }
    scored = by_member[members[0].name]
    if len(members) > 1:
        scored, about["ensemble"] = combine(task, by_member, average, "validation" if chosen_on else None)

    train = None if split == "train" else unscored_split(task, splits, "train", data)
    known = dict(scored)
    if "validation" not in known:  # for the regularisation of the TF-IDF baseline
        validation = unscored_split(task, splits, "validation", data)
        known |= {} if validation is None else {"validation": validation}
    results = measure(task, train, known, tune=tune_thresholds, num_bootstrap=num_bootstrap)
    describe_members(results, task, members, by_member, refit=calibrate)
    if explanations:
        results[split]["explanations"] = explain_texts(members[0], scored[split])
    output = output if output.suffix == ".json" else output / "report.json"
    write_report(output.parent, task, results, scored, about=about, json_name=output.name, shown=split)
    print_results(results)
    if robustness:
        rows = labelled(task, splits[split], data, split)
        measured = measure_robustness(
            members[0].model, members[0].processor, task, rows, data, batch_size, num_bootstrap, group_by
        )
        write_robustness(output.parent, measured)
        print_robustness(measured)
    if "ensemble" in about:
        print(f"\n{about['ensemble']}")
