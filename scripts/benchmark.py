#!/usr/bin/env python
"""Measure how fast the package is, as ratios that hold on any machine.

    python scripts/benchmark.py media
    python scripts/benchmark.py media --clip_dir my_clips --audio_dir my_clips --num_threads 4 --output docs/benchmarks
    python scripts/benchmark.py data --num_rows 20000 --batch_size 64
    python scripts/benchmark.py model --num_threads 2 --repeats 7 --output docs/benchmarks
    python scripts/benchmark.py model --part recipe --batch 32 --mode inference --variants packed

What is compared runs in turns within one process, each side warmed up; times are medians over the rounds, ratios the
medians of each round's own. A Markdown table goes to the screen, and with --output a folder gets it as <benchmark>.md,
the numbers of every round as <benchmark>.json, and a plot of where the time goes.

benchmarks:
  media   log-mel features against librosa, the video tower in bfloat16 against torchvision's network in float32, and
          how long a whole clip takes from file to prediction (networks have random weights; the time is the same)
  data    batches for training from Parquet files, streamed and by index, against `datasets` with tensors for rows
  model   inference and training against the equations written plainly and against the machine's matrix product; an
          epoch of rows with real lengths; the processor; a cold start of `umons predict`
"""

import argparse
import copy
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
import transformers
from torch.utils.data import DataLoader

from modeling_umons import (
    UmonsConfig,
    UmonsFeatureExtractor,
    UmonsForSequenceClassification,
    UmonsVideoProcessor,
    build_tokenizer,
)
from modeling_umons.data.collator import ArrowRows, UtteranceCollator
from modeling_umons.data.schema import make_features, to_table
from modeling_umons.data.stream import ParquetStream
from modeling_umons.models.umons.media_umons import read_clip
from modeling_umons.tasks.task import make_task


ROOT = Path(__file__).resolve().parent.parent
SAMPLE = ROOT / "hub" / "sample" / "clips"
RAVDESS = ROOT.parent / "shared" / "data" / "ravdess"
CLIPS = ROOT.parent / "shared" / "data" / "clips"
SUFFIXES = {".avi", ".flac", ".m4a", ".mkv", ".mov", ".mp3", ".mp4", ".mpg", ".ogg", ".wav", ".webm"}


@dataclass
class Comparison:
    """Seconds of each round for the same work done in two ways. `reference` is None where there was nothing to run."""

    name: str
    per: str  # what the work consists of, and
    count: float  # how much of it a round does
    ours: list[float]
    reference: list[float] | None
    aim: float  # the ratio that is called fast enough

    @property
    def ratio(self) -> float | None:
        """How many times faster ours is."""
        return float(np.median(np.divide(self.reference, self.ours))) if self.reference else None


@dataclass
class Report:
    """What a benchmark found: comparisons, the seconds of each stage in each round, and remarks in words."""

    title: str
    whole: str  # what the stages are of
    comparisons: list[Comparison] = field(default_factory=list)
    stages: dict[str, list[float]] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)  # accuracies, shares and the like, by name
    remarks: list[str] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)  # more lines of Markdown
    curves: dict[str, dict[str, list]] = field(default_factory=dict)  # panel, line, points (x, ms for each utterance)
    cases: list[dict] = field(default_factory=list)  # what stands in `tables`, with every round


def measure_in_turns(repeats: int, *calls: Callable[[], object]) -> list[list[float]]:
    """Seconds of each call in each round, after a round that does not count. Every other round runs backward."""
    seconds = [[0.0] * (repeats + 1) for _ in calls]
    for i in range(repeats + 1):
        for j in range(len(calls))[:: 1 if i % 2 else -1]:
            began = time.perf_counter()
            calls[j]()
            seconds[j][i] = time.perf_counter() - began
    return [times[1:] for times in seconds]


def find_files(folder: Path, limit: int) -> list[Path]:
    """At most `limit` clips or sound files, evenly from all of the folder's."""
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not files:
        raise OSError(f"{folder} holds no clips or sound files ({', '.join(sorted(SUFFIXES))}).")
    return [files[i] for i in np.unique(np.linspace(0, len(files) - 1, min(limit, len(files))).astype(int))]


