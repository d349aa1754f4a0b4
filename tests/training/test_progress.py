"""Tests of the progress output."""

from types import SimpleNamespace

import pytest
from transformers import PrinterCallback, ProgressCallback

from modeling_umons.training.progress import OneLinePerEpoch, show_progress


EVALUATION = {
    "eval_loss": 0.75, "eval_runtime": 3.0, "eval_samples_per_second": 10.0, "eval_mae": 1.25, "eval_corr": 0.5,
    "eval_acc7": 0.25, "eval_f1": 0.125, "epoch": 2.0,
}  # fmt: skip


def log(callback, logs, is_first=True):
    callback.on_log(None, SimpleNamespace(is_world_process_zero=is_first), None, logs=logs)


def test_evaluation_is_printed_on_one_line(capsys):
    callback = OneLinePerEpoch(num_metrics=3)
    log(callback, {"loss": "0.5", "epoch": 2.0})
    assert capsys.readouterr().out == ""
    log(callback, EVALUATION)
    line = "epoch   2.0  training loss 0.500  validation loss 0.750  mae 1.250  corr 0.500  acc7 0.250\n"
    assert capsys.readouterr().out == line


def test_evaluation_before_training_has_no_training_loss(capsys):
    log(OneLinePerEpoch(), EVALUATION)
    assert capsys.readouterr().out.startswith("epoch   2.0  validation loss 0.750  mae")


def test_only_first_process_prints(capsys):
    log(OneLinePerEpoch(), EVALUATION, is_first=False)
    log(OneLinePerEpoch(), {})
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("has_bar", [True, False])
def test_show_progress_replaces_callbacks(has_bar):
    callbacks = [ProgressCallback if has_bar else PrinterCallback]

    class Trainer:
        def pop_callback(self, callback):
            return callback if callback in callbacks and callbacks.remove(callback) is None else None

        def add_callback(self, callback):
            callbacks.append(callback if isinstance(callback, type) else type(callback))

    show_progress(Trainer())
    assert PrinterCallback not in callbacks
    assert ProgressCallback not in callbacks
    assert callbacks[-1] is OneLinePerEpoch
    assert any(issubclass(callback, ProgressCallback) for callback in callbacks) == has_bar
