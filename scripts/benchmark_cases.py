"""Ways to compute what `scripts/benchmark.py model` measures: models, batches, calls, and the memory that a call takes."""

import argparse
import copy
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from torch.utils.flop_counter import FlopCounterMode

from modeling_umons import UmonsConfig, UmonsFeatureExtractor, UmonsForSequenceClassification
from modeling_umons.export.packed_linear import pack_linears
from modeling_umons.models.umons.media_umons import read_clip


ROOT = Path(__file__).resolve().parent.parent
MODALITIES = {"text_audio": ["text", "audio"], "text_audio_video": ["text", "audio", "video"]}
PRODUCT = (1920, 1024, 1024)  # rows, inner and outer size of the product that is the limit
PLAIN = "plain, float32"
INT8 = "int8 (onnxruntime)"
PRODUCTS = "products of "  # what multiplies matrices in a way to compute: it cannot be faster, whatever the rest takes
# What is measured, in which precision; `plain` first, for the rest are compared with it.
INFERENCE = {
    PLAIN: torch.float32,
    "eager, float32": torch.float32,
    "packed, float32": torch.float32,
    "compiled, float32": torch.float32,
    PRODUCTS + "packed, float32": torch.float32,
    "eager, bfloat16": torch.bfloat16,
    "packed, bfloat16": torch.bfloat16,
    PRODUCTS + "packed, bfloat16": torch.bfloat16,
    INT8: torch.int8,
}
TRAINING = {
    PLAIN: torch.float32,
    "eager, float32": torch.float32,
    "compiled, float32": torch.float32,
    PRODUCTS + "eager, float32": torch.float32,
    "autocast, bfloat16": torch.bfloat16,
    "compiled autocast, bfloat16": torch.bfloat16,
    PRODUCTS + "autocast, bfloat16": torch.bfloat16,
}
MIN_SECONDS = 0.1  # of what is timed at once: what is short is called so often that what ran before it hardly counts


def import_plain() -> type[nn.Module]:
    sys.path.insert(0, str(ROOT / "tests"))
    from plain_umons import PlainUmons

    return PlainUmons


def make_config(modalities: list[str], arguments: argparse.Namespace) -> UmonsConfig:
    return UmonsConfig(
        modalities=modalities,
        vocab_size=arguments.vocab_size,
        hidden_size=arguments.hidden_size,
        intermediate_size=2 * arguments.hidden_size,
        num_hidden_layers=arguments.num_hidden_layers,
        max_text_length=arguments.length,
        max_audio_length=arguments.length,
        max_video_length=arguments.length,
        num_labels=6,
        problem_type="multi_label_classification",
    )


def make_models(modalities: list[str], arguments: argparse.Namespace) -> tuple[nn.Module, nn.Module]:
    """The model of the recipe and the plain one, with the same random weights."""
    config = make_config(modalities, arguments)
    torch.manual_seed(0)
    model = UmonsForSequenceClassification(config).eval()
    plain = import_plain()(config).eval()
    plain.load_state_dict(model.state_dict())
    return model, plain


def make_batch(config: UmonsConfig, lengths: dict[str, np.ndarray]) -> dict:
    """Random inputs of rows with these lengths, by modality, padded to the longest."""
    rng = torch.Generator().manual_seed(0)
    names = {"text": ("input_ids", "attention_mask")}
    names |= {"audio": ("input_features", "input_features_mask"), "video": ("video_features", "video_features_mask")}
    sizes = {"audio": config.audio_feature_size, "video": config.video_feature_size}
    batch = {}
    for modality in config.modalities:
        rows = torch.as_tensor(np.asarray(lengths[modality]))
        mask = torch.arange(int(rows.max())) < rows[:, None]
        if modality == "text":
            values = torch.randint(2, config.vocab_size, mask.shape, generator=rng) * mask
        else:
            values = torch.rand(*mask.shape, sizes[modality], generator=rng) * mask[..., None]
        batch |= dict(zip(names[modality], (values, mask.long()), strict=True))
    return batch


def pad_batch(batch: dict, length: int) -> dict:
    """The same with more padding: (B, T, ...) to (B, length, ...)."""
    return {
        name: nn.functional.pad(value, (0, 0) * (value.ndim - 2) + (0, length - value.shape[1]))
        for name, value in batch.items()
    }


def full_batch(config: UmonsConfig, batch: int, length: int | None = None) -> dict:
    lengths = {m: np.full(batch, length or config.length_limit(m)) for m in config.modalities}
    return make_batch(config, lengths)


