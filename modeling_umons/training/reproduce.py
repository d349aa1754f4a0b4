"""Reproduction of the paper's results table: all runs, their ensembles and the table, resumable at any point."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from datasets import Dataset

from ..data.arguments import DataArguments
from ..data.builders import builder_class
from ..data.prepare import data_files, prepare_dataset
from ..data.rows import load_splits
from ..evaluation.reproduction import print_reproduction, read_cell, write_reproduction
from ..evaluation.scoring import evaluate_models
from ..models.umons.configuration_umons import EMOTIONS
from ..tasks.paper import COMBINATIONS, LETTERS, TASK_METRICS
from .arguments import parse_arguments
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
        layout: layout of `source`; by default recognised by its files.
        num_proc: worker processes that convert the source.

    Raises:
        OSError, ValueError: the data cannot be read, no cell can be trained, or an option is invalid.
    """
    dataset = prepare_source(source, output / "data", layout, num_proc)
    splits = load_splits(dataset, DataArguments())
    cells, left_out = plan_cells(splits, tasks, combinations)
    for reason in left_out:
        logger.warning("Left out: %s", reason)
    if not cells:
        raise ValueError(f"{source} has the data of none of the cells. {' '.join(left_out)}")
    words = {cell: [cell[0], *options, *_cell_options(cell, dataset, output, seeds)] for cell in cells}
    parsed = {cell: parse_arguments(command, "") for cell, command in words.items()}  # all errors before training
    rows = []
    for number, (task, combination) in enumerate(cells, start=1):
        folder = _folder(output, task, combination)
        logger.info("%d of %d: %s from %s", number, len(cells), task, combination)
        run = parsed[task, combination][-1]
        train_all(*parsed[task, combination])
        runs = [folder / f"seed-{seed}" for seed in range(run.seed, run.seed + seeds)] if seeds > 1 else [folder]
        evaluation = folder / "ensemble" / "report.json"
        if "test" not in splits:
            evaluation = None
        elif not evaluation.exists():
            evaluate_models(list(map(str, runs)), dataset, "test", evaluation, DataArguments())
        rows.append(read_cell(output, task, combination, runs, evaluation))
        write_reproduction(output, rows, left_out)
    print_reproduction(rows)


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
    splits: Mapping[str, Dataset], tasks: Sequence[str], combinations: Sequence[str]
) -> tuple[list[tuple[str, str]], list[str]]:
    """Return the (task, combination) whose data are in all splits, and the reason for each one that is left out."""
    cells, left_out = [], []
    for task in tasks:
        labels = EMOTIONS if task == "emotion" else ("sentiment",)
        for combination in combinations:
            columns = [INPUT_COLUMNS[LETTERS[letter]] for letter in combination.split("+")]
            missing = [f"{column} of {name}" for name, rows in splits.items() for column in (*columns, *labels)
                       if not _has_values(rows, column)]  # fmt: skip
            if missing:
                left_out.append(f"{task} from {combination}: the data have no {', '.join(missing)}.")
            else:
                cells.append((task, combination))
    return cells, left_out


def _has_values(rows: Dataset, column: str) -> bool:
    """Return whether a column has a value, not only nulls."""
    if column not in rows.column_names:
        return False
    return any(len(chunk) > chunk.null_count for chunk in rows.data.table[column].chunks)


def _folder(output: Path, task: str, combination: str) -> Path:
    return output / task / combination


def _cell_options(cell: tuple[str, str], dataset: str, output: Path, seeds: int) -> list[str]:
    """Return the options that make up a cell; they cannot be overridden."""
    modalities = [LETTERS[letter] for letter in cell[1].split("+")]
    where = "--train_file" if Path(dataset).is_file() else "--dataset_name"
    return [where, dataset, "--modalities", *modalities, "--seeds", str(seeds), "--output_dir",
            str(_folder(output, *cell)), "--resume_from_checkpoint", "last"]  # fmt: skip
