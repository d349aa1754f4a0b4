"""A progress bar, one line for each evaluation, and how long an epoch took."""

import time

from transformers import PrinterCallback, ProgressCallback, Trainer
from transformers.trainer_callback import TrainerCallback


class OneLinePerEpoch(TrainerCallback):
    """Prints the losses and the first measures of each evaluation on one line, above the bar where there is one."""

    def __init__(self, num_measures: int = 4):
        self.num_measures = num_measures
        self.loss = None

    def on_log(self, args, state, control, logs=None, **kwargs):
        if not state.is_world_process_zero or not logs:
            return
        if "loss" in logs:
            self.loss = float(logs["loss"])
        if "eval_loss" not in logs:
            return
        measures = [
            name for name in logs if name.startswith("eval_") and not name.endswith(("loss", "runtime", "_per_second"))
        ]
        shown = [f"{name.removeprefix('eval_')} {float(logs[name]):.3f}" for name in measures[: self.num_measures]]
        loss = "" if self.loss is None else f"training loss {self.loss:.3f}  "
        line = f"epoch {float(logs['epoch']):>5.1f}  {loss}validation loss {float(logs['eval_loss']):.3f}  {'  '.join(shown)}"
        from tqdm import tqdm

        tqdm.write(line)


class _Bar(ProgressCallback):
    def on_log(self, args, state, control, logs=None, **kwargs):
        pass  # `OneLinePerEpoch` does


class TimeEpochs(TrainerCallback):
    """Notes in the history how long each epoch of training took, `epoch_seconds`, without its evaluation."""

    def on_epoch_begin(self, args, state, control, **kwargs):
        self.start = time.perf_counter()

    def on_epoch_end(self, args, state, control, **kwargs):
        seconds = round(time.perf_counter() - self.start, 3)
        state.log_history.append({"epoch": state.epoch, "step": state.global_step, "epoch_seconds": seconds})


def show_progress(trainer: Trainer):
    """Gives `trainer` this way of showing progress instead of transformers' own."""
    trainer.pop_callback(PrinterCallback)
    if trainer.pop_callback(ProgressCallback) is not None:
        trainer.add_callback(_Bar)
    trainer.add_callback(TimeEpochs)
    trainer.add_callback(OneLinePerEpoch)