class ClipBatches(torch.utils.data.Dataset):
    """Batches of clips as a model of text and audio takes them, each read when it is asked for; with twenty words said, if it takes so many."""

    def __init__(self, paths: list[Path], batch_size: int, length: int):
        self.paths, self.batch_size, self.length = paths, batch_size, length
        self.extractor = UmonsFeatureExtractor()

    def __len__(self) -> int:
        return -(-len(self.paths) // self.batch_size)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        if index >= len(self):
            raise IndexError(index)
        paths = self.paths[index * self.batch_size : (index + 1) * self.batch_size]
        clips = [read_clip(path, video=False) for path in paths]
        frames = self.extractor([clip.audio for clip in clips], clips[0].sampling_rate, return_tensors="pt")
        words = torch.ones(len(clips), min(20, self.length), dtype=torch.long)
        inputs = {"input_ids": 2 * words, "attention_mask": words, **frames}
        return {name: value[:, : self.length] for name, value in inputs.items()}


def to_dtype(batch: dict, dtype: torch.dtype) -> dict:
    return {name: value.to(dtype) if value.is_floating_point() else value for name, value in batch.items()}


def count_flops(plain: nn.Module, batch: dict, training: bool = False) -> float:
    """Of the plain model. Those of the LSTM, which the counter does not know, by formula: 8 D (E + D) for each word."""
    if training:
        batch = batch | {"labels": torch.zeros(len(batch["attention_mask"]), plain.config.num_labels)}
    with torch.set_grad_enabled(training), FlopCounterMode(display=False) as counter:
        result = plain(**batch)
        if training:
            result.backward()
    plain.zero_grad()
    config = plain.config
    lstm = 8 * batch["input_ids"].numel() * config.hidden_size * (config.word_embedding_size + config.hidden_size)
    return counter.get_total_flops() + lstm * (3 if training else 1)


PEAK = """
import json, sys; sys.path.insert(0, {folder!r})
import benchmark_cases; benchmark_cases.print_peak(json.loads({options!r}))
"""


def measure_peak(modalities: str, batch: int, mode: str, name: str, arguments: argparse.Namespace) -> float:
    """What a process of its own holds at most while it computes, beyond what it held when all was imported; in bytes."""
    options = {"modalities": modalities, "batch": batch, "mode": mode, "name": name}
    options |= {key: getattr(arguments, key) for key in ("hidden_size", "num_hidden_layers", "vocab_size", "length")}
    options["num_threads"] = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder:
        if name == INT8:  # whoever answers with it has it in a file
            options["graph"] = str(Path(folder) / "int8.onnx")
            export_int8(make_models(MODALITIES[modalities], arguments)[0], options["graph"])
        code = PEAK.format(folder=str(Path(__file__).parent), options=json.dumps(options))
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def print_peak(options: dict):
    def read(name: str) -> int:  # not of `getrusage`, which knows the process that started this one
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))

    arguments = argparse.Namespace(**options)
    torch.set_num_threads(arguments.num_threads)
    import_plain()
    if arguments.name == INT8:
        import onnxruntime  # noqa: F401
    torch.ones(64, 64) @ torch.ones(64, 64)  # libraries take their buffers now
    before = read("VmRSS")
    modalities = MODALITIES[arguments.modalities]
    batch = full_batch(make_config(modalities, arguments), arguments.batch)
    make = make_inference if arguments.mode == "inference" else make_step
    with torch.inference_mode(arguments.mode == "inference"):
        if arguments.name == INT8:
            call = open_int8(arguments.graph, batch)
        else:
            call = make(arguments.name, *make_models(modalities, arguments), batch)
        for _ in range(2):
            call()
    print(read("VmHWM") - before)


class Turns:
    """Seconds of several calls, in turns within each round, as often within a turn as it takes to be measurable."""

    def __init__(self, measure: Callable, repeats: int):
        self.measure, self.repeats = measure, repeats

    def __call__(self, calls: dict[str, Callable[[], object]]) -> dict[str, list[float]]:
        counts = {}
        for name, call in calls.items():
            call()
            began = time.perf_counter()
            call()
            counts[name] = max(1, int(np.ceil(MIN_SECONDS / max(time.perf_counter() - began, 1e-6))))

        def several(call: Callable, count: int) -> Callable:
            return lambda: [call() for _ in range(count)] and None

        seconds = self.measure(self.repeats, *(several(call, counts[name]) for name, call in calls.items()))
        return {name: [s / counts[name] for s in times] for name, times in zip(calls, seconds, strict=True)}


def products() -> dict[str, Callable]:
    """The limit: the product of two matrices, in each precision."""
    rows, inner, outer = PRODUCT
    a, b = torch.randn(rows, inner), torch.randn(inner, outer)
    a16, b16 = a.bfloat16(), b.bfloat16()
    return {"product, float32": lambda: a @ b, "product, bfloat16": lambda: a16 @ b16}


