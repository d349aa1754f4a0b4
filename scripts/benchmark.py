#!/usr/bin/env python
"""Measure the speed of the package as ratios to a baseline, measured in turns within one process.

    python scripts/benchmark.py
    python scripts/benchmark.py media data --repeats 7
    python scripts/benchmark.py model --num_threads 2 --output docs/benchmarks

parts:
  media  decoding and a whole clip against real time, log-mel features against librosa, video tower against torchvision
  data   training batches from Arrow tables against `datasets` with tensors
  model  inference and training of the paper's model against plain PyTorch, with full and with real lengths
  serve  `umons serve` with dynamic batching against one request at a time
  start  cold start of `umons predict --text` against importing torch and transformers, and a pipeline

Times are medians over the rounds; speed-ups are medians of the ratios of each round. The Markdown report is printed;
with --output it is also written to <folder>/benchmark.md, with all rounds in benchmark.json and a plot in
benchmark.png.
"""

import argparse
import copy
import http.client
import importlib.util
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
import transformers
from datasets import Dataset
from torch import nn
from torch.utils.data import DataLoader

from modeling_umons import (
    UmonsConfig,
    UmonsFeatureExtractor,
    UmonsForSequenceClassification,
    UmonsVideoProcessor,
    build_tokenizer,
)
from modeling_umons.data.collator import ArrowRows, UtteranceCollator
from modeling_umons.data.sampling import LengthGroups, combine_lengths
from modeling_umons.data.schema import make_features, to_table
from modeling_umons.inference.packed_linear import pack_linears
from modeling_umons.models.umons.media_umons import read_clip
from modeling_umons.tasks.task import make_task
from modeling_umons.training.fast_dropout import use_fast_dropout


ROOT = Path(__file__).resolve().parent.parent
SAMPLE = ROOT / "hub" / "sample" / "clips"
SUFFIXES = {".avi", ".flac", ".m4a", ".mkv", ".mov", ".mp3", ".mp4", ".mpg", ".ogg", ".wav", ".webm"}
MIN_SECONDS = 0.1  # shorter calls are repeated within a round

# Words and log-mel frames of CMU-MOSEI's utterances at the quantiles 0, 1/8, ..., 1.
LENGTH_QUANTILES = ((1, 9, 12, 15, 18, 21, 26, 33, 60), (1, 18, 24, 29, 34, 41, 49, 60, 60))


@dataclass
class Measurement:
    """Seconds of each round for a piece of work and for its baseline."""

    name: str
    baseline_name: str
    unit: str
    num_units: float  # per round
    seconds: list[float]
    baseline_seconds: list[float]
    max_difference: float | None = None  # of the two results

    @property
    def speed_up(self) -> float:
        return float(np.median(np.divide(self.baseline_seconds, self.seconds)))


