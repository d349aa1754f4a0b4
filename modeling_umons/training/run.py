"""Training runs: prepare the rows, train each model with each seed, evaluate, and write reports and cards."""

import dataclasses
import json
import logging
from collections.abc import Callable
from contextlib import nullcontext
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

from datasets import Dataset
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel, pipeline, set_seed

from ..data.arguments import DataArguments
from ..data.collator import MODALITY_COLUMNS, UtteranceCollator
from ..data.rows import (
    check_columns,
    check_learnable,
    class_column,
    load_training_splits,
    log_missing_inputs,
    make_collator,
    read_labels,
    read_ranges,
    repeat_sources,
    report_labels,
    rows_for_all,
    with_missing_labels,
)
from ..data.streams import RowStream, open_stream
from ..data.waveforms import WaveformAugmentation
from ..evaluation.calibration import calibrate_splits, combine_modalities, list_combinations
from ..evaluation.comparison import epoch_seconds, headline, print_comparison, write_comparison
from ..evaluation.missing_modalities import missing_curves
from ..evaluation.report import print_results, write_report
from ..evaluation.results import measure
from ..evaluation.seeds import summarize_seeds
from ..evaluation.splits import Split
from ..evaluation.training_rows import write_training_rows
from ..publishing.model_card import write_model_card
from ..tasks.task import OWN_LABELS, Task, make_task, task_of, with_listed_labels
from ..utils.files import use_default_mode
from .arguments import AugmentationArguments, CardArguments, ModelArguments, RunArguments
from .build_models import Parts, System, check_options, chosen_options, has_labels, make_config, make_model, union
from .checkpoints import (
    REPORT,
    asks_for_more,
    check_for_other_run,
    check_processes,
    check_writable,
    lock_folder,
    remove_if_empty,
)
from .encoders import check_encoder_options, running_encoders
from .feature_standardization import standardize_front_ends
from .plain_encoder import PlainEncoderForSequenceClassification
from .trainer import UmonsTrainer


logger = logging.getLogger(__name__)

SHOWN_PROBLEMS = 20
# Options of paths and derived options, which the report leaves out.
UNREPORTED = ("output_dir", "resume_from_checkpoint", "greater_is_better", "logging_dir", "run_name")


class Prepared(NamedTuple):
    """Task, rows and parts shared by all models of a comparison."""

    task: Task
    parts: dict[str, Parts]  # by name of the model
    splits: dict[str, Dataset]  # of usable rows
    trained_rows: Split


def choose_task(data: DataArguments, pretrained: PreTrainedConfig | None) -> DataArguments:
    """Return the options with the task of the pretrained model, and the columns of its labels, unless one is given."""
    if data.task is not None or pretrained is None:
        return data
    try:
        task = task_of(pretrained, data.label_columns, data.label_range)
    except ValueError as error:
        raise ValueError(f"{error} Pass --task to build a new head.") from error
    columns = list(task.columns) if task.name in OWN_LABELS else data.label_columns
    return dataclasses.replace(data, task=task.option, label_columns=columns)


def make_task_of(
    data: DataArguments, splits: dict[str, Dataset], systems: list[System], pretrained: PreTrainedConfig | None
) -> Task:
    """
    Create the task, with the classes of the training rows. Columns and labels of all splits are checked, before
    encoders are loaded and files are decoded. If the pretrained model has the labels of the task, `splits` get empty
    columns of missing labels.
    """
    name = data.task or "joint"
    kind = make_task(name, data.label_columns, "01", data.label_range)  # two classes, for its columns
    if pretrained is not None and kind.name == "joint" and has_labels(pretrained, kind):
        if missing := [column for column in kind.columns if column not in splits["train"].column_names]:
            logger.info("No column %s: these outputs of the model are kept, without training.", ", ".join(missing))
        splits.update({split: with_missing_labels(rows, kind) for split, rows in splits.items()})
    inputs = {modality: MODALITY_COLUMNS[modality] for modality in union(systems).modalities}
    for split, rows in splits.items():
        check_columns(rows, kind, inputs, data, pretrained is not None, f"split {split}")
    classes = splits["train"][class_column(data)] if data.task == "classification" else ()
    classes = [label for label in classes if label is not None]
    task = make_task(name, data.label_columns, classes, data.label_range)
    if task.name == "multi_label" and len(task.columns) == 1:
        task = with_listed_labels(task, splits["train"][task.columns[0]])
    if pretrained is not None:
        task = with_labels_of(pretrained, task)
    for split, rows in splits.items():
        read_labels(rows, task, f"split {split}")
    report_labels(splits, task)
    if pretrained is None or not has_labels(pretrained, task):
        check_learnable(splits["train"], task)
    if task.name == "regression" and not task.ranges:
        ranges = read_ranges(splits["train"], task)
        task = dataclasses.replace(task, ranges=ranges)
    return task


