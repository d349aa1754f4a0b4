#!/usr/bin/env python
"""Check the models on a GPU and measure their speed. Requires no network; the result is one JSON.

    python scripts/check_gpu.py --output docs/benchmarks/gpu.json
    python scripts/check_gpu.py parity syncs --time_budget 60
    python scripts/check_gpu.py --device cpu --small

phases:
  machine    names and versions; rates of a large matrix product and of a large copy
  parity     logits of the CPU against those of the GPU, in float32 and bfloat16
  attention  kernels of scaled dot product attention, with and without masks, against float32
  syncs      operations in training steps and inference that wait for the GPU; there must be none
  training   rows/s and model FLOP utilisation (MFU) of training steps, peak memory and memory traffic
  inference  rows/s of the models with extracted features
  compiled   graph breaks, logits and speed of compiled training and inference
  trainer    `UmonsTrainer` with workers, pinned memory and asynchronous copies
  towers     clips/s of the video tower, windows/s of the audio encoder
  pipeline   rows/s of the pipeline of umons-mini with and without workers

Random weights: the paper's sizes (text and audio) and the sizes of umons-base (MiniLM, Whisper tiny, a block of 256).
A phase prints its result when it ends; its failure does not end the others. The exit status is 1 if a check failed.
"""

import argparse
import gc
import itertools
import json
import logging
import platform
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertConfig, WhisperConfig

from modeling_umons import UmonsConfig, UmonsForSequenceClassification
from modeling_umons.tasks.losses import TaskLoss
from modeling_umons.tasks.task import make_task
from modeling_umons.training.augmentation import Augmentation
from modeling_umons.utils.files import write_atomically


ROOT = Path(__file__).resolve().parent.parent
# bfloat16 without sparsity, FLOP/s, from the data sheets.
PEAK_FLOPS = {"H100": 989.4e12, "H200": 989.4e12, "A100": 312e12, "L4": 121e12}
AUDIO_STEPS = 250  # 5 s of Whisper's output
TIGHT, LOOSE = 1e-4, 3e-2  # maximum relative differences in float32 and bfloat16


class Settings(argparse.Namespace):
    """Command line."""

    device: torch.device
    small: bool
    deadline: float
    compile_mode: str

    @property
    def is_cuda(self) -> bool:
        return self.device.type == "cuda"

    def has_time(self, seconds: float) -> bool:
        return time.monotonic() + seconds < self.deadline


