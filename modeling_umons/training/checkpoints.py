"""Complete checkpoints, and early checks of the output folder.

`Trainer` writes a checkpoint file by file in several processes. An interrupted run can leave an incomplete one, so
each checkpoint is marked when all processes have written it, and only marked ones are resumed from.
"""

import os
import shutil
from pathlib import Path

import torch
from torch import nn
from transformers.trainer_callback import TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR


MARK = "complete"
REPORT = Path("report", "report.json")  # the last file of a run


class MarkCompleteCheckpoints(TrainerCallback):
    """Mark each checkpoint that all processes have written."""

    def on_save(self, args, state, control, **kwargs):
        if torch.distributed.is_initialized():
            torch.distributed.barrier()
        if state.is_world_process_zero:
            (Path(args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}" / MARK).touch()


def list_checkpoints(output_dir: str | Path) -> list[Path]:
    """Return all checkpoints, complete or not, in the order of their steps."""
    found = [
        path for path in Path(output_dir).glob(f"{PREFIX_CHECKPOINT_DIR}-*") if path.name.rpartition("-")[2].isdigit()
    ]
    return sorted(found, key=lambda path: int(path.name.rpartition("-")[2]))


def find_checkpoint(output_dir: str | Path) -> Path | None:
    """Return the last complete checkpoint, or `None`."""
    return next((path for path in reversed(list_checkpoints(output_dir)) if (path / MARK).exists()), None)


def remove_checkpoints(output_dir: str | Path, after: Path | None = None) -> None:
    """Remove all checkpoints, or those later than `after`."""
    paths = list_checkpoints(output_dir)
    for path in paths if after is None else paths[paths.index(after) + 1 :]:
        shutil.rmtree(path)


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
    """Check that `output_dir` has no checkpoints of an unfinished run. Raises ValueError."""
    if list_checkpoints(output_dir) and not (Path(output_dir) / REPORT).exists():
        raise ValueError(
            f"{output_dir} contains checkpoints of an unfinished run: resume it with --resume_from_checkpoint last, "
            "or choose another --output_dir."
        )
