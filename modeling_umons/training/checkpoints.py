"""Checkpoints of a run that are there whole or not at all, and errors early on where they have no room or no place.

`Trainer` writes a checkpoint file by file, process by process. A run that is killed in between leaves a part of one, so
each gets a mark once every process is through with it, and only marked ones are gone on from.
"""

import os
import shutil
from pathlib import Path

import torch
from torch import nn
from transformers.trainer_callback import TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR


MARK = "whole"
REPORT = Path("report", "report.json")  # the last thing that a run writes


class MarkWholeCheckpoints(TrainerCallback):
    """Puts a mark into each checkpoint that all processes have finished."""

    def on_save(self, args, state, control, **kwargs):
        if torch.distributed.is_initialized():
            torch.distributed.barrier()
        if state.is_world_process_zero:
            (Path(args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}" / MARK).touch()


def list_checkpoints(output_dir: str | Path) -> list[Path]:
    """All checkpoints, whole or not, by their step."""
    found = [
        path for path in Path(output_dir).glob(f"{PREFIX_CHECKPOINT_DIR}-*") if path.name.rpartition("-")[2].isdigit()
    ]
    return sorted(found, key=lambda path: int(path.name.rpartition("-")[2]))


def find_checkpoint(output_dir: str | Path) -> Path | None:
    """The last whole checkpoint; `None` where there is none."""
    return next((path for path in reversed(list_checkpoints(output_dir)) if (path / MARK).exists()), None)


def remove_checkpoints(output_dir: str | Path, after: Path | None = None) -> None:
    """Removes all checkpoints, or those later than `after`: parts that a killed run left."""
    paths = list_checkpoints(output_dir)
    for path in paths if after is None else paths[paths.index(after) + 1 :]:
        shutil.rmtree(path)


def check_writable(output_dir: str | Path) -> None:
    """Raises OSError where `output_dir` cannot be made or written."""
    try:
        os.makedirs(output_dir, exist_ok=True)
        probe = Path(output_dir) / f".write-{os.getpid()}"
        probe.write_bytes(b"\0")
        probe.unlink()
    except OSError as error:
        raise OSError(f"{output_dir} cannot be written ({error.strerror}): choose another --output_dir.") from error


def check_room(output_dir: str | Path, model: nn.Module, num_checkpoints: int) -> None:
    """
    Raises OSError where the disk of `output_dir` lacks the room for the checkpoints of a run: weights and Adam's two
    moments, `num_checkpoints` times and once more while one takes the place of another.
    """
    size = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    needed, free = 3 * size * (num_checkpoints + 1), shutil.disk_usage(output_dir).free
    if free < needed:
        raise OSError(
            f"{output_dir} is on a disk with {free / 1e6:,.0f} MB left, but {num_checkpoints} checkpoints and one in the "
            f"making take {needed / 1e6:,.0f} MB: make room, choose another --output_dir or a smaller --save_total_limit."
        )


def check_for_other_run(output_dir: str | Path) -> None:
    """Raises ValueError where `output_dir` holds checkpoints of a run that did not come to its report."""
    if list_checkpoints(output_dir) and not (Path(output_dir) / REPORT).exists():
        raise ValueError(
            f"{output_dir} holds checkpoints of a run that did not end: go on with --resume_from_checkpoint last, or choose "
            "another --output_dir."
        )
