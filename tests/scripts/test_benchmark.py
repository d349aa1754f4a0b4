# Copyright 2026 The modeling_umons authors.
# SPDX-License-Identifier: MIT
"""scripts/benchmark.py as a user runs it, on little. How long things take is not tested."""

import argparse
import json
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from datasets import Dataset
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from modeling_umons import build_tokenizer
from modeling_umons.data.collator import ArrowRows, UtteranceCollator
from modeling_umons.tasks.task import make_task


LITTLE = ("--repeats", "1", "--num_files", "3", "--num_videos", "1", "--num_clips", "2")


def run(root: Path, *arguments) -> subprocess.CompletedProcess:
    command = [sys.executable, "-W", "error", "scripts/benchmark.py"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*command, *map(str, arguments)], cwd=root, env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def clips(root, tmp_path_factory) -> Path:
    """A handful of the sample's."""
    folder = tmp_path_factory.mktemp("clips")
    for name in ("000.mp4", "001.mp4", "002.mp4"):
        shutil.copy(root / "hub" / "sample" / "clips" / name, folder)
    return folder


@pytest.fixture(scope="module")
def result(root, clips, tmp_path_factory) -> tuple[subprocess.CompletedProcess, Path]:
    output = tmp_path_factory.mktemp("benchmarks") / "new" / "folder"
    return run(root, "media", "--audio_dir", clips, "--clip_dir", clips, *LITTLE, "--output", output), output


def test_media_runs(result):
    process, output = result
    assert process.returncode == 0, process.stderr
    assert process.stderr == ""
    assert {path.name for path in output.iterdir()} == {"media.md", "media.json", "media.png"}


def test_media_markdown(result, root):
    process, output = result
    markdown = (output / "media.md").read_text()
    assert markdown.startswith(process.stdout.rstrip())
    assert "![Where the time goes](media.png)" in markdown
    assert str(root) not in markdown
    rows = [line.split(" | ") for line in markdown.splitlines() if line.startswith("| ")]
    assert [row[0].strip("| ") for row in rows] == [
        "What", "log-mel, one by one", "log-mel, as one list", "video tower",
        "Stage", "decode", "log-mel", "cut clips", "video tower", "model",
    ]  # fmt: skip
    assert {len(row) for row in rows[:4]} == {5}
    assert {len(row) for row in rows[4:]} == {3}


def test_media_json(result):
    contents = json.loads((result[1] / "media.json").read_text())
    assert contents["benchmark"] == "media"
    assert contents["machine"].keys() == {
        "cpu", "cores", "threads", "load", "system", "python", "torch", "transformers",
    }  # fmt: skip
    tower = contents["comparisons"][-1]
    assert tower["name"] == "video tower"
    assert tower["count"] == 2
    assert tower["ratio"] == pytest.approx(tower["reference"][0] / tower["ours"][0])
    assert [len(times) for times in contents["stages"].values()] == [1] * 5
    assert all(seconds > 0 for times in contents["stages"].values() for seconds in times)
    figures = contents["figures"]
    assert figures["video tower: smallest cosine of a clip to itself in float32 (aim 0.999)"] >= 0.999
    assert 0 < figures["whole clip: share of decoding (aim 0.25 or less)"] < 1


def test_media_is_compared_with_librosa_or_says_why_not(result):
    contents = json.loads((result[1] / "media.json").read_text())
    try:
        import librosa  # noqa: F401
    except ImportError:
        assert "librosa is not installed" in " ".join(contents["remarks"])
        assert contents["comparisons"][0]["ratio"] is None
    else:
        assert contents["figures"]["log-mel: largest difference from librosa"] < 1e-4
        assert contents["comparisons"][0]["ratio"] > 0


def test_media_plot(result):
    with Image.open(result[1] / "media.png") as image:
        image.load()
        assert image.size == (500, 200)
        assert len(image.getcolors(100_000)) > 10


def test_data(root, tmp_path):
    little = ("--repeats", "1", "--num_rows", "70", "--num_frames", "3", "--num_words", "2", "--batch_size", "32")
    process = run(root, "data", *little, "--output", tmp_path)
    assert process.returncode == 0, process.stderr
    assert process.stderr == ""
    markdown = (tmp_path / "data.md").read_text()
    assert markdown.startswith(process.stdout.rstrip())
    assert "70 rows of 3 x 80 and 3 x 512 float32 and 2 words" in markdown
    contents = json.loads((tmp_path / "data.json").read_text())
    assert [comparison["name"] for comparison in contents["comparisons"]] == [
        "ParquetStream, shuffled", "ArrowRows, shuffled",
    ]  # fmt: skip
    for comparison in contents["comparisons"]:
        assert comparison["count"] == 70
        assert comparison["ratio"] == pytest.approx(comparison["reference"][0] / comparison["ours"][0])
    assert list(contents["stages"]) == ["read and shuffle", "words to ids", "pad features"]
    assert min(contents["figures"].values()) > 0
    assert len(contents["figures"]) == 3
    with Image.open(tmp_path / "data.png") as image:
        image.load()
        assert image.size == (500, 200)


