"""Training with the Trainer of transformers: accumulation, half precision, checkpointing, torch.compile."""

import logging

import pytest
import torch
from torch.utils.data import Dataset
from transformers import Trainer, TrainingArguments

from modeling_umons import UmonsConfig, UmonsForSequenceClassification


LENGTHS = {"text": 5, "audio": 7}
CHECKPOINTING = "activation_checkpointing"
if not hasattr(TrainingArguments, CHECKPOINTING):
    CHECKPOINTING = "gradient_checkpointing"  # its name before transformers 5.23
ALL_ROWS = {"per_device_train_batch_size": 32}  # full batches, so that the loss decreases


def make_model(modalities=("text", "audio"), **overrides) -> UmonsForSequenceClassification:
    torch.manual_seed(0)
    fields = {
        "modalities": list(modalities), "vocab_size": 30, "word_embedding_size": 6, "hidden_size": 16,
        "intermediate_size": 20, "num_hidden_layers": 1, "num_attention_heads": 2, "audio_feature_size": 5,
        "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "num_labels": 3,
        "problem_type": "multi_label_classification",
    }  # fmt: skip
    return UmonsForSequenceClassification(UmonsConfig(**{**fields, **overrides}))


def make_batch(batch_size: int = 4, lengths: dict[str, int] = LENGTHS, seed: int = 1) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    batch = {"labels": torch.randint(0, 2, (batch_size, 3), generator=generator).float()}
    if "text" in lengths:
        batch["input_ids"] = torch.randint(1, 30, (batch_size, lengths["text"]), generator=generator)
    if "audio" in lengths:
        batch["input_features"] = torch.randn(batch_size, lengths["audio"], 5, generator=generator)
    return batch


class Rows(Dataset):
    """Rows of the same length."""

    def __init__(self, lengths: dict[str, int] = LENGTHS, num_rows: int = 32):
        self.rows = make_batch(num_rows, lengths)

    def __len__(self) -> int:
        return len(self.rows["labels"])

    def __getitem__(self, i: int) -> dict[str, torch.Tensor]:
        return {name: values[i] for name, values in self.rows.items()}


@pytest.fixture
def train(tmp_path):
    """Train a model on the rows with options of `TrainingArguments`, and return the losses."""

    def run(model, rows: Dataset, max_steps: int = 3, **options) -> list[float]:
        defaults = {
            "output_dir": tmp_path, "max_steps": max_steps, "per_device_train_batch_size": 8, "learning_rate": 0.1,
            "optim": "sgd", "lr_scheduler_type": "constant", "max_grad_norm": 0.0, "logging_steps": 1,
            "save_strategy": "no", "report_to": "none", "use_cpu": True, "disable_tqdm": True,
            "dataloader_pin_memory": False, "seed": 0,
        }  # fmt: skip
        trainer = Trainer(model=model, args=TrainingArguments(**defaults | options), train_dataset=rows)
        trainer.train()
        losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        assert len(losses) == max_steps
        return losses

    return run


@pytest.fixture
def fresh_compiler():
    """Reset the compiler before and after a test."""
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.fixture
def transformers_log(caplog):
    """Capture the log of transformers, which does not propagate to the root logger."""
    logger = logging.getLogger("transformers")
    logger.addHandler(caplog.handler)
    yield caplog
    logger.removeHandler(caplog.handler)


def gradients_of(model, compiled_or_model, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    model.zero_grad()
    compiled_or_model(**batch).loss.backward()
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.requires_grad}


# The compiler reads `.grad` of tensors at a graph break, and suppresses the warning too late for warnings as errors.
compiles_in_parts = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")


# Trainer


def rows_of(task: str) -> tuple[Rows, dict]:
    """Return 14 rows of a task, of which 5 accumulate in the last step, and options of its model."""
    rows = Rows(num_rows=14)
    if task == "emotions":
        return rows, {}
    if task == "joint":
        return rows, {"problem_type": None, "joint_sentiment": True}
    classes = rows.rows["labels"][:, 0].long()
    classes[1::4] = -100  # unknown
    rows.rows["labels"] = classes
    return rows, {"problem_type": "single_label_classification"}


@pytest.mark.parametrize("task", ["emotions", "joint", "classes with unknown labels"])
def test_accumulated_batches_equal_one_batch(train, task):
    """Steps of 9 and 5 rows, in batches of 3 rows or as a whole."""
    rows, options = rows_of(task)
    whole, parts = make_model(**options), make_model(**options)
    start = {name: parameter.clone() for name, parameter in whole.named_parameters()}
    losses = train(whole, rows, max_steps=4, per_device_train_batch_size=9)
    losses_of_parts = train(parts, rows, max_steps=4, per_device_train_batch_size=3, gradient_accumulation_steps=3)
    assert losses_of_parts == pytest.approx(losses, rel=1e-6)
    for name, parameter in whole.named_parameters():
        torch.testing.assert_close(parts.get_parameter(name), parameter, rtol=0, atol=1e-6)
    assert (whole.classifier.weight - start["classifier.weight"]).abs().max() > 1e-3


