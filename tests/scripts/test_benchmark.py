"""Tests of scripts/benchmark.py in tiny sizes; speed itself is not tested."""

import json
import runpy
from functools import partial

import pytest
import torch
from PIL import Image

from modeling_umons import build_tokenizer
from modeling_umons.data.collator import ArrowRows, UtteranceCollator
from modeling_umons.tasks.task import make_task


@pytest.fixture
def run(run_script):
    return partial(run_script, "benchmark.py")


@pytest.fixture(scope="module")
def benchmark(root) -> dict:
    return runpy.run_path(str(root / "scripts" / "benchmark.py"))


def test_benchmark_writes_report(run, root, tmp_path):
    options = ("--small", "--repeats", 1, "--num_files", 2, "--num_clips", 1, "--output", tmp_path / "new" / "folder")
    process = run("media", "data", "model", *options)
    assert process.returncode == 0, process.stderr
    assert "Warning" not in process.stderr
    output = tmp_path / "new" / "folder"
    markdown = (output / "benchmark.md").read_text()
    assert markdown.startswith(process.stdout.rstrip())
    assert str(root) not in markdown
    content = json.loads((output / "benchmark.json").read_text())
    assert list(content["parts"]) == ["media", "data", "model"]
    measurements = [m for of_part in content["parts"].values() for m in of_part]
    assert {"decoding", "shuffled batches of 32", "training, real lengths, bfloat16"} <= {
        m["name"] for m in measurements
    }
    for m in measurements:
        assert m["speed_up"] == pytest.approx(m["baseline_seconds"][0] / m["seconds"][0])
        assert f"| {m['name']} | " in markdown
        if m["max_difference"] is not None:
            assert m["max_difference"] < (2e-2 if "bfloat16" in m["name"] else 1e-4)
    with Image.open(output / "benchmark.png") as image:
        image.load()
        assert len(image.getcolors(100_000)) > 10


def test_benchmark_data_baseline_makes_the_same_batch(benchmark):
    dataset = benchmark["make_dataset"](5, num_frames=3, num_words=4)
    tokenizer = build_tokenizer([f"w{i}" for i in range(1000)])
    ours = UtteranceCollator(["text", "audio", "video"], tokenizer, make_task("sentiment"))(ArrowRows(dataset)[:])
    baseline = benchmark["collate_tensors"](tokenizer, list(dataset.with_format("torch")))
    assert ours.keys() == baseline.keys()
    for name, value in ours.items():
        torch.testing.assert_close(value, baseline[name], rtol=0, atol=0)


def test_plain_model_matches_model(benchmark):
    """Compare logits, loss and gradients; the plain model's batch is padded to the full length."""
    model, plain = benchmark["make_models"](small=True)
    short = benchmark["make_batch"](model.config, torch.tensor([[3, 4], [1, 2], [5, 6]]).numpy())
    full = benchmark["pad_batch"](short, 60)
    labels = torch.tensor([[0.0, 1, 0, 1, 1, 0]] * 3)
    expected = plain(**full)
    torch.testing.assert_close(model(**short).logits, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(model(**full).logits, expected, rtol=0, atol=1e-5)
    model(**short, labels=labels).loss.backward()
    plain(**full, labels=labels).backward()
    gradients = dict(model.named_parameters())
    for name, parameter in plain.named_parameters():
        torch.testing.assert_close(gradients[name].grad, parameter.grad, rtol=1e-3, atol=1e-6, msg=name)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["media", "--clip_dir", "none"], "error: none contains no clips or audio files"),
        (["media", "--repeats", "0"], "--repeats is 0; it must be at least 1"),
        (["nothing"], "unknown part(s) nothing; choose from media, data, model, serve, start"),
    ],
)
def test_benchmark_rejects_wrong_arguments(run, arguments, message):
    process = run(*arguments)
    assert process.returncode != 0
    assert message in process.stderr
    assert "Traceback" not in process.stderr
