"""Tests of the schedule in runs of `Trainer` with scripted validation metrics."""

import copy
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import Trainer
from transformers.trainer_callback import TrainerCallback, TrainerState

from modeling_umons import UmonsConfig, UmonsForSequenceClassification
from modeling_umons.training.arguments import RunArguments
from modeling_umons.training.schedule import ReloadBestAndHalve, best_checkpoint, is_improvement


RATE = 0.01


class Rows(torch.utils.data.Dataset):
    """Data set of four rows of three words: an epoch has two steps."""

    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        self.words = torch.randint(1, 9, (4, 3), generator=generator)

    def __len__(self) -> int:
        return len(self.words)

    def __getitem__(self, i: int) -> dict[str, torch.Tensor]:
        return {"input_ids": self.words[i], "labels": torch.tensor(i % 2)}


def simulate(
    script: list[float], greater: bool, max_halvings: int, patience: int
) -> list[tuple[int | None, int, int]]:
    """Simulate the state after each epoch: reloaded epoch or None, halvings, epochs without improvement."""
    happened, best, best_epoch, halvings, in_vain = [], None, None, 0, 0
    for epoch, value in enumerate(script, start=1):
        back_to = None
        if best is None or (value > best if greater else value < best):
            best, best_epoch, in_vain = value, epoch, 0
        elif halvings < max_halvings:
            back_to, halvings = best_epoch, halvings + 1
        else:
            in_vain += 1
        happened.append((back_to, halvings, in_vain))
        if patience and in_vain == patience:
            break
    return happened


def snapshot(model, optimizer) -> dict:
    """Return the weights and the state of Adam for each of them."""
    moments = optimizer.state_dict()["state"]
    return copy.deepcopy({"weights": model.state_dict(), "moments": moments})


def assert_same(one: dict, other: dict):
    """Compare bit by bit."""
    assert one["weights"].keys() == other["weights"].keys()
    assert all(one["weights"][name].equal(other["weights"][name]) for name in one["weights"])
    assert one["moments"].keys() == other["moments"].keys()
    for index, moments in one["moments"].items():
        assert {"exp_avg", "exp_avg_sq", "step"} == moments.keys()
        assert all(value.equal(other["moments"][index][name]) for name, value in moments.items())


