"""Learning rate schedule of the paper: without improvement, reload the best epoch and halve the learning rate."""

import logging
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import TrainingArguments
from transformers.trainer_callback import ExportableState, TrainerCallback, TrainerState
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from transformers.utils import SAFE_WEIGHTS_NAME

from ..data.safe_checkpoint import check_archive


logger = logging.getLogger(__name__)


def best_checkpoint(state: TrainerState, output_dir: str | Path) -> Path:
    """Return the checkpoint of the best evaluation; if the run was moved, that of the same step in `output_dir`."""
    known = state.best_model_checkpoint
    if known is not None and Path(known).is_dir():
        return Path(known)
    return Path(output_dir, f"{PREFIX_CHECKPOINT_DIR}-{state.best_global_step}")


def is_improvement(args: TrainingArguments, state: TrainerState, metrics: Mapping[str, float]) -> bool:
    """
    Return whether an evaluation is better than the best one before it. Of equal metrics, such as accuracies on few
    rows, the one with the lower validation loss is better.
    """
    value = metrics[f"eval_{args.metric_for_best_model.removeprefix('eval_')}"]
    if state.best_metric is None:
        return True
    if value == state.best_metric:
        losses = [
            entry["eval_loss"]
            for entry in state.log_history
            if entry.get("step") == state.best_global_step and "eval_loss" in entry
        ]
        return bool(losses) and metrics.get("eval_loss", losses[0]) < losses[0]
    return value > state.best_metric if args.greater_is_better else value < state.best_metric


class ReloadBestAndHalve(TrainerCallback, ExportableState):
    """
    Reload the best checkpoint and halve the learning rate after an evaluation without improvement. After
    `max_halvings` halvings, stop training after `patience` evaluations in a row without improvement.

    Both weights and optimiser state are reloaded; the published code keeps the optimiser state. Improvement is
    measured by `metric_for_best_model`, and each evaluation must be saved; see [`RunArguments`].

    Args:
        max_halvings: number of halvings, 2 in the paper; 0 is plain early stopping.
        patience: evaluations without improvement, 3 in the paper; 0 disables stopping.
    """

    def __init__(self, max_halvings: int = 2, patience: int = 3):
        self.max_halvings, self.patience = max_halvings, patience
        self.halvings = self.without_gain = 0

    def state(self) -> dict:
        # `Trainer` saves this in checkpoints and restores it when resuming.
        return {
            "args": {"max_halvings": self.max_halvings, "patience": self.patience},
            "attributes": {"halvings": self.halvings, "without_gain": self.without_gain},
        }

    def on_train_begin(self, args, state, control, **kwargs):
        # Options of the resumed run override those in the checkpoint.
        self.max_halvings, self.patience = args.max_halvings, args.patience

    def on_evaluate(self, args, state, control, metrics, model, optimizer, lr_scheduler, **kwargs):
        if is_improvement(args, state, metrics):
            self.without_gain = 0
        elif self.halvings < self.max_halvings:
            self.halvings += 1
            self._reload(best_checkpoint(state, args.output_dir), model, optimizer)
            self._halve(optimizer, lr_scheduler)
            logger.info(
                "No improvement: reloaded step %d, learning rate %.2g",
                state.best_global_step,
                lr_scheduler.get_last_lr()[0],
            )
        else:
            self.without_gain += 1
            if self.patience and self.without_gain >= self.patience:
                control.should_training_stop = True
        return control

    @staticmethod
    def _reload(checkpoint: Path, model, optimizer) -> None:
        check_archive(checkpoint / "optimizer.pt")
        device = next(model.parameters()).device
        model.load_state_dict(load_file(checkpoint / SAFE_WEIGHTS_NAME, device=str(device)))
        optimizer.load_state_dict(torch.load(checkpoint / "optimizer.pt", map_location=device, weights_only=True))

    def _halve(self, optimizer, lr_scheduler) -> None:
        # Both are wrapped by accelerate. The scheduler multiplies `base_lrs`, which checkpoints contain.
        scheduler = getattr(lr_scheduler, "scheduler", lr_scheduler)
        scheduler.base_lrs = [rate / 2 for rate in scheduler.base_lrs]
        factors = [factor(scheduler.last_epoch) for factor in scheduler.lr_lambdas]
        for group, rate, factor in zip(optimizer.param_groups, scheduler.base_lrs, factors, strict=True):
            group["lr"] = rate * factor
            group["initial_lr"] = rate
        scheduler._last_lr = [group["lr"] for group in optimizer.param_groups]