def measure_in_turns(calls: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Return the seconds of each call in each round, after a warm-up; every other round runs in reverse order."""
    counts, seconds = {}, {name: [] for name in calls}
    for name, call in calls.items():
        call()
        began = time.perf_counter()
        call()
        counts[name] = max(1, int(np.ceil(MIN_SECONDS / max(time.perf_counter() - began, 1e-6))))
    for i in range(repeats):
        for name in list(calls)[:: 1 if i % 2 else -1]:
            began = time.perf_counter()
            for _ in range(counts[name]):
                calls[name]()
            seconds[name].append((time.perf_counter() - began) / counts[name])
    return seconds


def find_files(folder: Path, limit: int) -> list[Path]:
    """Return at most `limit` clips or audio files, evenly spread over those in the folder."""
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not files:
        raise OSError(f"{folder} contains no clips or audio files ({', '.join(sorted(SUFFIXES))}).")
    return [files[i] for i in np.unique(np.linspace(0, len(files) - 1, min(limit, len(files))).astype(int))]


# --- media


def librosa_log_mel(waveform: np.ndarray, mel_basis: np.ndarray) -> np.ndarray:
    """Compute the paper's features step by step: all frames are computed and one in 16 is kept. `(num_frames, 80)`."""
    import librosa

    trimmed, _ = librosa.effects.trim(waveform, top_db=60)
    emphasised = np.append(trimmed[0], trimmed[1:] - 0.97 * trimmed[:-1])
    magnitudes = np.abs(librosa.stft(emphasised, n_fft=2048, hop_length=275, win_length=1102))
    decibels = 20 * np.log10(np.maximum(1e-5, mel_basis @ magnitudes))
    return np.clip((decibels - 20 + 100) / 100, 1e-8, 1).T[::16].astype(np.float32)


def measure_log_mel(arguments: argparse.Namespace) -> Iterator[Measurement]:
    if importlib.util.find_spec("librosa") is None:
        print("librosa is not installed: log-mel features are not measured.", file=sys.stderr)
        return
    import librosa
    from threadpoolctl import threadpool_limits  # a dependency of librosa

    extractor = UmonsFeatureExtractor()
    files = find_files(arguments.audio_dir, arguments.num_files)
    waveforms = [read_clip(file, video=False).audio for file in files]
    basis = librosa.filters.mel(sr=extractor.sampling_rate, n_fft=2048, n_mels=80)

    def extract() -> list[np.ndarray]:
        return extractor(waveforms, sampling_rate=extractor.sampling_rate, truncation=False)["input_features"]

    def extract_with_librosa() -> list[np.ndarray]:
        return [librosa_log_mel(waveform, basis) for waveform in waveforms]

    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with threadpool_limits(1):
        seconds = measure_in_turns({"ours": extract, "librosa": extract_with_librosa}, arguments.repeats)
        references = extract_with_librosa()
        difference = max(np.abs(np.asarray(a)[: len(b)] - b).max() for a, b in zip(extract(), references, strict=True))
    torch.set_num_threads(num_threads)
    yield Measurement("log-mel features", "librosa", "file", len(files), *seconds.values(), float(difference))


def make_video_model() -> UmonsForSequenceClassification:
    """Build an audio and video model with random weights and the video tower in its fastest form on a CPU."""
    torch.manual_seed(0)
    config = UmonsConfig(
        modalities=["audio", "video"],
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_labels=6,
        video_tower={},
    )
    model = UmonsForSequenceClassification(config).eval()
    model.model.video_tower.to(torch.bfloat16).to(memory_format=torch.channels_last_3d)
    return model


def measure_media(arguments: argparse.Namespace) -> Iterator[Measurement]:
    files = find_files(arguments.clip_dir, arguments.num_clips)
    extractor, processor, model = UmonsFeatureExtractor(), UmonsVideoProcessor(), make_video_model()
    tower = model.model.video_tower

    def decode() -> list:
        return [read_clip(file, frame_rate=processor.frame_rate) for file in files]

    clips = decode()
    if any(clip.audio is None or clip.frames is None for clip in clips):
        raise OSError(f"{arguments.clip_dir} contains clips without audio or without video.")
    duration = sum(clip.duration for clip in clips)
    pixels = torch.cat([processor(list(clip.frames), return_tensors="pt")["pixel_values_videos"][0] for clip in clips])
    pixels = pixels[:: max(1, len(pixels) // 4)][:4]

    def predict():
        for clip in decode():
            audio = extractor(clip.audio, clip.sampling_rate, return_tensors="pt")
            model(**audio, **processor(list(clip.frames), return_tensors="pt"))

    calls = {"decoding": decode} | ({} if arguments.small else {"clip to prediction": predict})
    for name, seconds in measure_in_turns(calls, arguments.repeats).items():
        yield Measurement(name, "real time", "second of video", duration, seconds, [duration] * len(seconds))
    yield from measure_log_mel(arguments)
    if not arguments.small:
        plain = copy.deepcopy(tower.network).float()
        calls = {"ours": lambda: tower(pixels), "torchvision": lambda: plain(pixels.transpose(1, 2))}
        seconds = measure_in_turns(calls, arguments.repeats)
        yield Measurement("video tower, bfloat16", "torchvision, float32", "16 frames", len(pixels), *seconds.values())


# --- data


def make_dataset(num_rows: int, num_frames: int = 60, num_words: int = 20) -> Dataset:
    """Build a data set of random features, in the schema of prepared data sets."""
    rng = np.random.default_rng(0)
    rows = [
        {
            "segment_id": f"{i}",
            "text": " ".join(rng.choice([f"w{j}" for j in range(1000)], num_words)),
            "audio_features": rng.random((num_frames, 80), dtype=np.float32),
            "video_features": rng.random((num_frames, 512), dtype=np.float32),
            "sentiment": rng.uniform(-3, 3),
        }
        for i in range(num_rows)
    ]
    return Dataset(to_table(rows, make_features()))


def collate_tensors(tokenizer, rows: list[dict]) -> dict[str, torch.Tensor]:
    """Make the batch of `UtteranceCollator` from rows of tensors."""
    pad_sequence = nn.utils.rnn.pad_sequence
    batch = dict(tokenizer([row["text"] for row in rows], truncation=True, padding=True, return_tensors="pt"))
    for name, key in (("audio_features", "input_features"), ("video_features", "video_features")):
        batch[key] = pad_sequence([row[name] for row in rows], batch_first=True)
        masks = [torch.ones(len(row[name]), dtype=torch.int64) for row in rows]
        batch[f"{key}_mask"] = pad_sequence(masks, batch_first=True)
    return batch | {"labels": torch.stack([row["sentiment"] for row in rows])}


def measure_data(arguments: argparse.Namespace) -> Iterator[Measurement]:
    num_rows = 64 if arguments.small else 2000
    dataset = make_dataset(num_rows)
    tokenizer = build_tokenizer([f"w{i}" for i in range(1000)])
    collator = UtteranceCollator(["text", "audio", "video"], tokenizer, make_task("sentiment"))
    tensors = dataset.select_columns(list(collator.columns)).with_format("torch")
    ours = DataLoader(ArrowRows(dataset), 32, shuffle=True, collate_fn=collator)
    plain = DataLoader(tensors, 32, shuffle=True, collate_fn=lambda rows: collate_tensors(tokenizer, rows))
    calls = {"ours": lambda: list(ours), "plain": lambda: list(plain)}
    seconds = measure_in_turns(calls, arguments.repeats)
    yield Measurement("shuffled batches of 32", 'with_format("torch")', "row", num_rows, *seconds.values())


# --- model


def make_models(small: bool) -> tuple[UmonsForSequenceClassification, nn.Module]:
    """Build the paper's model of text and audio and its plain implementation, with the same random weights."""
    sys.path.insert(0, str(ROOT / "tests"))
    from plain_umons import PlainUmons

    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "vocab_size": 50} if small else {}
    config = UmonsConfig(
        modalities=["text", "audio"],
        num_labels=6,
        problem_type="multi_label_classification",
        **({"vocab_size": 14_000} | sizes),
    )
    torch.manual_seed(0)
    model = UmonsForSequenceClassification(config).eval()
    plain = PlainUmons(config).eval()
    plain.load_state_dict(model.state_dict())
    return model, plain


def make_batch(config: UmonsConfig, lengths: np.ndarray) -> dict[str, torch.Tensor]:
    """Build random inputs of rows with these `lengths` (rows, 2) in words and frames, padded to the longest."""
    generator = torch.Generator().manual_seed(0)
    masks = [torch.arange(int(steps.max())) < torch.as_tensor(steps)[:, None] for steps in lengths.T]
    ids = torch.randint(2, config.vocab_size, masks[0].shape, generator=generator)
    features = torch.rand(*masks[1].shape, config.audio_feature_size, generator=generator)
    return {
        "input_ids": ids * masks[0],
        "attention_mask": masks[0].long(),
        "input_features": features * masks[1][..., None],
        "input_features_mask": masks[1].long(),
    }


def pad_batch(batch: dict[str, torch.Tensor], length: int) -> dict[str, torch.Tensor]:
    """Pad (B, T, ...) to (B, length, ...)."""
    return {
        name: nn.functional.pad(value, (0, 0) * (value.ndim - 2) + (0, length - value.shape[1]))
        for name, value in batch.items()
    }


def make_inference(model: nn.Module, dtype: torch.dtype, packed: bool) -> Callable[[dict], torch.Tensor]:
    model = copy.deepcopy(model).to(dtype)
    if packed:
        model = pack_linears(model)

    def infer(batch: dict) -> torch.Tensor:
        return model(**{k: v.to(dtype) if v.is_floating_point() else v for k, v in batch.items()}).logits

    return infer


def make_int8_inference(model: nn.Module) -> Callable[[dict], torch.Tensor]:
    """Build the exported int8 model with float32 word vectors."""
    from modeling_umons.export import onnx

    with tempfile.TemporaryDirectory() as folder:
        graph, quantized = Path(folder) / "model.onnx", Path(folder) / "int8.onnx"
        graph.write_bytes(onnx.export_onnx(model).SerializeToString())
        onnx.quantize_int8(graph, quantized, word_vectors=False)
        session = onnx.make_session(quantized, torch.get_num_threads())
    return lambda batch: torch.from_numpy(onnx.run(session, batch))


def make_training(model: nn.Module, bfloat16: bool = False) -> Callable[[dict], None]:
    """Build a training step with Adam; ours has fused Adam and fast dropout, as in `UmonsTrainer`."""
    model = copy.deepcopy(model).train()
    is_plain = not isinstance(model, UmonsForSequenceClassification)
    if not is_plain:
        use_fast_dropout(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, fused=not is_plain)

    def step(batch: dict) -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16) if bfloat16 else nullcontext():
            outputs = model(**batch, labels=torch.ones(len(batch["attention_mask"]), 6))
        (outputs if is_plain else outputs.loss).backward()
        optimizer.step()

    return step


def compare_models(
    ways: dict[str, Callable[[dict], object]],
    baseline: Callable[[dict], object],
    batches: list[dict],
    padded: list[dict],
    title: str,
    repeats: int,
) -> Iterator[Measurement]:
    """Measure each way over `batches` and the plain model over `padded`, the same rows at full length."""

    def over(call: Callable[[dict], object], inputs: list[dict]) -> Callable[[], list]:
        return lambda: [call(batch) for batch in inputs]

    calls = {name: over(call, batches) for name, call in ways.items()} | {"": over(baseline, padded)}
    seconds = measure_in_turns(calls, repeats)
    num_rows = sum(len(batch["attention_mask"]) for batch in batches)
    for name in ways:
        difference = None
        if (expected := calls[""]()[0]) is not None:  # training has no result
            difference = (calls[name]()[0].float() - expected).abs().max().item()
        yield Measurement(
            f"{title}, {name}", "plain, float32", "row", num_rows, seconds[name], seconds[""], difference
        )


def sample_lengths(num_rows: int) -> np.ndarray:
    """Draw (rows, 2) lengths in words and frames from MOSEI's quantiles; long texts have long audio."""
    quantiles = np.linspace(0, 1, len(LENGTH_QUANTILES[0]))
    order = np.random.default_rng(0).random(num_rows)
    return np.array([np.interp(order, quantiles, values) for values in LENGTH_QUANTILES]).T.astype(int)


def measure_model(arguments: argparse.Namespace) -> Iterator[Measurement]:
    model, plain = make_models(arguments.small)
    inference = {
        "eager, float32": make_inference(model, torch.float32, packed=False),
        "packed, float32": make_inference(model, torch.float32, packed=True),
        "packed, bfloat16": make_inference(model, torch.bfloat16, packed=True),
    }
    training = {"float32": make_training(model), "bfloat16": make_training(model, bfloat16=True)}
    int8 = {}
    if importlib.util.find_spec("onnxruntime") is not None and not arguments.small:
        int8 = {"int8 (onnxruntime)": make_int8_inference(model)}
    for size in (1, 32):
        batch = [make_batch(model.config, np.full((size, 2), 60))]
        title, ways = f"inference, batch {size}", inference | (int8 if size == 1 else {})
        with torch.inference_mode():
            yield from compare_models(ways, lambda b: plain(**b), batch, batch, title, arguments.repeats)
    yield from compare_models(training, make_training(plain), batch, batch, "training, batch 32", arguments.repeats)
    # Rows of real lengths: batches of similar length, evenly from the shortest to the longest.
    lengths = sample_lengths(128 if arguments.small else 4000)
    order = np.array(list(LengthGroups(32, combine_lengths(lengths.T), seed=0)))
    batches = sorted((lengths[rows] for rows in np.split(order, len(order) // 32)), key=lambda rows: rows.max(0).sum())
    batches = [make_batch(model.config, rows) for rows in batches[len(batches) // 8 :: len(batches) // 4]]
    padded = [pad_batch(batch, 60) for batch in batches]
    with torch.inference_mode():
        title = "inference, real lengths"
        yield from compare_models(inference, lambda b: plain(**b), batches, padded, title, arguments.repeats)
    yield from compare_models(
        training, make_training(plain), batches, padded, "training, real lengths", arguments.repeats
    )


# --- server and command line


@contextmanager
def start_server(max_batch_size: int) -> Iterator[str]:
    """Run `umons serve` in a process of its own; yields host:port."""
    command = [sys.executable, "-m", "modeling_umons.cli.main", "serve", "--port", "0"]
    command += ["--max_batch_size", str(max_batch_size)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            found = re.search(r"http://([\w.]+:\d+)", process.stdout.readline())
            if found is None:
                raise OSError("`umons serve` did not start; see its message above.")
            yield found[1]
        finally:
            process.terminate()


def send_requests(address: str, headers: dict[str, str], body: bytes, num_clients: int, num_requests: int) -> None:
    """Send `num_requests` from each of `num_clients` connections at once. Raises OSError for a failed request."""

    def run_client(_) -> None:
        connection = http.client.HTTPConnection(address, timeout=60)
        for _ in range(num_requests):
            connection.request("POST", "/predict", body, headers)
            response = connection.getresponse()
            content = response.read()
            if response.status != 200:
                raise OSError(f"POST /predict returned {response.status}: {content[:200]!r}")
        connection.close()

    with ThreadPoolExecutor(num_clients) as pool:
        list(pool.map(run_client, range(num_clients)))


def measure_serve(arguments: argparse.Namespace) -> Iterator[Measurement]:
    text = json.dumps({"inputs": {"text": "The carpet in that hostel was filthy and disgusting."}}).encode()
    kinds = {
        "text": ({"Content-Type": "application/json"}, text),
        "clip of 3 s": ({"Content-Type": "video/mp4"}, (SAMPLE / "000.mp4").read_bytes()),
    }
    num_requests = 2 if arguments.small else 20
    with start_server(8) as batching, start_server(1) as single:
        for kind, (headers, body) in kinds.items():
            for num_clients in (8,) if arguments.small else (1, 8, 32):
                send = partial(
                    send_requests, headers=headers, body=body, num_clients=num_clients, num_requests=num_requests
                )
                calls = {address: partial(send, address) for address in (batching, single)}
                seconds = measure_in_turns(calls, arguments.repeats)
                name = f"{kind}, {num_clients} client(s)"
                yield Measurement(name, "without batching", "request", num_clients * num_requests, *seconds.values())


def measure_start(arguments: argparse.Namespace) -> Iterator[Measurement]:
    umons = Path(sys.executable).with_name("umons")
    commands = {
        "ours": [umons, "predict", "--text", "what a wonderful day"],
        "import torch, transformers": [sys.executable, "-c", "import torch, transformers"],
        "from transformers import pipeline": [sys.executable, "-c", "from transformers import pipeline"],
    }
    calls = {
        name: partial(subprocess.run, command, cwd=ROOT, check=True, capture_output=True)
        for name, command in commands.items()
    }
    ours, *baselines = measure_in_turns(calls, arguments.repeats).items()
    for name, seconds in baselines:
        yield Measurement("umons predict --text", name, "start", 1, ours[1], seconds)


# --- report

PARTS = {
    "media": measure_media,
    "data": measure_data,
    "model": measure_model,
    "serve": measure_serve,
    "start": measure_start,
}


def describe_machine() -> dict[str, str | int]:
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def to_markdown(parts: dict[str, list[Measurement]], machine: dict, repeats: int) -> str:
    about = ", ".join(f"{name} {value}" for name, value in machine.items())
    lines = ["# Benchmark", "", f"Medians of {repeats} round(s) on: {about}."]
    for part, measurements in parts.items():
        lines += ["", f"## {part}", ""]
        lines += ["| work | ms | baseline | ms | speed-up | max. difference |", "|---|---:|---|---:|---:|---:|"]
        for m in measurements:
            ours, baseline = (1000 * np.median(s) / m.num_units for s in (m.seconds, m.baseline_seconds))
            difference = "" if m.max_difference is None else f"{m.max_difference:.1e}"
            cells = [m.name, f"{ours:.3g} per {m.unit}", m.baseline_name, f"{baseline:.3g}"]
            lines.append(f"| {' | '.join([*cells, f'{m.speed_up:.2f}', difference])} |")
    return "\n".join(lines) + "\n"


def plot_speed_ups(parts: dict[str, list[Measurement]], path: Path) -> None:
    from matplotlib.figure import Figure

    measurements = [measurement for of_part in parts.values() for measurement in of_part]
    figure = Figure(figsize=(8, 1 + 0.25 * len(measurements)), layout="constrained")
    axes = figure.subplots()
    bars = axes.barh([f"{m.name} / {m.baseline_name}" for m in measurements], [m.speed_up for m in measurements])
    axes.bar_label(bars, fmt="%.2f", padding=3)
    axes.axvline(1, color="black", linewidth=1)
    axes.invert_yaxis()
    axes.set(xlabel="speed-up (log scale)", xscale="log")
    axes.margins(x=0.15)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=100)


def write_report(folder: Path, parts: dict[str, list[Measurement]], machine: dict, repeats: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    measurements = {part: [asdict(m) | {"speed_up": m.speed_up} for m in found] for part, found in parts.items()}
    content = {"machine": machine, "repeats": repeats, "parts": measurements}
    (folder / "benchmark.json").write_text(json.dumps(content, indent=1) + "\n")
    plot_speed_ups(parts, folder / "benchmark.png")
    markdown = to_markdown(parts, machine, repeats)
    (folder / "benchmark.md").write_text(markdown + "\n![Speed-up of each measurement](benchmark.png)\n")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("parts", nargs="*", metavar="part", help="parts to measure (default: all)")
    add("--repeats", type=int, default=5, help="number of rounds (default: %(default)s)")
    add("--num_threads", type=int, default=torch.get_num_threads(), help="threads of PyTorch (default: %(default)s)")
    add("--audio_dir", type=Path, default=SAMPLE, help="audio files or clips (default: the sample)")
    add("--clip_dir", type=Path, default=SAMPLE, help="clips with audio and video (default: the sample)")
    add("--num_files", type=int, default=32, help="number of audio files (default: %(default)s)")
    add("--num_clips", type=int, default=4, help="number of clips (default: %(default)s)")
    add("--small", action="store_true", help="tiny sizes, to check that the benchmark runs")
    add("--output", type=Path, metavar="FOLDER", help="folder of the report")
    arguments = parser.parse_args()
    if unknown := sorted(set(arguments.parts) - set(PARTS)):
        parser.error(f"unknown part(s) {', '.join(unknown)}; choose from {', '.join(PARTS)}")
    for name, value in vars(arguments).items():
        if type(value) is int and value < 1:
            parser.error(f"--{name} is {value}; it must be at least 1")
    return arguments


def main() -> None:
    arguments = parse_arguments()
    torch.set_num_threads(arguments.num_threads)
    machine, parts = describe_machine(), {}
    try:
        for part in arguments.parts or PARTS:
            with torch.set_grad_enabled(part == "model"):
                parts[part] = list(PARTS[part](arguments))
    except OSError as error:
        raise SystemExit(f"error: {error}") from error
    print(to_markdown(parts, machine, arguments.repeats))
    if arguments.output is not None:
        write_report(arguments.output, parts, machine, arguments.repeats)


if __name__ == "__main__":
    main()