def make_config(name: str, small: bool) -> UmonsConfig:
    """Return the configuration of `paper`, `paper_video` or `base`, for the joint task."""
    options: dict[str, Any] = {"vocab_size": 14_000, **make_task("joint").config_options()}
    if small:
        sizes = {"vocab_size": 50, "word_embedding_size": 8, "hidden_size": 16, "intermediate_size": 32}
        options |= {**sizes, "num_hidden_layers": 2}
    if name == "paper":
        return UmonsConfig(modalities=["text", "audio"], **options)
    if name == "paper_video":
        return UmonsConfig(modalities=["text", "audio", "video"], **options)
    layers, size = (1, 16) if small else (6, 384)
    sizes = {"hidden_size": size, "num_hidden_layers": layers, "intermediate_size": 4 * size}
    text = BertConfig(vocab_size=50 if small else 30_522, num_attention_heads=size // 32 or 1, **sizes)
    audio = WhisperConfig(
        d_model=size, encoder_layers=min(layers, 4), encoder_attention_heads=size // 64 or 1, encoder_ffn_dim=4 * size,
        decoder_layers=1, decoder_attention_heads=size // 64 or 1, max_source_positions=1500,
    )  # fmt: skip
    if not small:
        options |= {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 1, "vocab_size": 30_522}
    return UmonsConfig(
        modalities=["text", "audio"], text_encoder=text, audio_encoder=audio, audio_feature_size=size,
        audio_sampling_rate=16_000, max_text_length=128, max_audio_length=1500, **options,
    )  # fmt: skip


def make_model(name: str, small: bool) -> UmonsForSequenceClassification:
    torch.manual_seed(0)
    return UmonsForSequenceClassification(make_config(name, small)).eval()


def make_batch(config: UmonsConfig, num_rows: int, padded: bool = True, seed: int = 0) -> dict[str, torch.Tensor]:
    """
    Build random inputs and labels of `joint`. Padded rows have at least half of the longest length, some lack their
    audio, and some labels are unknown.
    """
    generator = torch.Generator().manual_seed(seed)
    batch = {}
    for modality in config.modalities:
        length = 60 if modality == "text" or config.encoder_of(modality) is None else AUDIO_STEPS
        lengths = torch.full((num_rows,), length)
        if padded:
            lengths = torch.randint(length // 2, length + 1, (num_rows,), generator=generator)
            lengths[0] = length
            if modality != "text":
                lengths[1::7] = 0
        mask = torch.arange(length) < lengths[:, None]
        name = config.sequence_name(modality)
        if modality == "text":
            batch[name] = torch.randint(2, config.vocab_size, mask.shape, generator=generator) * mask
        else:
            size = {"audio": config.audio_feature_size, "video": config.video_feature_size}[modality]
            batch[name] = torch.rand(*mask.shape, size, generator=generator) * mask[..., None]
        batch["attention_mask" if modality == "text" else f"{name}_mask"] = mask.long()
    labels = torch.randint(0, 2, (num_rows, config.num_labels), generator=generator).float()
    labels[1::5, 0] = torch.nan
    return {**batch, "labels": labels}


def move(batch: dict[str, torch.Tensor], device: torch.device, dtype: torch.dtype | None = None) -> dict:
    """Copy a batch to the device, with features in `dtype`."""
    return {
        name: value.to(device, dtype if dtype and value.is_floating_point() and name != "labels" else None)
        for name, value in batch.items()
    }


def without_labels(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value for name, value in batch.items() if name != "labels"}


def relative_difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    found, expected = found.detach().double().cpu(), expected.detach().double().cpu()
    return ((found - expected).norm() / expected.norm()).item()


def check(result: dict, name: str, passed: bool) -> None:
    result.setdefault("checks", {})[name] = bool(passed)


def seconds_per_call(settings: Settings, call: Callable[[], object], repeats: int = 10, warm_up: int = 3) -> float:
    """Return the median seconds of a call, after a warm-up, by events of the GPU."""
    repeats, warm_up = (2, 1) if settings.small else (repeats, warm_up)
    for _ in range(warm_up):
        call()
    if not settings.is_cuda:
        times = []
        for _ in range(repeats):
            began = time.perf_counter()
            call()
            times.append(time.perf_counter() - began)
        return float(np.median(times))
    events = [torch.cuda.Event(enable_timing=True) for _ in range(repeats + 1)]
    torch.cuda.synchronize()
    events[0].record()
    for event in events[1:]:
        call()
        event.record()
    torch.cuda.synchronize()
    milliseconds = [a.elapsed_time(b) for a, b in itertools.pairwise(events)]
    return float(np.median(milliseconds)) / 1000


@contextmanager
def peak_memory(settings: Settings, result: dict) -> Iterator[None]:
    """Add the peak memory of the block in GB to `result`."""
    if settings.is_cuda:
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    yield
    if settings.is_cuda:
        result["peak_memory_gb"] = round(torch.cuda.max_memory_allocated() / 1e9, 2)


@contextmanager
def record_syncs(settings: Settings) -> Iterator[list[str]]:
    """Collect where the block waits for the GPU: `file:line` of each synchronising call."""
    found: list[str] = []
    if not settings.is_cuda:
        yield found
        return
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield found
        finally:
            torch.cuda.set_sync_debug_mode("default")
    places = [w for w in caught if "synchronizing" in str(w.message)]
    found += sorted({f"{'/'.join(Path(w.filename).parts[-3:])}:{w.lineno}" for w in places})


def count_flops(name: str, small: bool) -> float:
    """Count the floating-point operations of the matrix products of the forward pass of one full row, on the CPU."""
    model = make_model(name, small)
    config = model.config
    batch = without_labels(make_batch(config, 2, padded=False))
    model.set_attn_implementation("eager")  # the counter knows neither the CPU's kernels of attention nor LSTMs
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(**batch)
    flops = counter.get_total_flops() / 2
    if config.text_encoder is None:
        sizes = config.word_embedding_size + config.hidden_size
        flops += 2 * 4 * config.hidden_size * sizes * batch["input_ids"].shape[1]
    return flops


class TrafficCounter(TorchDispatchMode):
    """Sum of the bytes that operations read and write, each with a kernel of its own. Views move none."""

    num_bytes = num_operations = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        output = function(*args, **(kwargs or {}))
        name = function.__name__
        if not (function.is_view or "empty" in name or name.startswith("_unsafe_view")):
            tensors = [value for value in tree_leaves((args, kwargs, output)) if isinstance(value, torch.Tensor)]
            self.num_bytes += sum(tensor.nbytes for tensor in tensors)
            self.num_operations += 1
        return output


def compile_model(settings: Settings, model: UmonsForSequenceClassification, **options):
    """Compile a model for one batch size; in tiny sizes to the graphs only, because generating code takes minutes."""
    backend = "aot_eager" if settings.small else "inductor"
    return torch.compile(model, backend=backend, dynamic=False, mode=settings.compile_mode, **options)


def make_step(settings: Settings, name: str, compiled: bool = False) -> Callable[[dict], torch.Tensor]:
    """Build a training step as in `UmonsTrainer --bf16 true`: autocast, loss of the task and fused Adam."""
    model = make_model(name, settings.small).to(settings.device).train()
    if "audio" in model.model.encoders:  # batches have its features
        model.model.encoders["audio"].requires_grad_(False)
    loss = TaskLoss(make_task("joint"))
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, fused=True)
    run = compile_model(settings, model) if compiled else model

    def step(batch: dict) -> torch.Tensor:
        with torch.autocast(settings.device.type, torch.bfloat16):
            logits = run(**without_labels(batch)).logits
        error = loss(logits, batch["labels"])
        error.backward()
        optimizer.step()
        optimizer.zero_grad()
        return error.detach()

    return step


# --- phases


def check_machine(settings: Settings) -> dict:
    result: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if settings.is_cuda else platform.machine(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    size = 256 if settings.small else 8192
    a, b = (torch.randn(size, size, device=settings.device, dtype=torch.bfloat16) for _ in range(2))
    result["matmul_tflops"] = round(2 * size**3 / seconds_per_call(settings, lambda: a @ b) / 1e12, 1)
    source = torch.randn(size, size * 4, device=settings.device)
    target = torch.empty_like(source)
    seconds = seconds_per_call(settings, lambda: target.copy_(source))
    result["copy_tb_per_s"] = round(2 * source.nbytes / seconds / 1e12, 2)
    return result


@torch.no_grad()
def check_parity(settings: Settings) -> dict:
    result: dict[str, Any] = {}
    for name in ("paper", "paper_video", "base"):
        model = make_model(name, settings.small)
        batch = without_labels(make_batch(model.config, 16))
        expected = model(**batch).logits
        model.to(settings.device)
        single = relative_difference(model(**move(batch, settings.device)).logits, expected)
        with torch.autocast(settings.device.type, torch.bfloat16):
            mixed = relative_difference(model(**move(batch, settings.device)).logits, expected)
        model.to(torch.bfloat16)
        half = relative_difference(model(**move(batch, settings.device, torch.bfloat16)).logits, expected)
        result[name] = {"float32": single, "autocast": mixed, "bfloat16": half}
        check(result, f"{name}_float32", single < TIGHT)
        check(result, f"{name}_bfloat16", max(mixed, half) < LOOSE)
    return result


@torch.no_grad()
def check_attention(settings: Settings) -> dict:
    """Compare kernels at the shapes of the models: heads of 128, 60 steps, and 250 and 1,500 of Whisper."""
    result: dict[str, Any] = {}
    for rows, length in ((2, 20),) if settings.small else ((512, 60), (128, 250), (16, 1500)):
        query, key, value = (torch.randn(rows, 4, length, 128, device=settings.device) for _ in range(3))
        lengths = torch.randint(1, length + 1, (rows,), device=settings.device)
        mask = (torch.arange(length, device=settings.device) < lengths[:, None])[:, None, None].expand(
            rows, 1, length, length
        )
        for is_masked in (False, True):
            options = {"attn_mask": mask if is_masked else None}
            with sdpa_kernel(SDPBackend.MATH):
                expected = scaled_dot_product_attention(query, key, value, **options)
            halves = [x.bfloat16() for x in (query, key, value)]
            for backend in (None, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION,
                            SDPBackend.CUDNN_ATTENTION, SDPBackend.MATH):  # fmt: skip
                if backend == SDPBackend.FLASH_ATTENTION and is_masked and settings.is_cuda:
                    continue  # the kernel takes no masks
                name = f"{length} steps, {'masked' if is_masked else 'full'}, "
                name += "default" if backend is None else backend.name.lower()
                call = partial(scaled_dot_product_attention, *halves, **options)
                try:
                    with sdpa_kernel(backend) if backend else nullcontext():
                        difference = relative_difference(call(), expected)
                        seconds = seconds_per_call(settings, call)
                except RuntimeError as error:
                    result[name] = {"unavailable": str(error).splitlines()[0][:100]}
                    continue
                result[name] = {"difference": difference, "ms": round(1000 * seconds, 4)}
                check(result, name, difference < LOOSE)
    model = make_model("paper", settings.small).to(settings.device)
    batch = move(without_labels(make_batch(model.config, 16)), settings.device)
    logits = model(**batch).logits
    model.set_attn_implementation("eager")
    result["model, sdpa against eager"] = difference = relative_difference(logits, model(**batch).logits)
    check(result, "model, sdpa against eager", difference < TIGHT)
    return result


def check_syncs(settings: Settings) -> dict:
    result: dict[str, Any] = {}
    augment = Augmentation(modality_dropout=0.2, word_dropout=0.1, time_mask=0.2, bin_mask=0.2)
    for name in ("paper", "paper_video", "base"):
        config = make_config(name, settings.small)
        batch = move(make_batch(config, 32), settings.device)
        step = make_step(settings, name)
        step(augment(batch))
        with record_syncs(settings) as found:
            step(augment(batch))
        result[f"{name}, training"] = found
        model = make_model(name, settings.small).to(settings.device)
        with torch.inference_mode():
            model(**without_labels(batch))
            with record_syncs(settings) as found:
                model(**without_labels(batch))
        result[f"{name}, inference"] = found
    for name in ("paper", "paper_video"):
        check(result, name, not result[f"{name}, training"] and not result[f"{name}, inference"])
    # One is accepted: transformers' BERT looks for padding in its mask.
    check(result, "base", max(len(result[f"base, {kind}"]) for kind in ("training", "inference")) <= 1)
    return result


def rates(settings: Settings, num_rows: int, seconds: float, flops_per_row: float) -> dict:
    """Return rows/s and, on a known GPU, the share of its peak."""
    name = torch.cuda.get_device_name() if settings.is_cuda else ""
    peak = next((flops for key, flops in PEAK_FLOPS.items() if key in name), None)
    rate = num_rows / seconds
    result = {"rows_per_s": round(rate), "ms": round(1000 * seconds, 3)}
    result["tflops"] = round(rate * flops_per_row / 1e12, 1)
    return result | ({"mfu": round(rate * flops_per_row / peak, 4)} if peak else {})


def check_training(settings: Settings) -> dict:
    result: dict[str, Any] = {}
    for name in ("paper", "base"):
        config = make_config(name, settings.small)
        flops = 3 * count_flops(name, settings.small)
        result[name] = {"gflop_per_row": round(flops / 1e9, 3)}
        step = make_step(settings, name)
        for num_rows in (4,) if settings.small else (32, 128, 512, 1024):
            batch = move(make_batch(config, num_rows, padded=False), settings.device)
            measured: dict[str, Any] = {}
            with peak_memory(settings, measured):
                measured |= rates(settings, num_rows, seconds_per_call(settings, partial(step, batch)), flops)
            result[name][f"batch {num_rows}"] = measured
        with TrafficCounter() as traffic:
            step(batch)
        measured |= {"traffic_gb": round(traffic.num_bytes / 1e9, 1), "operations": traffic.num_operations}
    return result


def check_trainer(settings: Settings) -> dict:
    """Run `UmonsTrainer` on a table; the steps after the first three must not wait for the GPU."""
    from transformers import TrainerCallback

    from modeling_umons.data.rows import make_collator
    from modeling_umons.training.arguments import AugmentationArguments, RunArguments
    from modeling_umons.training.trainer import UmonsTrainer

    num_rows, batch_size = (32, 4) if settings.small else (16_384, 512)
    config = make_config("paper", settings.small)
    words = [f"w{i}" for i in range(config.vocab_size - 2)]
    processor = make_processor(words)
    rows = make_dataset(num_rows, words)
    task = make_task("joint")
    result: dict[str, Any] = {}

    class Watch(TrainerCallback):
        """Record synchronising calls and the time from the fourth step of a run to the last but one."""

        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 3:
                self.block = record_syncs(settings)
                self.found = self.block.__enter__()
                self.began = time.perf_counter()
            if state.global_step == state.max_steps - 1:
                self.block.__exit__(None, None, None)
                if settings.is_cuda:
                    torch.cuda.synchronize()
                self.rate = (state.max_steps - 4) * batch_size / (time.perf_counter() - self.began)

    for num_workers in (0, 4):
        with tempfile.TemporaryDirectory() as folder:
            run = RunArguments(
                output_dir=folder, per_device_train_batch_size=batch_size, num_train_epochs=1, save_strategy="no",
                eval_strategy="no", load_best_model_at_end=False, report_to="none", disable_tqdm=True, bf16=True,
                dataloader_num_workers=num_workers, use_cpu=not settings.is_cuda, logging_strategy="no",
                dataloader_prefetch_factor=4 if num_workers else None,
            )  # fmt: skip
            model = UmonsForSequenceClassification(config)
            collator = make_collator(processor, config, task)
            splits = {"train": rows, "validation": rows.select(range(batch_size))}
            trainer = UmonsTrainer(model, run, task, splits, collator, AugmentationArguments(), processor)
            trainer.add_callback(watch := Watch())
            trainer.train()
        result[f"{num_workers} workers"] = {"rows_per_s": round(watch.rate), "syncs": watch.found}
        check(result, f"{num_workers} workers, no syncs", not watch.found)
    return result


def make_processor(words: list[str]):
    from modeling_umons import UmonsFeatureExtractor, UmonsProcessor, UmonsVideoProcessor, build_tokenizer

    return UmonsProcessor(build_tokenizer(words), UmonsFeatureExtractor(), UmonsVideoProcessor())


def make_dataset(num_rows: int, words: list[str]):
    """Build a table of random rows of 30 to 60 words and frames; 512 of them, repeated."""
    from datasets import Dataset, concatenate_datasets

    from modeling_umons import EMOTIONS
    from modeling_umons.data.schema import make_features, to_table

    generator = np.random.default_rng(0)
    rows = [
        {
            "segment_id": str(i),
            "text": " ".join(generator.choice(words, generator.integers(30, 61))),
            "audio_features": generator.random((generator.integers(30, 61), 80), dtype=np.float32),
            "sentiment": generator.uniform(-3, 3),
            **{name: float(generator.random() < 0.3) for name in EMOTIONS},
        }
        for i in range(min(num_rows, 512))
    ]
    table = Dataset(to_table(rows, make_features()))
    return concatenate_datasets([table] * (num_rows // len(rows)))


@torch.no_grad()
def measure_compiled_inference(settings: Settings, name: str, num_rows: int, flops: float) -> dict:
    """Compile a model in bfloat16 as one graph. Raises an error for a graph break."""
    model = make_model(name, settings.small).to(settings.device)
    batch = without_labels(make_batch(model.config, num_rows))
    expected = model(**move(batch, settings.device)).logits
    model.to(torch.bfloat16)
    compiled = compile_model(settings, model, fullgraph=True)
    inputs = move(batch, settings.device, torch.bfloat16)
    began = time.perf_counter()
    difference = relative_difference(compiled(**inputs).logits, expected)
    measured = {"compile_s": round(time.perf_counter() - began, 1), "difference": difference}
    return measured | rates(settings, num_rows, seconds_per_call(settings, partial(compiled, **inputs)), flops)


def measure_compiled_training(settings: Settings, name: str, num_rows: int, flops: float) -> dict:
    """Compile a model for training, and measure steps of full rows."""
    full = move(make_batch(make_config(name, settings.small), num_rows, padded=False), settings.device)
    torch._dynamo.utils.counters.clear()
    step = make_step(settings, name, compiled=True)
    began = time.perf_counter()
    step(full)
    measured: dict[str, Any] = {"compile_s": round(time.perf_counter() - began, 1)}
    with peak_memory(settings, measured):
        measured |= rates(settings, num_rows, seconds_per_call(settings, partial(step, full)), 3 * flops)
    with record_syncs(settings) as measured["syncs"]:
        step(full)
    measured["graph_breaks"] = len(torch._dynamo.utils.counters["graph_break"])  # by reason
    return measured


def check_compiled(settings: Settings) -> dict:
    result: dict[str, Any] = {}
    num_rows = 4 if settings.small else 1024
    for name, kind in itertools.product(("paper", "base"), ("training", "inference")):
        if not settings.has_time(40):
            result[f"{name}, {kind}"] = {"skipped": "--time_budget"}
            continue
        torch._dynamo.reset()
        measure = measure_compiled_training if kind == "training" else measure_compiled_inference
        measured = measure(settings, name, num_rows, count_flops(name, settings.small))
        result[f"{name}, {kind}"] = measured
        if kind == "inference":
            check(result, f"{name}, inference in one graph", measured["difference"] < LOOSE)
            continue
        # The LSTM of models with word vectors is outside of the graph on purpose.
        check(result, f"{name}, training graph", measured["graph_breaks"] <= (name == "paper"))
        check(result, f"{name}, no syncs", not measured["syncs"])
    return result


@torch.inference_mode()
def check_inference(settings: Settings) -> dict:
    result: dict[str, Any] = {}
    for name in ("paper", "base"):
        model = make_model(name, settings.small)
        flops = count_flops(name, settings.small)
        result[name] = {}
        model.to(settings.device, torch.bfloat16)
        for num_rows in (4,) if settings.small else (1, 64, 256, 1024):
            batch = without_labels(make_batch(model.config, num_rows))
            batch = move(batch, settings.device, torch.bfloat16)
            measured: dict[str, Any] = {}
            with peak_memory(settings, measured):
                seconds = seconds_per_call(settings, partial(model, **batch))
                measured |= rates(settings, num_rows, seconds, flops)
            result[name][f"batch {num_rows}"] = measured
    return result


@torch.inference_mode()
def check_towers(settings: Settings) -> dict:
    from modeling_umons.models.umons.encoders_umons import CLIPS_AT_ONCE

    result: dict[str, Any] = {}
    torch.manual_seed(0)
    config = UmonsConfig(modalities=["text", "video"], hidden_size=16, intermediate_size=16, num_hidden_layers=1,
                         num_attention_heads=1, video_tower={})  # fmt: skip
    tower = UmonsForSequenceClassification(config).eval().model.video_tower
    num_clips = 1 if settings.small else 64
    clips = torch.randn(num_clips, 16, 3, *((32, 32) if settings.small else (112, 112)))
    expected = tower(clips[:1])
    tower.to(settings.device)
    clips = clips.to(settings.device)
    difference = relative_difference(tower(clips[:1]), expected)
    check(result, "video tower, float32", difference < 10 * TIGHT)
    result["video tower, difference"] = difference
    for dtype in (torch.float32, torch.bfloat16):
        tower.to(dtype)
        if dtype == torch.bfloat16:
            tower.to(memory_format=torch.channels_last_3d)
        for at_once in sorted({min(CLIPS_AT_ONCE, num_clips), num_clips}):
            measured: dict[str, Any] = {}
            network = tower.network
            values = clips.to(dtype).transpose(1, 2)
            with peak_memory(settings, measured):
                call = lambda: [network(some) for some in values.split(at_once)]  # noqa: B023, E731
                seconds = seconds_per_call(settings, call, repeats=5, warm_up=2)
            measured["clips_per_s"] = round(num_clips / seconds)
            result[f"video tower, {str(dtype)[6:]}, {at_once} at once"] = measured
    model = make_model("base", settings.small).to(settings.device, torch.bfloat16)
    num_windows = 1 if settings.small else 64
    windows = torch.randn(num_windows, 80, 3000, device=settings.device, dtype=torch.bfloat16)
    mask = torch.ones(num_windows, 3000, dtype=torch.long, device=settings.device)
    call = partial(model.get_audio_features, input_features=windows, input_features_mask=mask)
    measured = {}
    with peak_memory(settings, measured):
        seconds = seconds_per_call(settings, call, repeats=5, warm_up=2)
    result["Whisper tiny, bfloat16"] = measured | {"windows_of_30_s_per_s": round(num_windows / seconds)}
    return result


def check_pipeline(settings: Settings) -> dict:
    from transformers import pipeline

    generator = np.random.default_rng(0)
    num_rows = 4 if settings.small else 1024
    texts = ["what a wonderful day", "this is the worst film that I have ever seen", "well"]
    inputs = [
        {
            "text": texts[i % 3],
            "audio": {"array": generator.normal(0, 0.1, 22_050 * 3).astype(np.float32), "sampling_rate": 22_050},
        }
        for i in range(num_rows)
    ]
    folder = str(ROOT / "hub" / "umons-mini")
    load = partial(pipeline, "multimodal-emotion-recognition", model=folder)
    expected = load(device="cpu")(inputs[:8])
    recognize = load(device=settings.device)
    found = recognize(inputs[:8], batch_size=4)
    scores = [
        np.array([entry["score"] for result in of for entry in sorted(result["emotions"], key=lambda e: e["label"])])
        for of in (found, expected)
    ]
    result: dict[str, Any] = {"max_difference": float(np.abs(scores[0] - scores[1]).max())}
    check(result, "scores of the CPU", result["max_difference"] < 1e-3)
    for num_workers in (0, 1) if settings.small else (0, 8):
        began = time.perf_counter()
        recognize(inputs, batch_size=64, num_workers=num_workers)
        result[f"{num_workers} workers"] = {"rows_per_s": round(num_rows / (time.perf_counter() - began))}
    return result


PHASES = {
    "machine": (check_machine, 5),
    "parity": (check_parity, 10),
    "attention": (check_attention, 10),
    "syncs": (check_syncs, 10),
    "training": (check_training, 15),
    "inference": (check_inference, 10),
    "compiled": (check_compiled, 40),
    "trainer": (check_trainer, 20),
    "towers": (check_towers, 15),
    "pipeline": (check_pipeline, 20),
}  # with the seconds that are left at least when they start


def run_phase(settings: Settings, name: str) -> dict:
    """Run a phase, and return its result or error."""
    run, seconds = PHASES[name]
    if not settings.has_time(seconds):
        return {"skipped": "--time_budget"}
    began = time.monotonic()
    try:
        result = run(settings)
    except Exception as error:  # the other phases still run
        frames = traceback.extract_tb(error.__traceback__)[-6:]
        places = [f"{'/'.join(Path(f.filename).parts[-3:])}:{f.lineno} {f.name}" for f in frames]
        result = {"error": f"{type(error).__name__}: {error}"[:1500], "places": places}
    finally:
        if settings.is_cuda:
            torch.cuda.set_sync_debug_mode("default")
    checks = result.pop("checks", {})
    return {"seconds": round(time.monotonic() - began, 1), **result, "checks": checks}


def failures(results: dict[str, dict]) -> list[str]:
    """Return the names of failed phases and checks."""
    failed = [name for name, result in results.items() if "error" in result]
    checks = {f"{name}: {key}": ok for name, r in results.items() for key, ok in r.get("checks", {}).items()}
    return failed + [name for name, passed in checks.items() if not passed]


def format_speed(results: dict[str, dict]) -> str:
    """Format rows/s and MFU at the largest batch, eager and compiled."""
    lines = ["rows/s (MFU):"]
    for kind, name in itertools.product(("training", "inference"), ("paper", "base")):
        batches = [run for key, run in results.get(kind, {}).get(name, {}).items() if key.startswith("batch")]
        runs = {"eager": batches[-1:], "compiled": [results.get("compiled", {}).get(f"{name}, {kind}", {})]}
        for mode, run in ((mode, run) for mode, found in runs.items() for run in found if "rows_per_s" in run):
            mfu = f" ({run['mfu']:.1%})" if "mfu" in run else ""
            lines.append(f"  {kind} of {name}, {mode}: {run['rows_per_s']:,}{mfu}")
    return "\n".join(lines)


def parse_arguments() -> Settings:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("phases", nargs="*", metavar="phase", help="phases to run (default: all)")
    add("--device", type=torch.device, default=torch.device("cuda"), help="device (default: %(default)s)")
    add("--time_budget", type=float, default=480, help="seconds after which no phase starts (default: %(default)s)")
    modes = ("default", "reduce-overhead", "max-autotune-no-cudagraphs")
    add("--compile_mode", default="default", choices=modes,
        help="mode of torch.compile (--torch_compile_mode of umons train): reduce-overhead uses CUDA graphs "
        "(default: %(default)s)")  # fmt: skip
    add("--small", action="store_true", help="tiny sizes, to check that the script runs")
    add("--output", type=Path, help="file of the JSON")
    settings = parser.parse_args(namespace=Settings())
    if unknown := sorted(set(settings.phases) - set(PHASES)):
        parser.error(f"unknown phase(s) {', '.join(unknown)}; choose from {', '.join(PHASES)}")
    if settings.is_cuda and not torch.cuda.is_available():
        parser.error("--device cuda: PyTorch finds no GPU; --device cpu --small checks that the script runs")
    settings.deadline = time.monotonic() + settings.time_budget
    return settings


def main() -> None:
    settings = parse_arguments()
    transformers.logging.set_verbosity_error()
    logging.disable(logging.WARNING)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False  # parity is in float32
    results: dict[str, dict] = {}
    for name in PHASES:
        if not settings.phases or name in settings.phases:
            results[name] = run_phase(settings, name)
            print(json.dumps({name: results[name]}), file=sys.stderr, flush=True)
            if settings.output is not None:
                write_atomically(settings.output, json.dumps(results, indent=1) + "\n")
    print(json.dumps(results, indent=1))
    print(format_speed(results), file=sys.stderr)
    failed = failures(results)
    print("failed: " + ", ".join(failed) if failed else "all checks passed", file=sys.stderr)
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