# ---- media ----

STAGES = ("decode", "log-mel", "cut clips", "video tower", "model")


def librosa_log_mel(waveform: np.ndarray, mel_basis: np.ndarray) -> np.ndarray:
    """The recipe step by step: every frame is computed, one in 16 kept. `(num_frames, 80)`."""
    import librosa

    trimmed, _ = librosa.effects.trim(waveform, top_db=60)
    emphasised = np.append(trimmed[0], trimmed[1:] - 0.97 * trimmed[:-1])
    magnitudes = np.abs(librosa.stft(emphasised, n_fft=2048, hop_length=275, win_length=1102))
    decibels = 20 * np.log10(np.maximum(1e-5, mel_basis @ magnitudes))
    return np.clip((decibels - 20 + 100) / 100, 1e-8, 1).T[::16].astype(np.float32)


def compare_log_mel(report: Report, waveforms: list[np.ndarray], repeats: int):
    extractor = UmonsFeatureExtractor()
    options = {"sampling_rate": extractor.sampling_rate, "truncation": False}

    def one_by_one():
        return [extractor(waveform, **options)["input_features"][0] for waveform in waveforms]

    def batched():
        return extractor(waveforms, **options)

    try:
        import librosa
        from threadpoolctl import threadpool_limits  # comes with librosa
    except ImportError:
        ours = measure_in_turns(repeats, one_by_one, batched)
        reference = None
        report.remarks.append("librosa is not installed, so log-mel features were compared with nothing.")
    else:
        basis = librosa.filters.mel(sr=extractor.sampling_rate, n_fft=2048, n_mels=80)

        def with_librosa():
            return [librosa_log_mel(waveform, basis) for waveform in waveforms]

        num_threads = torch.get_num_threads()
        torch.set_num_threads(1)
        with threadpool_limits(1):
            *ours, reference = measure_in_turns(repeats, one_by_one, batched, with_librosa)
            differences = [np.abs(a - b).max() for a, b in zip(one_by_one(), with_librosa(), strict=True)]
        torch.set_num_threads(num_threads)
        report.figures["log-mel: largest difference from librosa"] = float(max(differences))
        report.remarks.append(
            f"Log-mel: one thread on each side, {sum(map(len, waveforms)) / extractor.sampling_rate:.0f} s of decoded "
            "sound; librosa's side computes every frame and keeps one in 16, and has its mel basis ready. "
            f"Features differ by {max(differences):.1e} at most."
        )
    for how, times in zip(("one by one", "as one list"), ours, strict=True):
        report.comparisons.append(Comparison(f"log-mel, {how}", "file", len(waveforms), times, reference, aim=3.0))


def make_model() -> UmonsForSequenceClassification:
    """Sound and pictures, of the size that README.md trains; the tower as it is fastest on a CPU."""
    torch.manual_seed(0)
    config = UmonsConfig(
        modalities=["audio", "video"],
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        joint_sentiment=True,
        num_labels=7,
        video_tower={},
    )
    return UmonsForSequenceClassification(config).eval()


def to_fastest(tower: torch.nn.Module) -> torch.nn.Module:
    return tower.to(torch.bfloat16).to(memory_format=torch.channels_last_3d)


def compare_tower(report: Report, clips: torch.Tensor, repeats: int):
    tower = make_model().model.video_tower
    plain = copy.deepcopy(tower.network)  # torchvision's own module, without its classifier
    tower = to_fastest(tower)
    ours, reference = measure_in_turns(repeats, lambda: tower(clips), lambda: plain(clips.transpose(1, 2)))
    exact, rough = plain(clips.transpose(1, 2)), tower(clips).float()
    cosine = torch.nn.functional.cosine_similarity(exact[:, None], rough[None], dim=-1)
    of_itself = cosine.diagonal().min().item()
    report.comparisons.append(Comparison("video tower", "clip of 16 frames", len(clips), ours, reference, aim=2.0))
    report.figures["video tower: smallest cosine of a clip to itself in float32 (aim 0.999)"] = of_itself
    remark = (
        "Video tower: bfloat16 with channels last against torchvision's `r2plus1d_18` called plainly in float32, random "
        f"weights in both; cosine {of_itself:.5f} or more for each clip"
    )
    if len(clips) > 1:
        of_others = (cosine - 2 * torch.eye(len(clips))).max().item()
        report.figures["video tower: largest cosine between two clips"] = of_others
        remark += f" (of two clips: {of_others:.5f} at most)"
    report.remarks.append(remark + ".")


