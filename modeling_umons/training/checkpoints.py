"""Complete checkpoints, and early checks of the output folder.

`Trainer` writes a checkpoint file by file in several processes. An interrupted run can leave an incomplete one, so
each checkpoint is marked when all processes have written it, and only marked ones are resumed from. Older checkpoints
are removed after the new one is marked, and lose their own mark first.
"""

import json
import logging
import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from torch import nn
from transformers import TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_callback import TrainerState
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from ..data.safe_checkpoint import check_archive
from ..utils.files import flush_to_disk, use_default_mode, write_atomically
from .fingerprint import list_differences


try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


logger = logging.getLogger(__name__)

MARK = "complete"
LOCK = ".lock"
REPORT = Path("report", "report.json")  # the last file of a run
DISCARDED = REPORT.with_name("discarded.json")  # the report of a finished run while its checkpoints are removed


def complete_checkpoint(
    output_dir: str | Path, state: TrainerState, limit: int | None, fingerprint: dict | None = None
) -> None:
    """
    Mark the checkpoint of the current step, then remove the oldest ones but the best, so that `limit` remain. The mark
    contains the fingerprint of the run.
    """
    newest = Path(output_dir, f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}")
    use_default_mode(newest)
    flush_to_disk(newest)
    write_atomically(newest / MARK, json.dumps(fingerprint or {}, indent=2))
    paths = list_checkpoints(output_dir)
    kept = {newest.name, Path(state.best_model_checkpoint or "").name}
    removable = [path for path in paths if path.name not in kept]
    for path in removable[: max(len(paths) - limit, 0) if limit else 0]:
        remove_checkpoint(path)


def remove_checkpoint(path: Path) -> None:
    """Remove a checkpoint, its mark first. Files that cannot be removed remain in an incomplete checkpoint."""
    (path / MARK).unlink(missing_ok=True)
    shutil.rmtree(path, ignore_errors=True)


def list_checkpoints(output_dir: str | Path) -> list[Path]:
    """Return all checkpoints, complete or not, in the order of their steps."""
    found = [
        path for path in Path(output_dir).glob(f"{PREFIX_CHECKPOINT_DIR}-*") if path.name.rpartition("-")[2].isdigit()
    ]
    return sorted(found, key=lambda path: int(path.name.rpartition("-")[2]))


def find_checkpoint(output_dir: str | Path) -> Path | None:
    """Return the last complete checkpoint, or `None`."""
    if Path(output_dir, DISCARDED).exists():
        return None
    return next((path for path in reversed(list_checkpoints(output_dir)) if (path / MARK).exists()), None)


def asks_for_more(args: TrainingArguments) -> bool:
    """Return whether the options ask for more epochs or steps than the run of the last complete checkpoint."""
    checkpoint = find_checkpoint(args.output_dir)
    if checkpoint is None:
        return False
    with name_damage(checkpoint):
        state = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME))
    return args.max_steps > state.max_steps if args.max_steps > 0 else args.num_train_epochs > state.num_train_epochs


def check_complete(checkpoint: str | Path) -> None:
    """Check that a checkpoint to resume from is complete. Raises ValueError."""
    if not Path(checkpoint, MARK).exists():
        raise ValueError(
            f"{checkpoint} is not a complete checkpoint: it has no file {MARK!r}. Pass another one, or resume from "
            "the last complete one with --resume_from_checkpoint last."
        )


def check_fingerprint(checkpoint: str | Path, fingerprint: dict) -> None:
    """
    Check that a checkpoint is of a run with this fingerprint. Only another number of processes is accepted, with a
    warning.

    Raises:
        ValueError: something differs.
        OSError: the mark is damaged.
    """
    try:
        saved = json.loads((Path(checkpoint) / MARK).read_text(encoding="utf-8") or "{}")
    except ValueError as error:
        raise OSError(f"{checkpoint} is damaged: its file {MARK!r} is not valid JSON.") from error
    if not isinstance(saved, dict) or not all(isinstance(group, dict) for group in saved.values()):
        raise OSError(f"{checkpoint} is damaged: its file {MARK!r} is not an object of objects.")
    differences = list_differences(saved, fingerprint)
    processes = [text for text in differences if text.startswith("processes ")]
    if processes:
        logger.warning("The run resumes with other %s: results are not bit-exact.", *processes)
    differences = [text for text in differences if text not in processes]
    if differences:
        raise ValueError(
            f"The run of {checkpoint} used other data or options, which differ in {'; '.join(differences)}. Resume it "
            "with the same ones, or choose another --output_dir for a new run."
        )


def load_state(checkpoint: Path) -> TrainerState:
    """Load the state of a checkpoint. Raises ValueError for values of other types than a training writes."""
    state = TrainerState.load_from_json(checkpoint / TRAINER_STATE_NAME)
    for name in ("global_step", "max_steps", "train_batch_size", "num_train_epochs"):
        if not isinstance(getattr(state, name), int):
            raise ValueError(f"{TRAINER_STATE_NAME}: `{name}` is {getattr(state, name)!r:.80}, expected an integer")
    for name in ("epoch", "best_metric"):
        if not isinstance(getattr(state, name), (int, float, type(None))):
            raise ValueError(f"{TRAINER_STATE_NAME}: `{name}` is {getattr(state, name)!r:.80}, expected a number")
    entries = state.log_history if isinstance(state.log_history, list) else [None]
    if not all(isinstance(entry, dict) and _has_numbers(entry) for entry in entries):
        raise ValueError(f"{TRAINER_STATE_NAME}: `log_history` is not a list of objects of numbers")
    callbacks = state.stateful_callbacks
    saved = [one for value in callbacks.values() for one in (value if isinstance(value, list) else [value])]
    if not all(isinstance(one, dict) and {"args", "attributes"} <= {*one} and _has_objects(one) for one in saved):
        raise ValueError(f"{TRAINER_STATE_NAME}: `stateful_callbacks` has a value without `args` and `attributes`")
    return state


