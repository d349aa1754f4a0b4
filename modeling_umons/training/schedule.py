"""The schedule of the paper: when validation does not get better, go back to the best epoch with half the learning rate."""

import logging
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers.trainer_callback import ExportableState, TrainerCallback, TrainerState
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from transformers.utils import SAFE_WEIGHTS_NAME


logger = logging.getLogger(__name__)


def best_checkpoint(state: TrainerState, output_dir: str | Path) -> Path:
    """The checkpoint of the best evaluation; where a run was moved since, that of the same step in `output_dir`."""
    known = state.best_model_checkpoint
    if known is not None and Path(known).is_dir():
        return Path(known)
    return Path(output_dir, f"{PREFIX_CHECKPOINT_DIR}-{state.best_global_step}")


class ReloadBestAndHalve(TrainerCallback, ExportableState):
    """
    After an evaluation without gain, reloads the weights of the best one and the optimiser's state that belongs to them,
    and halves the learning rate. When that has been done `max_halvings` times, `patience` evaluations in a row without
    gain end the run. (The published code keeps the optimiser's state; restoring it is what going back means.)

    What counts is the metric that `Trainer` chooses the best model by; every evaluation must be saved. Its options are
    `RunArguments`.

    Args:
        max_halvings: 2 in the paper; 0 makes this plain early stopping.
        patience: 3 in the paper; 0 never stops the run.
    """

    def __init__(self, max_halvings: int = 2, patience: int = 3):
        self.max_halvings, self.patience = max_halvings, patience
        self.halvings = self.without_gain = 0

    def state(self) -> dict:
        # What `Trainer` keeps in a checkpoint and gives back to a run that goes on from it.
        return {
            "args": {"max_halvings": self.max_halvings, "patience": self.patience},
            "attributes": {"halvings": self.halvings, "without_gain": self.without_gain},
        }

    def on_train_begin(self, args, state, control, **kwargs):
        # A run that goes on gets this as its checkpoint has it; what it is now asked for counts.
        self.max_halvings, self.patience = args.max_halvings, args.patience

    def on_evaluate(self, args, state, control, metrics, model, optimizer, lr_scheduler, **kwargs):
        if self._is_gain(args, state, metrics):
            self.without_gain = 0
        elif self.halvings < self.max_halvings:
            self.halvings += 1
            self._go_back(best_checkpoint(state, args.output_dir), model, optimizer)
            self._halve(optimizer, lr_scheduler)
            logger.info(
                "No gain: back to step %d, learning rate %.2g", state.best_global_step, lr_scheduler.get_last_lr()[0]
            )
        else:
            self.without_gain += 1
            if self.patience and self.without_gain >= self.patience:
                control.should_training_stop = True
        return control

    @staticmethod
    def _is_gain(args, state, metrics) -> bool:
        name = args.metric_for_best_model.removeprefix("eval_")
        value = metrics[f"eval_{name}"]
        if state.best_metric is None:
            return True
        return value > state.best_metric if args.greater_is_better else value < state.best_metric

    @staticmethod
    def _go_back(checkpoint: Path, model, optimizer) -> None:
        device = next(model.parameters()).device
        model.load_state_dict(load_file(checkpoint / SAFE_WEIGHTS_NAME, device=str(device)))
        optimizer.load_state_dict(torch.load(checkpoint / "optimizer.pt", map_location=device, weights_only=True))

    def _halve(self, optimizer, lr_scheduler) -> None:
        # Both are accelerate's wrappers; `base_lrs` is what the scheduler multiplies, from now on and in checkpoints.
        scheduler = getattr(lr_scheduler, "scheduler", lr_scheduler)
        scheduler.base_lrs = [rate / 2 for rate in scheduler.base_lrs]
        factors = [factor(scheduler.last_epoch) for factor in scheduler.lr_lambdas]
        for group, rate, factor in zip(optimizer.param_groups, scheduler.base_lrs, factors, strict=True):
            group["lr"] = rate * factor
            group["initial_lr"] = rate
        scheduler._last_lr = [group["lr"] for group in optimizer.param_groups]