def time_whole_clip(file: Path, extractor, processor, model) -> tuple[float, np.ndarray]:
    """From file to prediction, piece by piece as the pipeline puts them together: its length, and s of each stage."""
    marks = [time.perf_counter()]
    clip = read_clip(file, frame_rate=processor.frame_rate)
    marks.append(time.perf_counter())
    if clip.frames is None or clip.audio is None:
        raise OSError(f"{file} lacks sound or pictures: give clips that have both.")
    sound = extractor(clip.audio, clip.sampling_rate, return_tensors="pt")
    marks.append(time.perf_counter())
    pictures = processor(list(clip.frames), return_tensors="pt")
    marks.append(time.perf_counter())
    seen = model.get_video_features(**pictures).pooler_output
    marks.append(time.perf_counter())
    model(video_features=seen, video_features_mask=pictures["video_features_mask"], **sound)
    marks.append(time.perf_counter())
    return clip.duration, np.diff(marks)


def time_whole_clips(report: Report, files: list[Path], repeats: int):
    extractor, processor, model = UmonsFeatureExtractor(), UmonsVideoProcessor(), make_model()
    to_fastest(model.model.video_tower)
    rounds = []
    for _ in range(repeats + 1):  # the first does not count
        durations, seconds = zip(*(time_whole_clip(file, extractor, processor, model) for file in files), strict=True)
        rounds.append(np.sum(seconds, axis=0))
    rounds, duration = np.array(rounds[1:]), sum(durations)
    report.stages = dict(zip(STAGES, rounds.T.tolist(), strict=True))
    medians = np.median(rounds, axis=0)
    factor, share = float(medians.sum() / duration), float(medians[0] / medians.sum())
    report.figures["whole clip: seconds per second of clip"] = factor
    report.figures["whole clip: share of decoding (aim 0.25 or less)"] = share
    report.remarks.append(
        f"Whole clip: {len(files)} files of {duration:.1f} s in all, one at a time, take {factor:.2f} s for each second of "
        f"clip; decoding, which uses what cores there are, has {share:.1%} of it (aim: 25 % or less)."
    )


def media(arguments: argparse.Namespace) -> Report:
    audio_dir = arguments.audio_dir or (RAVDESS if RAVDESS.is_dir() else SAMPLE)
    clip_dir = arguments.clip_dir or (CLIPS if CLIPS.is_dir() else SAMPLE)
    sounds, files = find_files(audio_dir, arguments.num_files), find_files(clip_dir, arguments.num_videos)
    report = Report("From file to features and prediction", "a whole clip")
    names = " and ".join(
        f"{len(found)} files of `{where.name}`" for found, where in ((sounds, audio_dir), (files, clip_dir))
    )
    report.remarks.append(f"Sound and clips: {names}.")
    compare_log_mel(report, [read_clip(file, video=False).audio for file in sounds], arguments.repeats)

    processor = UmonsVideoProcessor()
    frames = [read_clip(file, audio=False, frame_rate=processor.frame_rate).frames for file in files]
    cut = [processor(list(some), return_tensors="pt")["pixel_values_videos"][0] for some in frames]
    clips = torch.cat(cut)
    clips = clips[np.linspace(0, len(clips) - 1, min(arguments.num_clips, len(clips))).astype(int)]
    compare_tower(report, clips, arguments.repeats)
    time_whole_clips(report, files, arguments.repeats)
    return report