@pytest.mark.parametrize(
    "options",
    [{"bf16": True}, {CHECKPOINTING: True}, {"bf16": True, CHECKPOINTING: True}],
    ids=" ".join,
)
def test_training_modes_reduce_loss_equally(train, options, transformers_log):
    expected = train(make_model(), Rows(), **ALL_ROWS)
    losses = train(make_model(), Rows(), **ALL_ROWS, **options)
    assert losses[2] < losses[1] < losses[0]
    assert losses == pytest.approx(expected, abs=1e-2 if "bf16" in options else 1e-4)
    assert [record.getMessage() for record in transformers_log.records if record.levelno >= logging.WARNING] == []


def test_autocast_keeps_hidden_states_in_half_precision(monkeypatch):
    """Autocast on GPUs normalises in float32, other than on CPUs; float32 sums would take twice the memory."""
    normalize = torch.nn.functional.layer_norm

    def normalize_as_on_gpus(values, *args):
        values = values.float() if torch.is_autocast_enabled("cpu") else values
        return normalize(values, *args)

    monkeypatch.setattr(torch.nn.functional, "layer_norm", normalize_as_on_gpus)
    model = make_model(num_hidden_layers=2)
    with torch.autocast("cpu", torch.bfloat16):
        outputs = model(**make_batch(), output_hidden_states=True)
    assert {state.dtype for state in outputs.hidden_states} == {torch.bfloat16}
    torch.testing.assert_close(outputs.logits.float(), model(**make_batch()).logits, rtol=0, atol=2e-2)
    outputs.loss.backward()
    gradient = model.model.layer_norm.weight.grad
    assert gradient.dtype == torch.float32
    assert gradient.abs().max() > 0


@compiles_in_parts
@pytest.mark.skipif(torch.__version__ < "2.12", reason="the compiler of torch 2.11 fails on the LSTM of a CPU")
def test_compiled_model_trains(train, fresh_compiler):
    """Compile to machine code, which is slow: the smallest model with an LSTM."""
    tiny = {"hidden_size": 4, "intermediate_size": 4, "num_attention_heads": 1}
    rows = Rows({"text": 5})
    models = [make_model(["text"], **tiny) for _ in range(2)]
    for model in models:
        model.get_input_embeddings().requires_grad_(False)  # frozen word vectors made the compiler fail
    expected = train(models[0], rows, **ALL_ROWS)
    losses = train(models[1], rows, **ALL_ROWS, torch_compile=True)
    assert losses[2] < losses[1] < losses[0]
    assert losses == pytest.approx(expected, abs=1e-4)
    for name, parameter in models[0].named_parameters():
        torch.testing.assert_close(models[1].get_parameter(name), parameter, rtol=0, atol=1e-5)


# torch.compile


@compiles_in_parts
def test_compiled_gradients_equal_eager(fresh_compiler):
    model = make_model()
    expected = gradients_of(model, model, make_batch())
    gradients = gradients_of(model, torch.compile(model, backend="aot_eager"), make_batch())
    for name, gradient in expected.items():
        torch.testing.assert_close(gradients[name], gradient, rtol=0, atol=1e-5)


@compiles_in_parts
@pytest.mark.parametrize("has_gradients", [True, False], ids=["training", "inference"])
def test_compiled_graph_serves_all_lengths(has_gradients, fresh_compiler):
    """The second length makes the graphs dynamic; further lengths compile nothing."""
    graphs = []

    def count_graphs(graph, example_inputs):
        graphs.append(graph)
        return graph.forward

    model = make_model()
    compiled = torch.compile(model, backend=count_graphs)
    num_graphs = []
    for text, audio in [(5, 9), (7, 8), (11, 4), (20, 21), (3, 19)]:
        batch = make_batch(lengths={"text": text, "audio": audio})
        with torch.set_grad_enabled(has_gradients):
            loss = compiled(**batch).loss
        assert loss.item() == pytest.approx(model(**batch).loss.item(), abs=1e-6)
        num_graphs.append(len(graphs))
    if has_gradients and num_graphs[0] == 1:
        pytest.skip("this version of torch compiles the LSTM too, for each length")  # 2.11
    # Before the LSTM, two after it, and the head, which does not depend on the length.
    assert num_graphs == ([4, 7, 7, 7, 7] if has_gradients else [1, 2, 2, 2, 2])