class Record(TrainerCallback):
    """Record the state before and after the schedule processes an evaluation."""

    def __init__(self):
        self.evaluated, self.after, self.rates, self.trained_at = {}, {}, [], []

    def on_step_begin(self, args, state, control, optimizer, **kwargs):
        self.trained_at.append(optimizer.param_groups[0]["lr"])

    def on_evaluate(self, args, state, control, model, optimizer, **kwargs):
        self.evaluated[round(state.epoch)] = snapshot(model, optimizer)

    def on_save(self, args, state, control, model, optimizer, lr_scheduler, **kwargs):
        self.after[round(state.epoch)] = snapshot(model, optimizer)
        self.rates.append(optimizer.param_groups[0]["lr"])
        assert [optimizer.param_groups[0]["lr"]] * len(optimizer.param_groups) == lr_scheduler.get_last_lr()
        if state.best_model_checkpoint is not None:  # on the disk there is what there was in memory
            kept = load_file(Path(state.best_model_checkpoint, "model.safetensors"))
            best = self.evaluated.get(state.best_global_step // 2)  # `None` if it was before this run went on
            assert best is None or all(value.equal(best["weights"][name]) for name, value in kept.items())


def schedule_of(trainer: Trainer) -> ReloadBestAndHalve:
    """Replace the recorder of a resumed run."""
    return next(c for c in trainer.callback_handler.callbacks if isinstance(c, ReloadBestAndHalve))


class Killed(Exception):
    pass


class KillAfter(TrainerCallback):
    """Interrupt a run in the first step after an epoch."""

    def __init__(self, epoch: int):
        self.epoch = epoch

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 2 * self.epoch + 1:
            raise Killed


@pytest.fixture
def make(tmp_path):
    """
    Return a function that creates a `Trainer` of a tiny model with the metric script[e - 1] in epoch e, and its
    recorder.
    """

    def call(script, schedule, greater=True, folder="run", callbacks=()) -> tuple[Trainer, Record]:
        torch.manual_seed(0)
        config = UmonsConfig(
            modalities=["text"], vocab_size=9, word_embedding_size=4, hidden_size=4, intermediate_size=4,
            num_hidden_layers=1, num_attention_heads=2, hidden_dropout_prob=0.1, num_labels=2,
            problem_type="single_label_classification",
        )  # fmt: skip
        args = RunArguments(
            output_dir=tmp_path / folder, learning_rate=RATE, per_device_train_batch_size=2, disable_tqdm=True,
            num_train_epochs=len(script), metric_for_best_model="score", report_to="none", use_cpu=True,
            max_halvings=schedule.max_halvings, patience=schedule.patience, logging_strategy="no",
        )  # fmt: skip
        args.greater_is_better = greater
        record = Record()
        trainer = Trainer(
            model=UmonsForSequenceClassification(config), args=args, train_dataset=Rows(), eval_dataset=Rows(),
            compute_metrics=lambda _: {"score": script[round(trainer.state.epoch) - 1]},
            callbacks=[record, *callbacks, schedule],
        )  # fmt: skip
        return trainer, record

    return call


SCRIPTS = {
    "two halvings, then three epochs in vain": ([0.5, 0.6, 0.59, 0.5, 0.4, 0.3, 0.2, 0.9], 2, 3),
    "a gain resets the count": ([0.5, 0.4, 0.6, 0.5, 0.1, 0.2, 0.7, 0.1, 0.2, 0.3, 0.9], 2, 3),
    "gains after going back are gone back to": ([0.5, 0.4, 0.6, 0.7, 0.2, 0.8, 0.3, 0.2, 0.9], 3, 1),
    "plain early stopping": ([0.5, 0.6, 0.59, 0.7, 0.1, 0.2, 0.9], 0, 2),
    "no stopping": ([0.5, 0.4, 0.3, 0.2, 0.1, 0.0], 2, 0),
}


@pytest.mark.parametrize(
    ("name", "greater"), [*((name, True) for name in SCRIPTS), ("gains after going back are gone back to", False)]
)
def test_schedule_matches_simulation(make, name, greater):
    script, max_halvings, patience = SCRIPTS[name]
    script = script if greater else [-value for value in script]
    expected = simulate(script, greater, max_halvings, patience)
    assert patience == 0 or len(expected) < len(script)  # it does stop early

    schedule = ReloadBestAndHalve(max_halvings, patience)
    trainer, record = make(script, schedule, greater)
    trainer.train()

    assert trainer.state.epoch == len(record.evaluated) == len(expected)
    for epoch, (back_to, halvings, _) in enumerate(expected, start=1):
        assert_same(record.after[epoch], record.evaluated[back_to or epoch])
        assert record.rates[epoch - 1] == RATE / 2**halvings
    rates_before = [RATE, *record.rates[:-1]]
    assert record.trained_at == [rate for rate in rates_before for _ in range(2)]
    assert (schedule.halvings, schedule.without_gain) == expected[-1][1:]
    best = (max if greater else min)(script[: len(expected)])
    kept = record.evaluated[script.index(best) + 1]["weights"]
    assert all(value.equal(kept[key]) for key, value in trainer.model.state_dict().items())


def test_epochs_have_different_weights(make):
    trainer, record = make([0.1, 0.2, 0.3], ReloadBestAndHalve())
    trainer.train()
    for epoch in (1, 2):
        with pytest.raises(AssertionError):
            assert_same(record.evaluated[epoch], record.evaluated[epoch + 1])


@pytest.mark.parametrize("epoch", [2, 6])
def test_resumed_run_restores_schedule(make, epoch):
    """Resume the second script after the first halving and after two epochs without improvement."""
    script, max_halvings, patience = SCRIPTS["a gain resets the count"]
    whole, seen = make(script, ReloadBestAndHalve(max_halvings, patience), folder="whole")
    whole.train()

    killed, before = make(script, ReloadBestAndHalve(max_halvings, patience), callbacks=[KillAfter(epoch)])
    with pytest.raises(Killed):
        killed.train()
    resumed, after = make(script, ReloadBestAndHalve(max_halvings, patience))
    checkpoint = Path(resumed.args.output_dir, f"checkpoint-{2 * epoch}")
    resumed.train(resume_from_checkpoint=str(checkpoint))

    assert before.rates + after.rates == seen.rates
    together = before.evaluated | after.evaluated
    assert together.keys() == seen.evaluated.keys() == set(range(1, 11))
    assert min(after.evaluated) == epoch + 1
    for number, evaluated in together.items():
        assert_same(evaluated, seen.evaluated[number])
    schedule = schedule_of(resumed)
    assert (schedule.halvings, schedule.without_gain) == (2, 3)


def test_resumed_run_uses_new_options(make):
    script = [0.5, 0.4, 0.3, 0.2, 0.1, 0.05, 0.04]
    first, _ = make(script, ReloadBestAndHalve(1, 2))
    first.train()
    assert first.state.epoch == 4
    more, record = make(script, ReloadBestAndHalve(2, 3))
    more.train(resume_from_checkpoint=str(Path(more.args.output_dir, "checkpoint-8")))
    assert record.rates == [RATE / 4, RATE / 4]  # the second halving, and the third epoch in vain
    assert more.state.epoch == 6


def test_moved_run_finds_best_checkpoint(make, tmp_path):
    """Checkpoints contain their old path. The third epoch, the first one in the new place, does not improve."""
    script = [0.5, 0.4, 0.3, 0.2]
    killed, before = make(script, ReloadBestAndHalve(), folder="old", callbacks=[KillAfter(2)])
    with pytest.raises(Killed):
        killed.train()
    Path(killed.args.output_dir).rename(tmp_path / "new")
    resumed, after = make(script, ReloadBestAndHalve(), folder="new")
    resumed.train(resume_from_checkpoint=str(tmp_path / "new" / "checkpoint-4"))
    assert_same(after.after[3], before.evaluated[1])
    assert after.rates == [RATE / 4, RATE / 4]


def test_best_checkpoint_of_moved_run(tmp_path):
    state = TrainerState(best_model_checkpoint=str(tmp_path), best_global_step=7)
    assert best_checkpoint(state, "elsewhere") == tmp_path
    state.best_model_checkpoint = str(tmp_path / "gone")
    assert best_checkpoint(state, tmp_path) == tmp_path / "checkpoint-7"


@pytest.mark.parametrize(
    ("score", "loss", "expected"), [(0.5, 0.8, True), (0.5, 0.9, False), (0.5, 1.0, False), (0.4, 0.1, False)]
)
def test_equal_metrics_are_compared_by_loss(tmp_path, score, loss, expected):
    args = RunArguments(output_dir=tmp_path, metric_for_best_model="score", report_to="none")
    args.greater_is_better = True
    history = [{"step": 2, "loss": 0.0}, {"step": 2, "eval_loss": 0.9}, {"step": 4, "eval_loss": 0.1}]
    state = TrainerState(best_metric=0.5, best_global_step=2, log_history=history)
    assert is_improvement(args, state, {"eval_score": score, "eval_loss": loss}) is expected