def add_media_arguments(parser: argparse.ArgumentParser):
    parser.add_argument(
        "--audio_dir", type=Path, help="sound files or clips (default: RAVDESS beside the checkout, else the sample)"
    )
    parser.add_argument(
        "--clip_dir", type=Path, help="clips with sound (default: those beside the checkout, else the sample)"
    )
    parser.add_argument("--num_files", type=int, default=64, help="how many sound files (default: %(default)s)")
    parser.add_argument("--num_videos", type=int, default=8, help="how many whole clips (default: %(default)s)")
    parser.add_argument(
        "--num_clips",
        type=int,
        default=8,
        help="how many clips of 16 frames the tower gets at once (default: %(default)s)",
    )


# ---- data ----

VOCABULARY = [f"w{i}" for i in range(1000)]
GROUP_ROWS = 100  # rows of a row group


def write_utterances(folder: Path, num_rows: int, num_frames: int, num_words: int):
    """A Parquet file of random features, as long in each row."""
    rng, features = np.random.default_rng(0), make_features()
    # Features hardly repeat: a dictionary of them would be larger than they are.
    with pq.ParquetWriter(folder / "train.parquet", features.arrow_schema, use_dictionary=["text"]) as writer:
        for begin in range(0, num_rows, GROUP_ROWS):
            rows = [
                {
                    "segment_id": f"{i}",
                    "text": " ".join(rng.choice(VOCABULARY, num_words)),
                    "audio_features": rng.random((num_frames, 80), dtype=np.float32),
                    "video_features": rng.random((num_frames, 512), dtype=np.float32),
                    "sentiment": rng.uniform(-3, 3),
                }
                for i in range(begin, min(begin + GROUP_ROWS, num_rows))
            ]
            writer.write_table(to_table(rows, features))


def collate_tensors(tokenizer, rows: list[dict]) -> dict[str, torch.Tensor]:
    """The batch of `UtteranceCollator`, from rows of tensors."""
    pad_sequence = torch.nn.utils.rnn.pad_sequence
    batch = dict(tokenizer([row["text"] for row in rows], truncation=True, padding=True, return_tensors="pt"))
    for name, key in (("audio_features", "input_features"), ("video_features", "video_features")):
        sequences = [row[name] for row in rows]
        batch[key] = pad_sequence(sequences, batch_first=True)
        masks = [torch.ones(len(sequence), dtype=torch.int64) for sequence in sequences]
        batch[f"{key}_mask"] = pad_sequence(masks, batch_first=True)
    return batch | {"labels": torch.stack([row["sentiment"] for row in rows])}


def time_stages(stream: ParquetStream, collators: dict[str, UtteranceCollator]) -> list[float]:
    """Seconds of reading, and of what each collator does."""
    seconds, began = np.zeros(1 + len(collators)), time.perf_counter()
    for table in stream:
        marks = [began, time.perf_counter()]
        for collator in collators.values():
            collator(table)
            marks.append(time.perf_counter())
        seconds += np.diff(marks)
        began = marks[-1]
    return seconds.tolist()


def data(arguments: argparse.Namespace) -> Report:
    import datasets

    datasets.disable_progress_bars()
    # Where a pass over Parquet ends, `datasets` sleeps for some seconds, which say nothing of how fast it reads.
    datasets.config.SLEEP_TIME_ON_THREADS_SHUTDOWN = 0
    with tempfile.TemporaryDirectory() as folder:
        write_utterances(Path(folder), arguments.num_rows, arguments.num_frames, arguments.num_words)
        return compare_readers(Path(folder), arguments)