def test_the_reference_of_data_makes_the_same_batches(root, tmp_path):
    """Else the comparison were of nothing."""
    benchmark = runpy.run_path(str(root / "scripts" / "benchmark.py"))
    benchmark["write_utterances"](tmp_path, 5, 3, 4)
    tokenizer = build_tokenizer(benchmark["VOCABULARY"])
    collator = UtteranceCollator(["text", "audio", "video"], tokenizer, make_task("sentiment"))
    dataset = Dataset(pq.read_table(tmp_path / "train.parquet"))
    ours = collator(ArrowRows(dataset)[:])
    reference = benchmark["collate_tensors"](tokenizer, list(dataset.with_format("torch")))
    assert ours.keys() == reference.keys()
    for name, value in ours.items():
        torch.testing.assert_close(value, reference[name], rtol=0, atol=0)


TINY = ("--hidden_size", 16, "--num_hidden_layers", 2, "--vocab_size", 50, "--length", 8, "--num_rows", 70)


@pytest.fixture(scope="module")
def model_output(root, tmp_path_factory) -> tuple[subprocess.CompletedProcess, Path]:
    output = tmp_path_factory.mktemp("model")
    parts = ("recipe", "epoch", "scaling", "processor")
    chosen = ("--batch", 2, "--variants", "packed", "eager", "products", "--repeats", 1, "--num_batches", 1)
    return run(root, "model", *TINY, "--part", *parts, *chosen, "--output", output), output


def test_model(model_output):
    process, output = model_output
    assert process.returncode == 0, process.stderr
    assert process.stderr == ""
    assert {path.name for path in output.iterdir()} == {"model.md", "model.json", "model.png"}
    markdown = (output / "model.md").read_text()
    assert markdown.startswith(process.stdout.rstrip())
    for part in ("## Aims", "## Every case", "| words to ids (20 each) |", "![What an utterance costs](model.png)"):
        assert part in markdown
    with Image.open(output / "model.png") as image:
        image.load()
        assert len(image.getcolors(100_000)) > 10


def test_model_json(model_output):
    contents = json.loads((model_output[1] / "model.json").read_text())
    cases = contents["cases"]
    assert [(case["modalities"], case["mode"], case["name"]) for case in cases] == [
        (modalities, mode, name)
        for modalities in ("text_audio", "text_audio_video")
        for mode, names in (
            (
                "inference",
                (
                    *("plain, float32", "eager, float32", "packed, float32", "products of packed, float32"),
                    *("eager, bfloat16", "packed, bfloat16", "products of packed, bfloat16"),
                ),
            ),
            (
                "training",
                ("plain, float32", "eager, float32", "products of eager, float32", "products of autocast, bfloat16"),
            ),
        )
        for name in names
    ]
    for case in cases:
        assert case["ratio"] == pytest.approx(case["plain"][0] / case["seconds"][0])
        assert case["flops"] > 0
        if case["mode"] == "inference" and not case["name"].startswith("products"):
            assert case["difference"] < (2e-2 if "bfloat16" in case["name"] else 1e-5)
    assert set(contents["curves"]) == {"rows of a batch", "words, and frames", "threads", "workers that read clips"}
    for lines in contents["curves"].values():
        assert all(cost > 0 for points in lines.values() for _, cost in points)


@pytest.fixture
def benchmark_cases(root, monkeypatch):
    monkeypatch.syspath_prepend(str(root / "scripts"))
    import benchmark_cases

    return benchmark_cases


@pytest.fixture
def tiny() -> argparse.Namespace:
    return argparse.Namespace(hidden_size=16, num_hidden_layers=3, vocab_size=50, length=8)