def with_labels_of(pretrained: PreTrainedConfig, task: Task) -> Task:
    """Return the task with the labels and ranges of the pretrained model if it has all labels of the task."""
    if not has_labels(pretrained, task):
        logger.warning(
            "--task %s builds a new head for the labels %s: those of the model are %s.",
            task.option,
            ", ".join(task.labels),
            ", ".join(pretrained.id2label.values()),
        )
        return task
    own = task_of(pretrained)
    return dataclasses.replace(task, labels=own.labels, ranges=own.ranges)


def prepare(
    systems: list[System],
    data: DataArguments,
    arguments: ModelArguments,
    augmentation: AugmentationArguments,
    run: RunArguments,
) -> Prepared:
    """Load the rows that all models can use, and log the problems of the others."""
    splits = load_training_splits(data, run.seed)
    pretrained = arguments.pretrained_config()
    is_trained = pretrained is not None
    task = make_task_of(data, splits, systems, pretrained)
    texts = []
    if "text" in arguments.modalities and data.text_column in splits["train"].column_names:
        texts = [str(text) for text in splits["train"][data.text_column] if text is not None]
    parts, processors, configs = {}, [], []
    made: dict[tuple, Parts] = {}
    for system in (union(systems), *systems):
        encoders = system.encoders(arguments)
        key = tuple(encoders.items())
        made[key] = parts[system.name] = made.get(key) or Parts.make(arguments, texts, encoders)
        processors.append(parts[system.name].processor)
        configs.append(config := make_config(system, arguments, parts[system.name], task))
        if getattr(config, "audio_encoder", None) is not None:
            # Audio is decoded once, at the largest length of all models, which --config_overrides may set.
            processors[-1].max_audio_length = max(processors[-1].max_audio_length, config.max_audio_length)
    columns, distort = splits["train"].column_names, waveform_augmentation(augmentation, run)
    collators = [make_collator(*of, task, columns, distort) for of in zip(processors, configs, strict=True)]
    running = set().union(*map(running_encoders, collators)) & encoders_to_train(systems, arguments)
    check_encoder_options(arguments, run, running)  # the columns of the data decide which encoders are run
    log_missing_inputs(splits["train"], collators[0], data)
    rows = {}
    with run.main_process_first(desc="features"):
        for name, split in splits.items():
            rows[name], problems = rows_for_all(split, collators, processors, data, is_trained)
            logger.info("%s: %d rows, %d with a problem", name, len(rows[name]), len(problems))
            for problem in problems[:SHOWN_PROBLEMS]:
                logger.warning("%s, %s", name, problem)
            if len(problems) > SHOWN_PROBLEMS:
                logger.warning("%s: and %d more", name, len(problems) - SHOWN_PROBLEMS)
            if name != "test" and not len(rows[name]):
                raise ValueError(f"No row of the split {name!r} can be used; the first problem is: {problems[0]}")
    return Prepared(task, parts, {n: split for n, split in rows.items() if len(split)}, Split.of(task, rows["train"]))


def waveform_augmentation(augmentation: AugmentationArguments, run: RunArguments) -> WaveformAugmentation | None:
    """Return the augmentation of waveforms, `None` if it is off."""
    probability = augmentation.waveform_augmentation
    return WaveformAugmentation(probability, run.seed) if probability else None


class Trained(NamedTuple):
    """Report of a run and, unless it is from an earlier run, its rows and predictions."""

    report: dict
    task: Task
    train: Split | None = None
    scored: dict[str, Split] | None = None


def train(
    system: System,
    prepared: Callable[[], Prepared],
    data: DataArguments,
    arguments: ModelArguments,
    augmentation: AugmentationArguments,
    card: CardArguments,
    run: RunArguments,
) -> Trained | None:
    """Train a model and write it to `run.output_dir`. Returns `None` in all processes but the first."""
    finished = Path(run.output_dir, REPORT)
    if run.resume_from_checkpoint == "last" and finished.exists() and not asks_for_more(run):
        logger.info(
            "The run in %s is finished; nothing to resume. A larger --num_train_epochs trains on.", run.output_dir
        )
        task = task_of(AutoConfig.from_pretrained(run.output_dir), data.label_columns, data.label_range)
        return Trained(json.loads(finished.read_text(encoding="utf-8")), task)
    check_processes(run.world_size)
    with remove_if_empty(run.output_dir):
        check_writable(run.output_dir)
        with lock_folder(run.output_dir) if run.process_index == 0 else nullcontext():
            if run.resume_from_checkpoint is None:
                check_for_other_run(run.output_dir)
            return _train(system, prepared, data, arguments, augmentation, card, run)