def check_archives(checkpoint: Path) -> None:
    """Check the pickles of a checkpoint before `torch.load` reads them. Raises OSError or ValueError."""
    for path in sorted([*checkpoint.glob("*.pt"), *checkpoint.glob("*.pth")]):
        check_archive(path)


def _has_numbers(entry: dict) -> bool:
    return all(isinstance(value, (int, float, type(None))) for value in entry.values())


def _has_objects(callback: dict) -> bool:
    return all(isinstance(callback[name], dict) for name in ("args", "attributes"))


@contextmanager
def name_damage(checkpoint: str | Path | None) -> Iterator[None]:
    """Convert errors of reading a checkpoint to an OSError that names it and the complete one before it."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # loaders raise errors of many types for damaged files
        if checkpoint is None:
            raise
        # The first line only: torch then recommends weights_only=False.
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].split(". ")[0]
        output, step = Path(checkpoint).parent, Path(checkpoint).name
        names = [path.name for path in list_checkpoints(output)]
        earlier = list_checkpoints(output)[: names.index(step)] if step in names else []
        remedy = next((path for path in reversed(earlier) if (path / MARK).exists()), None)
        remedy = (
            "Start a new run in another --output_dir."
            if remedy is None
            else (f"Resume from the one before: --resume_from_checkpoint {remedy}")
        )
        raise OSError(f"The checkpoint {checkpoint} is damaged: {reason}. {remedy}") from error


def remove_later(output_dir: str | Path, checkpoint: Path) -> None:
    """Remove the report, incomplete checkpoints and all checkpoints after `checkpoint`, the last ones first."""
    Path(output_dir, REPORT).unlink(missing_ok=True)
    paths = list_checkpoints(output_dir)
    later = paths[paths.index(checkpoint) + 1 :]
    for path in reversed([path for path in paths if path in later or not (path / MARK).exists()]):
        remove_checkpoint(path)


def discard_run(output_dir: str | Path) -> None:
    """
    Remove the report and all checkpoints.

    The report is renamed first, which is atomic: if the removal is interrupted, no old checkpoint is resumed from.
    """
    report, discarded = Path(output_dir, REPORT), Path(output_dir, DISCARDED)
    if report.exists():
        logger.warning("Overwriting the finished run in %s", output_dir)
        os.replace(report, discarded)
    for path in list_checkpoints(output_dir):
        remove_checkpoint(path)
    discarded.unlink(missing_ok=True)


def check_processes(num_processes: int) -> None:
    """Check that all launched processes train together. Raises ValueError."""
    launched = int(os.environ.get("WORLD_SIZE", 1))
    if num_processes < launched:
        raise ValueError(
            f"{launched} processes were launched without enough GPUs: each process would train a model of its own. "
            "Launch one process for each GPU, or train on the CPU with ACCELERATE_USE_CPU=true."
        )


@contextmanager
def lock_folder(output_dir: str | Path) -> Iterator[None]:
    """
    Lock `output_dir` against other trainings. The file `.lock` contains the id of the process; the system releases the
    lock when that process ends, so that the file of a killed run does not block the next one.

    Raises:
        OSError: another process trains in this folder.
    """
    if fcntl is None:
        yield
        return
    path = Path(output_dir, LOCK)
    with open(path, "a+", encoding="utf-8") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            file.seek(0)
            raise OSError(
                f"Another training writes to {output_dir} ({file.read(100).strip()}). Wait until it ends, or choose "
                "another --output_dir."
            ) from error
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}\n")
        file.flush()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


@contextmanager
def remove_if_empty(output_dir: str | Path) -> Iterator[None]:
    """Remove `output_dir` and its parents, if they are new, when a run fails before it writes a file."""
    path = Path(output_dir)
    created = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        yield
    except BaseException:
        with suppress(OSError):  # not empty, or already removed by another process
            for folder in created:
                folder.rmdir()
        raise


def check_writable(output_dir: str | Path) -> None:
    """Check that `output_dir` is writable. Raises OSError."""
    try:
        os.makedirs(output_dir, exist_ok=True)
        probe = Path(output_dir) / f".write-{os.getpid()}"
        probe.write_bytes(b"\0")
        probe.unlink()
    except OSError as error:
        raise OSError(f"{output_dir} is not writable ({error.strerror}); choose another --output_dir.") from error


def check_room(output_dir: str | Path, model: nn.Module, num_checkpoints: int) -> None:
    """
    Check that the disk has space for the checkpoints of a run: weights and both moments of Adam, `num_checkpoints`
    times and once more while an old one is replaced. Raises OSError.
    """
    size = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    needed, free = 3 * size * (num_checkpoints + 1), shutil.disk_usage(output_dir).free
    if free < needed:
        raise OSError(
            f"The disk of {output_dir} has {free / 1e6:,.0f} MB of free space, but {num_checkpoints} + 1 checkpoints "
            f"require {needed / 1e6:,.0f} MB. Free space, or choose another --output_dir or a smaller "
            "--save_total_limit."
        )


def check_for_other_run(output_dir: str | Path) -> None:
    """Check that `output_dir` has no complete checkpoint of an unfinished run. Raises ValueError."""
    if find_checkpoint(output_dir) and not Path(output_dir, REPORT).exists():
        raise ValueError(
            f"{output_dir} contains checkpoints of an unfinished run: resume it with --resume_from_checkpoint last, "
            "or choose another --output_dir."
        )
