"""Reproduction of the paper's results table: all runs, their ensembles and the table, resumable at any point."""

import json
import logging
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from datasets import Dataset

from ..data.arguments import DataArguments
from ..data.builders import builder_class
from ..data.prepare import data_files, prepare_dataset
from ..data.rows import load_splits
from ..evaluation.reproduction import print_reproduction, read_cell, write_reproduction
from ..evaluation.scoring import evaluate_models
from ..models.umons.configuration_umons import EMOTIONS
from ..tasks.paper import COMBINATIONS, LEARNING_RATES, LETTERS, TASK_METRICS, Cell, ablations_of
from .arguments import RunArguments, parse_arguments
from .build_models import UMONS_OPTIONS
from .run import train_all


logger = logging.getLogger(__name__)

# Columns of a prepared data set.
INPUT_COLUMNS = {"text": "text", "audio": "audio_features", "video": "video_features"}
# Layouts by a file that the folder has.
LAYOUT_FILES = {
    "umons": "*_sentences.p",
    "csd": "*.csd",
    "labels": "labels.csv",
    "folder": "metadata.*",
    "mmsa": "*.pkl",
}


def reproduce(
    source: str,
    output: Path,
    options: Sequence[str],
    seeds: int = 5,
    tasks: Sequence[str] = tuple(TASK_METRICS),
    combinations: Sequence[str] = COMBINATIONS,
    models: Sequence[str] = ("umons",),
    with_ablations: bool = False,
    layout: str | None = None,
    num_proc: int = 1,
) -> None:
    """
    Train the paper's recipe for each task and combination of modalities that the data have, and write the table.

    Runs, ensembles and the table are written to `output`; what an earlier call has finished there is kept.

    Args:
        source: folder of CMU-MOSEI in one of its layouts, or prepared.
        output: folder of the runs and the table.
        options: options of `umons train` for all runs, which override the recipes.
        seeds: number of seeds of each cell.
        tasks: recipes of the paper to train.
        combinations: combinations of modalities, such as "L+A".
        models: types of the models, each a row.
        with_ablations: also train UMONS with each option of `ABLATIONS`.
        layout: layout of `source`; by default recognised by its files.
        num_proc: worker processes that convert the source.

    Raises:
        OSError, ValueError: the data cannot be read, no cell can be trained, or an option is invalid.
    """
    dataset = prepare_source(source, output / "data", layout, num_proc)
    splits = load_splits(dataset, DataArguments())
    cells, left_out = plan_cells(splits, tasks, combinations, models, with_ablations)
    for reason in left_out:
        logger.warning("Left out: %s", reason)
    if not cells:
        raise ValueError(f"{source} has the data of none of the cells. {' '.join(left_out)}")
    parsed = {cell: parse_cell(cell, options, dataset, output, seeds) for cell in cells}  # errors before training
    rows = []
    for number, cell in enumerate(cells, start=1):
        logger.info("%d of %d: %s from %s with %s", number, len(cells), cell.task, cell.combination, cell.system)
        train_all(*parsed[cell])
        rows.append(_evaluate(cell, parsed[cell][-1], dataset, output, splits))
        write_reproduction(output, rows, left_out, options)
    print_reproduction(rows)


def parse_cell(cell: Cell, options: Sequence[str], dataset: str, output: Path, seeds: int) -> tuple[Any, ...]:
    """Return the parsed options of the training of a cell: those that make up the cell have priority."""
    modalities = [LETTERS[letter] for letter in cell.combination.split("+")]
    where = "--train_file" if Path(dataset).is_file() else "--dataset_name"
    words = [cell.task, *options, where, dataset, "--modalities", *modalities, "--seeds", str(seeds), "--output_dir",
             str(output / cell.folder), "--resume_from_checkpoint", "last"]  # fmt: skip
    if cell.model != "umons":
        words += ["--model", cell.model]
    parsed = parse_arguments(words, "")
    arguments, run = parsed[1], parsed[-1]
    if cell.ablation is not None:
        arguments.config_overrides = [*arguments.config_overrides, cell.ablation]
    if cell.model != "umons":
        arguments.optional |= {*UMONS_OPTIONS}  # sizes of UMONS have no effect on the others
    if cell.model in LEARNING_RATES and not run.learning_rates:
        run.learning_rates = [f"{cell.model}={LEARNING_RATES[cell.model]}"]
    return parsed