def _train(
    system: System,
    prepared: Callable[[], Prepared],
    data: DataArguments,
    arguments: ModelArguments,
    augmentation: AugmentationArguments,
    card: CardArguments,
    run: RunArguments,
) -> Trained | None:
    task, all_parts, splits, train_split = prepared()
    parts = all_parts[system.name]
    set_seed(run.seed)
    config = make_config(system, arguments, parts, task)
    processor = parts.processor
    if getattr(config, "audio_encoder", None) is not None:
        processor.max_audio_length = config.max_audio_length
    distort = waveform_augmentation(augmentation, run)
    collator = make_collator(processor, config, task, splits["train"].column_names, distort)
    config.trained_modalities = list_combinations(splits["train"], collator, augmentation.modality_dropout > 0)
    base = arguments.pretrained_config()
    if base is not None and has_labels(base, task):  # its outputs are kept
        known = getattr(base, "trained_modalities", None) or getattr(base, "calibration", None) or ()
        config.trained_modalities = sorted({*config.trained_modalities, *known})
    model = make_model(config, arguments, parts, running_encoders(collator))
    rows = splits | {"train": repeat_sources(splits["train"], data.repeat)}
    if arguments.standardize_features:
        standardize_front_ends(model, rows["train"], collator)
    recipe = describe(data, arguments, augmentation, run)
    batch = run.train_batch_size * run.world_size
    if run.dataloader_drop_last and len(rows["train"]) < batch:
        raise ValueError(
            f"--dataloader_drop_last leaves no batch: {len(rows['train'])} training rows are fewer than a batch of "
            f"{batch}. Lower --per_device_train_batch_size."
        )

    stream = make_stream(data, collator, run) if data.streaming else None
    trainer = UmonsTrainer(model, run, task, rows, collator, augmentation, processor, stream)
    trainer.run()

    scored = {
        name: Split.of(task, rows[name], trainer.logits(rows[name]), combine_modalities(rows[name], collator))
        for name in rows
        if name != "train"
    }
    shown = "test" if "test" in scored else "validation"
    curves = missing_curves(task, trainer.logits, rows[shown], scored[shown].logits, collator, run.seed)
    if not trainer.is_world_process_zero():
        return None
    model = trainer.model  # a whole one in place of a sharded one
    scored, calibrations, notes = calibrate_splits(model.config, task, scored, refit="validation" in scored)
    for note in notes:
        logger.info("Calibration: %s", note)
    results = measure(task, train_split, scored, tune=run.tune_thresholds, metric=run.metric_for_best_model)
    for name, calibration in calibrations.items():
        results[name]["calibration"] = calibration
    if curves is not None:
        results[shown]["missing_modalities"] = curves
    output = Path(run.output_dir)
    save(model, processor, output)
    write_training_rows(output, splits["train"], collator)
    source = Path(data.train_file).as_posix() if data.train_file else data.dataset_name
    sizes = {name: len(split) for name, split in splits.items() if not (data.streaming and name == "train")}
    write_model_card(output, config, source, sizes, recipe, results, **vars(card))
    history = trainer.state.log_history
    about = {"model": system.name, "parameters": model.num_parameters(), "seconds_per_epoch": epoch_seconds(history)}
    report = write_report(output / "report", task, results, scored, history=history, recipe=recipe, about=about)
    return Trained(report, task, train_split, scored)


def check_streaming(data: DataArguments, run: RunArguments) -> None:
    """Check the options that --streaming restricts. Raises ValueError."""
    if data.dataset_name is None:
        raise ValueError("--streaming requires --dataset_name: a folder of Parquet files or a Hub repository.")
    if run.max_steps < 1:
        raise ValueError("--streaming requires --max_steps: a stream has no epochs.")
    if data.streaming_buffer < 1:
        raise ValueError(f"--streaming_buffer is {data.streaming_buffer}; it must be at least 1.")
    for name, is_set in (
        ("repeat", data.repeat),
        ("task classification", data.task == "classification"),
        ("train_sampling_strategy group_by_length", run.train_sampling_strategy == "group_by_length"),
        ("ignore_data_skip", run.ignore_data_skip),
    ):
        if is_set:
            raise ValueError(f"--streaming does not support --{name}; remove one of them.")