PRODUCT_OF = {torch.float32: "product, float32", torch.bfloat16: "product, bfloat16"}


# ---- ways to compute ----


def export_int8(model: nn.Module, path: str | Path):
    """A graph with int8 weights, word vectors as they are. Raises ImportError where there is no onnxruntime."""
    from modeling_umons.export import onnx as onnx_export

    with tempfile.TemporaryDirectory() as folder:
        graph = Path(folder) / "model.onnx"
        graph.write_bytes(onnx_export.export_onnx(model).SerializeToString())
        onnx_export.quantize_int8(graph, path, word_vectors=False)


def open_int8(path: str | Path, batch: dict) -> Callable[[], torch.Tensor]:
    from modeling_umons.export import onnx as onnx_export

    session = onnx_export.make_session(path, torch.get_num_threads())
    return lambda batch=batch: torch.from_numpy(onnx_export.run(session, batch))


def make_int8(model: nn.Module, batch: dict) -> Callable[[], torch.Tensor]:
    with tempfile.TemporaryDirectory() as folder:
        export_int8(model, Path(folder) / "int8.onnx")
        return open_int8(Path(folder) / "int8.onnx", batch)


MATRIX_OPERATORS = {
    *("aten::linear", "aten::matmul", "aten::scaled_dot_product_attention", "aten::lstm", "mkldnn::_linear_pointwise"),
    # What those are made of, which is what one sees where gradients are wanted.
    *("aten::addmm", "aten::mm", "aten::bmm", "aten::mkldnn_rnn_layer", "aten::mkldnn_rnn_layer_backward"),
}


class MatrixOperators(TorchDispatchMode):
    """
    Notes what multiplies matrices among the operators that are called under it, and of what. In inference activations of
    one shape become one tensor, which lies in the cache as no model's could, so that what is noted is computed as fast as
    it can be. In training most are of two dimensions, like the weights, and are left apart.
    """

    def __init__(self):
        super().__init__()
        self.calls: list[tuple[Callable, tuple, dict]] = []
        self.activations: dict[tuple, torch.Tensor] = {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function.name().split(".")[0] in MATRIX_OPERATORS:
            self.calls.append((function, *tree_map_only(torch.Tensor, self.share, (args, kwargs))))
        return function(*args, **kwargs)

    def share(self, value: torch.Tensor) -> torch.Tensor:
        if value.layout != torch.strided or value.ndim < 3:  # a weight, or what may be one
            return value
        return self.activations.setdefault((value.shape, value.stride(), value.dtype), value)


def only_products(call: Callable) -> Callable[[], None]:
    """The products of a call, one after the other."""
    with MatrixOperators() as operators:
        call()

    def compute():
        with torch.no_grad():
            for function, args, kwargs in operators.calls:
                function(*args, **kwargs)

    return compute


def make_inference(name: str, model: nn.Module, plain: nn.Module, batch: dict) -> Callable[[], torch.Tensor]:
    """What gives the logits of the batch, or of another one, in this way."""
    if name.startswith(PRODUCTS):
        return only_products(make_inference(name.removeprefix(PRODUCTS), model, plain, batch))
    if name == PLAIN:
        return lambda batch=batch: plain(**batch)
    if name == INT8:
        return make_int8(model, batch)
    dtype = INFERENCE[name]
    model = copy.deepcopy(model).to(dtype)
    if name.startswith("packed"):
        model = pack_linears(model, batch["input_ids"].numel())
    elif name.startswith("compiled"):
        model = torch.compile(model)
    return lambda batch=batch: model(**to_dtype(batch, dtype)).logits


def make_step(name: str, model: nn.Module, plain: nn.Module, batch: dict) -> Callable[[], None]:
    """What does one step of training in this way: the recipe's Adam, and of ours what Trainer has, fused."""
    if name.startswith(PRODUCTS):
        return only_products(make_step(name.removeprefix(PRODUCTS), model, plain, batch))
    is_plain = name == PLAIN
    trained = copy.deepcopy(plain if is_plain else model).train()
    # Adam and AdamW are the same without weight decay.
    options = {"lr": 1e-4, "weight_decay": 0.0}
    optimizer = (torch.optim.Adam if is_plain else torch.optim.AdamW)(
        trained.parameters(), **options, **({} if is_plain else {"fused": True})
    )
    forward = torch.compile(trained) if name.startswith("compiled") else trained
    is_half = TRAINING[name] == torch.bfloat16

    def step(batch: dict = batch):
        labels = torch.ones(len(batch["attention_mask"]), trained.config.num_labels)
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=is_half):
            outputs = forward(**batch, labels=labels)
        (outputs if is_plain else outputs.loss).backward()
        optimizer.step()

    return step