def _evaluate(
    cell: Cell, run: RunArguments, dataset: str, output: Path, splits: Mapping[str, Dataset]
) -> dict[str, Any]:
    """Evaluate the ensemble of a cell, on validation if the data have no test split of it, and return its row."""
    folder = output / cell.folder
    runs = [folder / f"seed-{seed}" for seed in range(run.seed, run.seed + run.seeds)] if run.seeds > 1 else [folder]
    scored = [name for name in ("test", "validation") if name in splits and not _missing(cell, {name: splits[name]})]
    evaluation = None
    if scored:
        evaluation = folder / "ensemble" / "report.json"
        if not _is_current(evaluation, runs):
            evaluate_models(list(map(str, runs)), dataset, scored[0], evaluation, DataArguments())
    return read_cell(output, cell, runs, evaluation)


def _is_current(evaluation: Path, runs: Sequence[Path]) -> bool:
    """Return whether an evaluation is of these runs, and not of what they were before further training."""
    if not evaluation.exists():
        return False
    trained = max((run / "report" / "report.json").stat().st_mtime for run in runs)
    about = json.loads(evaluation.read_text(encoding="utf-8"))["about"]
    return about["models"] == list(map(str, runs)) and evaluation.stat().st_mtime >= trained


def prepare_source(source: str, output: Path, layout: str | None, num_proc: int) -> str:
    """Return the folder of the data set, which is converted to `output` unless it is prepared already."""
    folder = Path(source)
    if layout is None:
        if not folder.exists():
            raise FileNotFoundError(f"{source}: there is no such file or folder.")
        if folder.is_file() or data_files(folder):
            return source
        layout = next((name for name, pattern in LAYOUT_FILES.items() if any(folder.glob(pattern))), None)
    if layout is None:
        raise ValueError(f"{source} has no files of a layout of CMU-MOSEI; name it with --layout.")
    if not data_files(output):
        logger.info("Converting %s (layout %s) to %s", source, layout, output)
        prepare_dataset(builder_class(layout)(layout=layout, data_dir=source), output, num_proc)
    return str(output)


def plan_cells(
    splits: Mapping[str, Dataset],
    tasks: Sequence[str],
    combinations: Sequence[str],
    models: Sequence[str] = ("umons",),
    with_ablations: bool = False,
) -> tuple[list[Cell], list[str]]:
    """Return the cells whose data are in all splits but perhaps test, and the reason for whatever is left out."""
    cells, left_out = [], []
    for task, combination in product(tasks, combinations):
        cell = Cell(task, combination)
        missing = _missing(cell, {name: rows for name, rows in splits.items() if name != "test"})
        missing_of_test = _missing(cell, {name: rows for name, rows in splits.items() if name == "test"})
        if missing:
            left_out.append(f"{task} from {combination}: the data have no {', '.join([*missing, *missing_of_test])}.")
            continue
        if missing_of_test:
            left_out.append(
                f"Test scores of {task} from {combination}: the data have no {', '.join(missing_of_test)}."
            )
        cells += [cell._replace(model=model) for model in models]
        cells += [cell._replace(ablation=option) for option in ablations_of(combination) if with_ablations]
    return cells, left_out


def _missing(cell: Cell, splits: Mapping[str, Dataset]) -> list[str]:
    """Return the inputs and labels of a cell that a split does not have."""
    inputs = [INPUT_COLUMNS[LETTERS[letter]] for letter in cell.combination.split("+")]
    labels = EMOTIONS if cell.task == "emotion" else ("sentiment",)
    return [f"{column} of {name}" for name, rows in splits.items() for column in (*inputs, *labels)
            if not _has_values(rows, column)]  # fmt: skip


def _has_values(rows: Dataset, column: str) -> bool:
    """Return whether a column has a value, not only nulls."""
    if column not in rows.column_names:
        return False
    return any(len(chunk) > chunk.null_count for chunk in rows.data.table[column].chunks)