def make_stream(data: DataArguments, collator: UtteranceCollator, run: RunArguments) -> RowStream:
    """Open the stream of training rows of this process."""
    columns = [data.text_column if name == "text" else name for name in collator.columns]
    rows = open_stream(data.dataset_name, data.dataset_config_name, columns)["train"]
    if data.text_column != "text":
        rows = rows.rename_column(data.text_column, "text")
    processes = (run.process_index, run.world_size, run.dataloader_num_workers)
    return RowStream(rows, collator, run.train_batch_size, run.seed, data.streaming_buffer, *processes)


def save(model: PreTrainedModel, processor, output: Path) -> None:
    """Save the model for `pipeline` and the Auto classes; plain encoders without the code of the pipeline."""
    if isinstance(model, PlainEncoderForSequenceClassification):
        model.save_pretrained(output)
    else:
        # The pipeline saves parts of the processor differently, so the processor is saved last.
        pipeline("multimodal-emotion-recognition", model=model, processor=processor).save_pretrained(output)
    processor.save_pretrained(output)
    use_default_mode(output)


def describe(*parts) -> dict:
    """Return the options that are not at their defaults, for the report."""
    chosen = {name: value for part in parts for name, value in chosen_options(part).items()}
    return {name: value for name, value in chosen.items() if name not in UNREPORTED and not name.endswith("_token")}


def train_all(data: DataArguments, arguments: ModelArguments, *others) -> None:
    """Train each model with each seed, in folders of their own if there are several, and write summaries."""
    data = choose_task(data, arguments.pretrained_config())
    *others, run = others
    systems = [System.parse(name, arguments.modalities) for name in dict.fromkeys(arguments.model)]
    check_options(systems, arguments, [*run.learning_rates, *run.epochs])
    check_encoder_options(arguments, run, encoders_to_train(systems, arguments))
    if data.streaming:
        check_streaming(data, run)
    is_one = len(systems) * run.seeds == 1
    if run.resume_from_checkpoint not in (None, "last") and not is_one:
        raise ValueError(
            "With several models, only --resume_from_checkpoint last is supported: each has its own checkpoints."
        )
    trained: dict[str, dict[int, Trained]] = {system.name: {} for system in systems}
    for seed in range(run.seed, run.seed + run.seeds):
        options = (data, arguments, others[0], dataclasses.replace(run, seed=seed))
        prepared = cache(partial(prepare, systems, *options))
        for system in systems:
            output = Path(run.output_dir, *([system.name] if len(systems) > 1 else []))
            output = output / f"seed-{seed}" if run.seeds > 1 else output
            names = (system.model_type, system.name)
            rate, epochs = run.learning_rate_of(names), run.epochs_of(names)
            own = dataclasses.replace(
                run, seed=seed, output_dir=str(output), learning_rate=rate, num_train_epochs=epochs
            )
            trained[system.name][seed] = member = train(system, prepared, data, arguments, *others, own)
            if member is None or member.scored is None:
                continue
            if len(systems) > 1:
                print(f"{system.name}, seed {seed}: {headline(member.report)}")
            else:
                print_results(member.report["splits"])
    if is_one or not run.should_save:
        return
    for name, members in trained.items():
        if run.seeds > 1 and any(member.scored for member in members.values()):
            report_seeds(Path(run.output_dir, *([name] if len(systems) > 1 else [])), members, run)
    if len(systems) > 1:
        reports = {name: [member.report for member in members.values()] for name, members in trained.items()}
        print_comparison(write_comparison(Path(run.output_dir), reports, describe(data, arguments, *others, run)))


def encoders_to_train(systems: list[System], arguments: ModelArguments) -> set[str]:
    """Return the modalities for which one of the models has a pretrained encoder."""
    config = arguments.pretrained_config()
    if config is None:
        return {modality for system in systems for modality in system.encoders(arguments)}
    return {m for m in config.modalities if getattr(config, f"{m}_encoder", None) is not None}


def report_seeds(output: Path, members: dict[int, Trained], run: RunArguments) -> None:
    """Summarise models that differ only in their seed."""
    # Seeds finished in an earlier run have a report but no logits; then there is no ensemble.
    reports = {seed: member.report for seed, member in members.items()}
    last = next(member for member in reversed(members.values()) if member.scored)
    scored = {seed: member.scored for seed, member in members.items()}
    scored = scored if all(scored.values()) else None
    summarize_seeds(output, last.task, reports, scored, last.train, run.tune_thresholds)
