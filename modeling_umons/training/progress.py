"""Progress bar, one line for each evaluation, and duration of epochs."""

import time

from transformers import PrinterCallback, ProgressCallback, Trainer
from transformers.trainer_callback import TrainerCallback


class OneLinePerEpoch(TrainerCallback):
    """Print the losses and first metrics of each evaluation on one line, above the progress bar."""

    def __init__(self, num_metrics: int = 4):
        self.num_metrics = num_metrics
        self.loss = None

    def on_log(self, args, state, control, logs=None, **kwargs):
        if not state.is_world_process_zero or not logs:
            return
        if "loss" in logs:
            self.loss = float(logs["loss"])
        if "eval_loss" not in logs:
            return
        metrics = [
            name for name in logs if name.startswith("eval_") and not name.endswith(("loss", "runtime", "_per_second"))
        ]
        shown = [f"{name.removeprefix('eval_')} {float(logs[name]):.3f}" for name in metrics[: self.num_metrics]]
        loss = "" if self.loss is None else f"training loss {self.loss:.3f}  "
        from tqdm import tqdm

        evaluation = "  ".join([f"validation loss {float(logs['eval_loss']):.3f}", *shown])
        tqdm.write(f"epoch {float(logs['epoch']):>5.1f}  {loss}{evaluation}")


class _Bar(ProgressCallback):
    def on_log(self, args, state, control, logs=None, **kwargs):
        pass  # printed by `OneLinePerEpoch`


class TimeEpochs(TrainerCallback):
    """Record the duration of each training epoch without evaluation, `epoch_seconds`, in the history."""

    def on_epoch_begin(self, args, state, control, **kwargs):
        self.start = time.perf_counter()

    def on_epoch_end(self, args, state, control, **kwargs):
        seconds = round(time.perf_counter() - self.start, 3)
        state.log_history.append({"epoch": state.epoch, "step": state.global_step, "epoch_seconds": seconds})


def show_progress(trainer: Trainer):
    """Replace the progress callbacks of a trainer."""
    trainer.pop_callback(PrinterCallback)
    if trainer.pop_callback(ProgressCallback) is not None:
        trainer.add_callback(_Bar)
    trainer.add_callback(TimeEpochs)
    trainer.add_callback(OneLinePerEpoch)