@pytest.mark.parametrize("modalities", [["text", "audio"], ["text", "audio", "video"], ["audio", "video"]], ids=len)
def test_the_plain_model_is_the_model(benchmark_cases, tiny, modalities):
    """Of rows that are padded to the full length, and for the model only to the longest of them."""
    model, plain = benchmark_cases.make_models(modalities, tiny)
    lengths = {modality: np.array([3, 1, 5]) + i for i, modality in enumerate(modalities)}
    short = benchmark_cases.make_batch(model.config, lengths)
    full = benchmark_cases.pad_batch(short, 8)
    labels = torch.tensor([[0.0, 1, 0, 1, 1, 0]] * 3)
    expected = plain(**full)
    torch.testing.assert_close(model(**short).logits, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(model(**full).logits, expected, rtol=0, atol=1e-5)
    model(**short, labels=labels).loss.backward()
    plain(**full, labels=labels).backward()
    gradients = dict(model.named_parameters())
    for name, parameter in plain.named_parameters():
        torch.testing.assert_close(gradients[name].grad, parameter.grad, rtol=1e-3, atol=1e-6, msg=name)


def test_flops_are_counted(benchmark_cases, tiny):
    """Of a model small enough to count by hand: what depends on the batch is twice as much for twice as many rows."""
    model, plain = benchmark_cases.make_models(["text", "audio"], tiny)
    one, two = (benchmark_cases.count_flops(plain, benchmark_cases.full_batch(model.config, n)) for n in (1, 2))
    assert two == 2 * one
    d, t, layers = 16, 8, 3
    linear = (4 + 4 + 4 + 4) * d * d * t  # text: self and mlp; audio besides: cross
    linear += 4 * d * d * t
    attention = 3 * 2 * t * t * d
    glimpses = 2 * (2 * d * d + 2 * d * t) * t
    head = 2 * ((2 * d * d + 2 * d) * t + 2 * d * d) + 2 * d * 6
    front = 80 * d * t + 4 * d * (300 + d) * t
    assert one == 2 * (layers * (linear + attention) + (layers - 1) * glimpses + head + front)


@pytest.mark.parametrize("mode", ["inference", "training"])
def test_products_alone_are_all_products(benchmark_cases, tiny, mode):
    """As many FLOPs as the plain model's, and those of its glimpses, which it does not compute as products."""
    model, plain = benchmark_cases.make_models(["text", "audio"], tiny)
    model.set_attn_implementation("eager")  # the counter does not know PyTorch's own on a CPU
    batch = benchmark_cases.full_batch(model.config, 2)
    is_training = mode == "training"
    make = benchmark_cases.make_step if is_training else benchmark_cases.make_inference
    with torch.inference_mode(not is_training):
        compute = make("products of eager, float32", model, plain, batch)
    with FlopCounterMode(display=False) as counter:
        compute()
    with FlopCounterMode(display=False) as plain_counter, torch.set_grad_enabled(is_training):
        result = plain(**batch, labels=torch.zeros(2, 6))
        if is_training:
            result.backward()
    d, t, layers, rows = 16, 8, 3, 2
    glimpses = 2 * rows * (2 * (layers - 1) * t + 2) * t * d
    assert counter.get_total_flops() == plain_counter.get_total_flops() + glimpses * (3 if is_training else 1)


def test_aims_show_what_products_allow(root, monkeypatch):
    monkeypatch.syspath_prepend(str(root / "scripts"))
    import benchmark_model

    def case(name: str, dtype: torch.dtype, seconds: float, difference: float | None = None):
        times = {"seconds": [seconds], "product": [0.1], "plain": [12.0]}
        return benchmark_model.Case("text_audio", 1, "inference", name, dtype, 1e9, **times, difference=difference)

    cases = [
        case("plain, float32", torch.float32, 12.0),
        case("packed, bfloat16", torch.bfloat16, 6.0, 1e-2),
        case("products of packed, bfloat16", torch.bfloat16, 4.0),
        case("products of packed, float32", torch.float32, 8.0),
        case("int8 (onnxruntime)", torch.int8, 3.0, 3e-2),  # not the same answers
    ]
    (aim,) = benchmark_model.recipe_aims(cases)
    assert aim == ("inference, batch 1, answers to 2e-2", ">= 2.5 x", 2.0, "packed, bfloat16", 3.0)
    cases[-1].difference = 1e-2
    (aim,) = benchmark_model.recipe_aims(cases)
    assert (aim.reached, aim.name, aim.bound) == (4.0, "int8 (onnxruntime)", None)


@pytest.mark.parametrize(
    ("mode", "name", "copies"),
    [
        ("training", "eager, float32", 4),  # the weights, their gradient and Adam's two means
        ("inference", "int8 (onnxruntime)", 1),
    ],
)
def test_memory_is_measured(benchmark_cases, tiny, mode, name, copies):
    """In a process of its own, as elsewhere what was freed before is taken again: at least the word vectors, in float32."""
    tiny.vocab_size = 50_000
    peak = benchmark_cases.measure_peak("text_audio", 2, mode, name, tiny)
    assert copies * 4 * 50_000 * 300 < peak < 1e9


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["media", "--audio_dir", "none"], "error: none holds no clips or sound files"),
        (["media", "--repeats", "0"], "--repeats is 0: it must be at least 1"),
    ],
)
def test_wrong_arguments(root, arguments, message):
    process = run(root, *arguments)
    assert process.returncode != 0
    assert message in process.stderr
    assert "Traceback" not in process.stderr


def test_without_librosa(root, clips, tmp_path):
    """A module that is None in `sys.modules` cannot be imported."""
    code = (
        "import runpy, sys; sys.modules['librosa'] = None; sys.argv = ['benchmark.py', *sys.argv[1:]];"
        "runpy.run_path('scripts/benchmark.py', run_name='__main__')"
    )
    arguments = ["media", "--audio_dir", clips, "--clip_dir", clips, *LITTLE, "--num_clips", "1"]
    process = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], cwd=root, capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stderr
    assert "librosa is not installed, so log-mel features were compared with nothing." in process.stdout
    assert "| log-mel, one by one |" in process.stdout
    assert "| not there | - |" in process.stdout