def compare_readers(folder: Path, arguments: argparse.Namespace) -> Report:
    from datasets import load_dataset

    file, batch_size = str(folder / "train.parquet"), arguments.batch_size
    tokenizer, task = build_tokenizer(VOCABULARY), make_task("sentiment")
    collator = UtteranceCollator(["text", "audio", "video"], tokenizer, task)
    options = {"data_files": file, "columns": collator.columns, "split": "train", "cache_dir": str(folder / "cache")}
    tensors = load_dataset("parquet", streaming=True, **options).with_format("torch")
    reference = DataLoader(tensors, batch_size, collate_fn=lambda rows: collate_tensors(tokenizer, rows))
    stream = ParquetStream([file], batch_size, columns=collator.columns)
    streamed = DataLoader(stream, batch_size=None, collate_fn=collator)
    by_index = DataLoader(ArrowRows(load_dataset("parquet", **options)), batch_size, shuffle=True, collate_fn=collator)

    def count(loader: DataLoader) -> Callable[[], None]:
        def run():
            if (found := sum(len(batch["labels"]) for batch in loader)) != arguments.num_rows:
                raise ValueError(f"{found} rows of {arguments.num_rows} were read.")

        return run

    report = Report("From Parquet to batches", "a pass")
    times = measure_in_turns(arguments.repeats, *map(count, (streamed, by_index, reference)))
    for name, seconds in zip(("ParquetStream, shuffled", "ArrowRows, shuffled"), times, strict=False):
        report.comparisons.append(Comparison(name, "row", arguments.num_rows, seconds, times[-1], aim=3.0))
    for name, seconds in zip(("ParquetStream", "ArrowRows", "datasets with tensors"), times, strict=True):
        report.figures[f"{name}: rows per second"] = arguments.num_rows / float(np.median(seconds))
    collators = {
        "words to ids": UtteranceCollator(["text"], tokenizer),
        "pad features": UtteranceCollator(["audio", "video"], task=task),
    }
    rounds = np.array([time_stages(stream, collators) for _ in range(arguments.repeats)])
    report.stages = dict(zip(("read and shuffle", *collators), rounds.T.tolist(), strict=True))
    report.remarks += [
        f"{arguments.num_rows} rows of {arguments.num_frames} x 80 and {arguments.num_frames} x 512 float32 and "
        f"{arguments.num_words} words, in row groups of {GROUP_ROWS}; batches of {batch_size}, in the process itself.",
        "The reference is `load_dataset(..., streaming=True).with_format('torch')`, in the order of the file, and a collator "
        "that pads with `pad_sequence`. It reads the same columns, and its sleep of some seconds at the end of a pass is off.",
        "ArrowRows reads what `load_dataset` has made of the file before: memory-mapped Arrow, which need not be decoded.",
    ]
    return report


def add_data_arguments(parser: argparse.ArgumentParser):
    parser.add_argument("--num_rows", type=int, default=5000, help="rows of the file (default: %(default)s)")
    parser.add_argument("--num_frames", type=int, default=60, help="audio frames, and clips (default: %(default)s)")
    parser.add_argument("--num_words", type=int, default=20, help="words of a text (default: %(default)s)")
    parser.add_argument("--batch_size", type=int, default=32, help="rows of a batch (default: %(default)s)")


# ---- model ----


def import_benchmark_model():
    sys.path.insert(0, str(Path(__file__).resolve().parent))  # where it is not, if something else runs this file
    import benchmark_model

    return benchmark_model


def model(arguments: argparse.Namespace) -> Report:
    benchmark_model = import_benchmark_model()
    results = benchmark_model.measure(arguments, measure_in_turns)
    return Report(
        "The model",
        "the model",
        figures={f"{aim.what}, reached by {aim.name}": aim.reached for aim in results.aims},
        remarks=[*benchmark_model.REMARKS, *results.remarks],
        tables=benchmark_model.to_tables(results),
        curves=results.curves,
        cases=[case.to_dict() for case in results.cases],
    )


def add_model_arguments(parser: argparse.ArgumentParser):
    import_benchmark_model().add_model_arguments(parser)


# By name: what it runs, and the arguments that are its own.
BENCHMARKS = {
    "media": (media, add_media_arguments),
    "data": (data, add_data_arguments),
    "model": (model, add_model_arguments),
}


# ---- reports ----


def describe_machine() -> dict[str, str | int | float]:
    cpu_info = Path("/proc/cpuinfo")
    lines = cpu_info.read_text().splitlines() if cpu_info.is_file() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": next(iter(models), platform.processor() or platform.machine()),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else float("nan"),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def to_markdown(report: Report, machine: dict, repeats: int) -> str:
    lines = [
        f"# {report.title}",
        "",
        f"{machine['cpu']}, {machine['cores']} cores, load {machine['load']} at the start; {machine['system']}, Python "
        f"{machine['python']}, torch {machine['torch']} on {machine['threads']} thread(s), transformers "
        f"{machine['transformers']}. Medians of {repeats} round(s).",
        "",
    ]
    if report.comparisons:
        lines += ["| What | Ours | Reference | Times faster | Aim |", "|---|---|---|---|---|"]
    for comparison in report.comparisons:
        ours = f"{1000 * np.median(comparison.ours) / comparison.count:.3g} ms per {comparison.per}"
        reference, ratio = "not there", "-"
        if comparison.reference:
            reference = f"{1000 * np.median(comparison.reference) / comparison.count:.3g} ms"
            ratio = f"{comparison.ratio:.2f}"
        lines.append(f"| {comparison.name} | {ours} | {reference} | {ratio} | {comparison.aim:g} |")
    if report.stages:
        medians = {name: float(np.median(times)) for name, times in report.stages.items()}
        lines += ["", "| Stage | Seconds | Share |", "|---|---|---|"]
        lines += [f"| {name} | {s:.3f} | {s / sum(medians.values()):.1%} |" for name, s in medians.items()]
    lines += report.tables
    return "\n".join([*lines, "", *(f"- {remark}" for remark in report.remarks), ""])


def plot_stages(stages: dict[str, list[float]], whole: str, path: Path):
    from matplotlib.figure import Figure

    medians = {name: float(np.median(times)) for name, times in stages.items()}
    shares = {name: 100 * seconds / sum(medians.values()) for name, seconds in medians.items()}
    figure = Figure(figsize=(5, 2), layout="constrained")
    axes = figure.subplots()
    bars = axes.barh(list(shares), list(shares.values()))
    axes.bar_label(bars, fmt="%.1f %%", padding=3)
    axes.invert_yaxis()
    axes.set(xlim=(0, 115), xlabel=f"share of the time of {whole}, %")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=100)


def write_report(report: Report, machine: dict, arguments: argparse.Namespace):
    folder, name = arguments.output, arguments.benchmark
    folder.mkdir(parents=True, exist_ok=True)
    comparisons = [asdict(comparison) | {"ratio": comparison.ratio} for comparison in report.comparisons]
    contents = {"benchmark": name, "machine": machine, "repeats": arguments.repeats}
    contents |= asdict(report) | {"comparisons": comparisons}
    (folder / f"{name}.json").write_text(json.dumps(contents, indent=1) + "\n")
    markdown = to_markdown(report, machine, arguments.repeats)
    if report.stages:
        plot_stages(report.stages, report.whole, folder / f"{name}.png")
        markdown += f"\n![Where the time goes]({name}.png)\n"
    if report.curves:
        import_benchmark_model().plot_curves(report.curves, folder / f"{name}.png")
        markdown += f"\n![What an utterance costs]({name}.png)\n"
    (folder / f"{name}.md").write_text(markdown)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    subparsers = parser.add_subparsers(dest="benchmark", required=True, metavar="benchmark")
    for name, (_, add_arguments) in BENCHMARKS.items():
        subparser = subparsers.add_parser(name)
        subparser.add_argument("--repeats", type=int, default=5, help="rounds that count (default: %(default)s)")
        subparser.add_argument("--num_threads", type=int, default=1, help="threads of PyTorch (default: %(default)s)")
        subparser.add_argument("--output", type=Path, help="a folder to write the report to")
        add_arguments(subparser)
    arguments = parser.parse_args()
    for name, value in vars(arguments).items():
        if isinstance(value, int) and value < 1:
            parser.error(f"--{name} is {value}: it must be at least 1")
    torch.set_num_threads(arguments.num_threads)
    machine = describe_machine()
    try:
        with torch.inference_mode():
            report = BENCHMARKS[arguments.benchmark][0](arguments)
    except OSError as error:
        raise SystemExit(f"error: {error}") from error
    print(to_markdown(report, machine, arguments.repeats))
    if arguments.output is not None:
        write_report(report, machine, arguments)


if __name__ == "__main__":
    main()
