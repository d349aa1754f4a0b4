"""The benchmark `model` of scripts/benchmark.py: the model against the machine, and against its equations written plainly."""

import argparse
import csv
import ctypes
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from benchmark_cases import (
    INFERENCE,
    MODALITIES,
    PLAIN,
    PRODUCT,
    PRODUCT_OF,
    PRODUCTS,
    ROOT,
    TRAINING,
    ClipBatches,
    Turns,
    count_flops,
    full_batch,
    make_batch,
    make_inference,
    make_models,
    make_step,
    measure_peak,
    only_products,
    pad_batch,
    products,
)
from torch.utils.data import DataLoader

from modeling_umons import UmonsFeatureExtractor, build_tokenizer
from modeling_umons.data.sampling import LengthGroups, combine_lengths


MOSEI = ROOT.parent / "shared" / "data" / "mosei"
CLIP = ROOT / "hub" / "sample" / "clips" / "000.mp4"

PARTS = ("recipe", "memory", "epoch", "scaling", "processor", "predict")
# What takes long to prepare, or only tells what holds up the rest, is measured for these batches of the first modalities,
# unless a single batch is asked for.
CHOSEN_BATCHES = (1, 32)
RECIPE_BATCH = 32

# Words and frames of MOSEI's utterances at the quantiles 0, 1/8 ... 1, for where the data set is not at hand.
QUANTILES = ((1, 9, 12, 15, 18, 21, 26, 33, 60), (1, 18, 24, 29, 34, 41, 49, 60, 60))


@dataclass
class Case:
    """One way to compute one thing, and what came of it."""

    modalities: str
    batch: int
    mode: str
    name: str
    dtype: torch.dtype
    flops: float
    seconds: list[float]  # of each round
    product: list[float]  # seconds of the product in the same precision and rounds
    plain: list[float]  # of the plain reference
    peak: float | None = None  # bytes
    difference: float | None = None  # of the logits from the plain ones

    @property
    def of_the_limit(self) -> float | None:
        """What share of the rate of the product it reaches."""
        rows, inner, outer = PRODUCT
        limits = np.array(self.product) * self.flops / (2 * rows * inner * outer)
        return float(np.median(limits / np.array(self.seconds))) if self.product else None

    @property
    def ratio(self) -> float:
        return float(np.median(np.divide(self.plain, self.seconds)))

    def to_dict(self) -> dict:
        return {**vars(self), "dtype": str(self.dtype), "of_the_limit": self.of_the_limit, "ratio": self.ratio}


class Aim(NamedTuple):
    """What is wanted of the fastest way to compute something, and what it reaches."""

    what: str
    wanted: str
    reached: float
    name: str  # of the way
    bound: float | None = None  # what it would reach if it did nothing but multiply matrices


@dataclass
class Results:
    """What the parts found: cases, aims, curves and remarks."""

    cases: list[Case] = field(default_factory=list)
    aims: list[Aim] = field(default_factory=list)
    curves: dict[str, dict[str, list[tuple[float, float]]]] = field(default_factory=dict)  # panel, line, points
    stages: dict[str, dict[str, float]] = field(default_factory=dict)  # seconds
    rates: dict[str, float] = field(default_factory=dict)  # products, FLOP/s
    remarks: list[str] = field(default_factory=list)


def is_wanted(name: str, mode: str, modalities: str, batch: int, arguments: argparse.Namespace) -> bool:
    if arguments.variants and not name.startswith((PLAIN, *arguments.variants)):
        return False
    if not name.startswith(("compiled", "int8", PRODUCTS)) or len(arguments.batch) == 1:
        return True
    takes_minutes = name.startswith("compiled") and mode == "training"
    return modalities == "text_audio" and batch in ((RECIPE_BATCH,) if takes_minutes else CHOSEN_BATCHES)


def measure_recipe(results: Results, arguments: argparse.Namespace, turns: Turns):
    for modalities in arguments.modalities:
        model, plain = make_models(MODALITIES[modalities], arguments)
        for size in arguments.batch:
            batch = full_batch(model.config, size)
            for mode in arguments.mode:
                with torch.inference_mode(mode == "inference"):
                    measure_cases(results, arguments, turns, model, plain, batch, (modalities, size, mode))


def measure_cases(results: Results, arguments, turns: Turns, model, plain, batch: dict, case: tuple[str, int, str]):
    modalities, size, mode = case
    ways, make = (INFERENCE, make_inference) if mode == "inference" else (TRAINING, make_step)
    calls, differences = {}, {}
    for name in ways:
        if not is_wanted(name, mode, modalities, size, arguments):
            continue
        try:
            call = make(name, model, plain, batch)
            result = call()
        except (ImportError, RuntimeError) as error:  # no onnxruntime, no compiler
            results.remarks.append(f"{name}, batch {size}: not measured, {str(error).strip().splitlines()[0][:200]}")
            continue
        calls[name] = call
        if result is not None:  # not of training, nor of products
            differences[name] = (result.float() - calls[PLAIN]().float()).abs().max().item()
    flops = count_flops(plain, batch, mode == "training")
    times = turns(calls | products())
    for name in calls:
        product = times.get(PRODUCT_OF.get(ways[name]), [])
        results.cases.append(
            Case(
                *(modalities, size, mode, name, ways[name], flops, times[name], product, times[PLAIN]),
                difference=differences.get(name),
            )
        )
    rows, inner, outer = PRODUCT
    for name in PRODUCT_OF.values():
        results.rates[name] = 2 * rows * inner * outer / float(np.median(times[name]))


def measure_memory(results: Results, arguments: argparse.Namespace, turns: Turns):
    """Peaks of the cases that were measured, each in a process of its own."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)  # gigabytes that this process has freed and kept, which those are to have
    for case in results.cases:
        if not case.name.startswith(PRODUCTS):  # which are not all that their process does
            case.peak = measure_peak(case.modalities, case.batch, case.mode, case.name, arguments)


def read_lengths(num_rows: int, length: int) -> tuple[np.ndarray, str]:
    """Words and frames of utterances of MOSEI, (rows, 2), and where they are from."""
    if MOSEI.is_dir():
        with open(MOSEI / "transcripts_valid.csv", encoding="utf-8") as file:
            words = {row["segment_id"]: len(row["text"].split()) for row in csv.DictReader(file)}
        extractor = UmonsFeatureExtractor()
        frame_s = extractor.frame_stride * extractor.hop_length / extractor.sampling_rate
        with open(MOSEI / "labels.csv", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if row["segment_id"] in words]
        frames = [int((float(row["end"]) - float(row["start"])) / frame_s) for row in rows]
        pairs = np.array([[words[row["segment_id"]] for row in rows], frames]).T
        source = f"those of the {len(pairs)} utterances of MOSEI's validation split"
    else:
        quantiles = np.linspace(0, 1, len(QUANTILES[0]))
        order = np.random.default_rng(0).random(num_rows)
        pairs = np.array([np.interp(order, quantiles, values) for values in QUANTILES]).T.astype(int)
        source = "drawn by the quantiles of MOSEI's, long texts with long sound"
    return pairs.clip(1, length)[:num_rows], source


def epoch_batches(pairs: np.ndarray, mode: str, size: int) -> list[np.ndarray]:
    """The lengths of the rows of each batch: all rows in the order of length, or an epoch of training."""
    order = np.argsort(combine_lengths(pairs.T), kind="stable")
    if mode == "training":
        order = np.array(list(LengthGroups(size, combine_lengths(pairs.T), seed=0)))
    return [pairs[order[start : start + size]] for start in range(0, len(order) - size + 1, size)]


def measure_epoch(results: Results, arguments: argparse.Namespace, turns: Turns):
    """Rows of real lengths: the plain model pads all of them to the full length; ours to the longest of like ones."""
    found, source = read_lengths(arguments.num_rows, arguments.length)
    results.remarks.append(
        f"Epoch: lengths are {source}, {found[:, 0].mean():.0f} words and {found[:, 1].mean():.0f} frames in the mean; for "
        f"training {arguments.num_rows} rows are drawn from them, for inference they are sorted."
    )
    drawn = found[np.random.default_rng(0).integers(len(found), size=arguments.num_rows)]
    model, plain = make_models(["text", "audio"], arguments)
    for mode in arguments.mode:
        batches = epoch_batches(found if mode == "inference" else drawn, mode, RECIPE_BATCH)
        padded = np.array([pairs.max(axis=0) for pairs in batches])
        # A handful of all batches, evenly by their size, stands for the epoch.
        by_size = np.argsort(padded.sum(axis=1), kind="stable")
        spread = np.linspace(0, len(by_size) - 1, 2 * min(arguments.num_batches, len(by_size)) + 1)[1::2]
        chosen = [batches[i] for i in by_size[spread.round().astype(int)]]
        results.remarks.append(
            f"An epoch of {mode}: batches pad to {padded[:, 0].mean():.1f} words and {padded[:, 1].mean():.1f} frames in the "
            f"mean, those of the plain model to {arguments.length} and {arguments.length}; {len(chosen)} of {len(batches)} "
            "batches stand for all, evenly from the shortest to the longest."
        )
        grouped = [make_batch(model.config, {"text": pairs[:, 0], "audio": pairs[:, 1]}) for pairs in chosen]
        compare_epoch(results, arguments, turns, (model, plain), grouped, mode)


def compare_epoch(results: Results, arguments, turns: Turns, models: tuple, grouped: list[dict], mode: str):
    make = make_inference if mode == "inference" else make_step
    names = [name for name_of_mode, name in EPOCH_AIMS if name_of_mode == mode]
    whole = pad_batch(grouped[-1], arguments.length)
    with torch.inference_mode(mode == "inference"):
        if mode == "inference":
            gap = (models[1](**whole) - models[0](**grouped[-1]).logits).abs().max().item()
            results.remarks.append(f"Logits with and without that padding differ by {gap:.1e} at most.")
        calls = {PLAIN: make(PLAIN, *models, whole)}
        for name in names:
            calls[name] = over_batches(make(name, *models, grouped[0]), grouped)
            calls[PRODUCTS + name] = only_products(calls[name])
        times = turns(calls)

    def ratio(name: str) -> float:  # the plain model has computed one batch, ours all that were chosen
        return float(np.median(np.divide(times[PLAIN], times[name]))) * len(grouped)

    for name in names:
        what = f"{mode}, an epoch of real lengths, {name.split(', ')[1]}"
        results.aims.append(Aim(what, f">= {EPOCH_AIMS[mode, name]} x", ratio(name), name, ratio(PRODUCTS + name)))


EPOCH_AIMS = {
    ("inference", "packed, float32"): 3,
    ("inference", "packed, bfloat16"): 6,
    ("training", "eager, float32"): 2.5,
    ("training", "autocast, bfloat16"): 5,
}


def over_batches(call: Callable, batches: Iterable[dict]) -> Callable[[], None]:
    """One call for all of the batches."""
    return lambda: [call(batch) for batch in batches] and None


def measure_scaling(results: Results, arguments: argparse.Namespace, turns: Turns):
    """Milliseconds for each utterance, as the batch, the length and the number of threads and of workers grow."""
    model, plain = make_models(["text", "audio"], arguments)
    ways = ("eager, float32", "packed, bfloat16")
    lengths = sorted({max(1, arguments.length * i // 6) for i in (1, 2, 4, 6)})
    sizes = [size for size in (1, 2, 4, 8, 16, 32) if size <= max(arguments.batch)]

    def cost(batch: dict) -> dict[str, float]:
        calls = {name: make_inference(name, model, plain, batch) for name in ways}
        size = len(batch["attention_mask"])
        return {name: 1000 * float(np.median(times)) / size for name, times in turns(calls).items()}

    def curve(costs: dict[int, dict[str, float]]) -> dict[str, list[tuple[float, float]]]:
        return {name: [(x, values[name]) for x, values in costs.items()] for name in ways}

    num_threads = torch.get_num_threads()
    with torch.inference_mode():
        results.curves["rows of a batch"] = curve({n: cost(full_batch(model.config, n)) for n in sizes})
        results.curves["words, and frames"] = curve({n: cost(full_batch(model.config, sizes[-1], n)) for n in lengths})
        threads = {}
        for n in range(1, num_threads + 1):
            torch.set_num_threads(n)
            threads[n] = cost(full_batch(model.config, sizes[-1]))
        torch.set_num_threads(num_threads)
        results.curves["threads"] = curve(threads)
        calls = {name: make_inference(name, model, plain, full_batch(model.config, 1)) for name in ways}
        workers = {n: reading_cost(calls, turns, n, arguments.length) for n in range(num_threads + 1)}
    results.curves["workers that read clips"] = curve(workers)


def reading_cost(calls: dict[str, Callable], turns: Turns, num_workers: int, length: int) -> dict[str, float]:
    """Milliseconds for each clip from its file to its answer, where processes of their own read and prepare the next."""
    clips = ClipBatches(sorted(CLIP.parent.glob("*.mp4")), RECIPE_BATCH, length)
    loader = DataLoader(clips, batch_size=None, num_workers=num_workers, persistent_workers=num_workers > 0)
    times = turns({name: over_batches(call, loader) for name, call in calls.items()})
    return {name: 1000 * float(np.median(seconds)) / len(clips.paths) for name, seconds in times.items()}


def measure_processor(results: Results, arguments: argparse.Namespace, turns: Turns):
    """Words to ids and sound to log-mel features, of 32 utterances."""
    rng = np.random.default_rng(0)
    words = [f"w{i}" for i in range(1000)]
    tokenizer, extractor = build_tokenizer(words), UmonsFeatureExtractor()
    texts = [" ".join(rng.choice(words, 20)) for _ in range(32)]
    sound = [rng.standard_normal(7 * extractor.sampling_rate).astype(np.float32) / 10 for _ in range(32)]
    times = turns(
        {
            "words to ids (20 each)": lambda: tokenizer(texts, padding=True, return_tensors="pt"),
            "log-mel frames (7 s each)": lambda: extractor(sound, extractor.sampling_rate, return_tensors="pt"),
        }
    )
    medians = {name: float(np.median(seconds)) for name, seconds in times.items()}
    results.stages["The processor, of 32 utterances"] = medians


COLD = """
import time; marks = [time.perf_counter()]; mark = lambda: marks.append(time.perf_counter())
from modeling_umons.cli.main import load_pipeline; from transformers import pipeline; import av; mark()
recognize = load_pipeline(None); mark()
from modeling_umons.models.umons.media_umons import read_clip; clip = read_clip({clip!r}, video=False); mark()
recognize({{"audio": clip.audio, "sampling_rate": clip.sampling_rate}}); mark()
print(*(b - a for a, b in zip(marks, marks[1:])))
"""


def measure_predict(results: Results, arguments: argparse.Namespace, turns: Turns):
    """`umons predict` from a cold start, stage by stage."""
    rounds, whole = [], []
    options = {"cwd": ROOT, "capture_output": True, "text": True, "check": True}
    for _ in range(arguments.num_starts):
        done = subprocess.run([sys.executable, "-c", COLD.format(clip=str(CLIP))], **options)
        rounds.append([float(word) for word in done.stdout.split()])
        began = time.perf_counter()
        subprocess.run([sys.executable, "-m", "modeling_umons.cli.main", "predict", str(CLIP)], **options)
        whole.append(time.perf_counter() - began)
    stages = dict(zip(("import", "load", "decode", "answer"), np.median(rounds, axis=0).tolist(), strict=True))
    results.stages["`umons predict` on a clip of 3 s, cold"] = stages
    results.remarks.append(f"The whole command takes {np.median(whole):.2f} s, the start and end of Python included.")


MEASURES = dict(
    zip(
        PARTS,
        (measure_recipe, measure_memory, measure_epoch, measure_scaling, measure_processor, measure_predict),
        strict=True,
    )
)


def measure(arguments: argparse.Namespace, measure_in_turns: Callable) -> Results:
    results, turns = Results(), Turns(measure_in_turns, arguments.repeats)
    with torch.inference_mode(False):
        for part in arguments.part:
            MEASURES[part](results, arguments, turns)
    results.aims = recipe_aims(results.cases) + results.aims
    return results


def recipe_aims(cases: list[Case]) -> list[Aim]:
    """Those of text and audio, as far as they were measured: the fastest way of each precision."""

    def memory(case: Case) -> float | None:
        plain = next(c for c in cases if (c.name, c.mode, c.batch) == (PLAIN, case.mode, case.batch))
        return case.peak / plain.peak if case.peak and plain.peak else None

    ratio, of_the_limit = attrgetter("ratio"), attrgetter("of_the_limit")
    wanted = [
        ("inference, float32", ">= 1.35 x", "inference", 32, torch.float32, ratio),
        ("inference, float32, of the limit", ">= 0.85", "inference", 32, torch.float32, of_the_limit),
        ("inference, bfloat16", ">= 2.8 x", "inference", 32, torch.bfloat16, ratio),
        ("inference, batch 1, answers to 2e-2", ">= 2.5 x", "inference", 1, None, ratio),
        ("training, float32", ">= 1.35 x", "training", 32, torch.float32, ratio),
        ("training, bfloat16", ">= 2.5 x", "training", 32, torch.bfloat16, ratio),
        ("training, peak memory", "<= 0.6 x", "training", 32, None, memory),
    ]
    aims = []
    for what, text, mode, batch, dtype, value in wanted:
        found = [
            case
            for case in cases
            if (case.modalities, case.mode, case.batch) == ("text_audio", mode, batch)
            if case.name != PLAIN and (case.difference or 0) <= 2e-2
            if dtype in (None, case.dtype) and value(case) is not None
        ]
        alone = [case for case in found if case.name.startswith(PRODUCTS)]
        if ways := [case for case in found if case not in alone]:
            best = (min if text.startswith("<") else max)(ways, key=value)
            bound = next((value(case) for case in alone if case.dtype == best.dtype), None)
            aims.append(Aim(what, text, value(best), best.name, bound))
    return aims


# ---- report ----


def to_tables(results: Results) -> list[str]:
    """Lines of Markdown."""
    lines = []
    if results.aims:
        lines += ["## Aims", ""]
        lines.append(
            "Batch 32 unless said, times faster than the plain model; in the last column, what would be reached by one that "
            "did nothing but its products of matrices."
        )
        lines += ["", "| What | Aim | Reached | By | Products alone |", "|---|---|---|---|---|"]
        for aim in results.aims:
            bound = "-" if aim.bound is None else f"{aim.bound:.2f}"
            lines.append(f"| {aim.what} | {aim.wanted} | {aim.reached:.2f} | {aim.name} | {bound} |")
        lines.append("")
    if results.rates:
        lines += [", ".join(f"{name}: {rate / 1e9:.0f} GFLOP/s" for name, rate in results.rates.items()) + ".", ""]
    if results.cases:
        lines += ["## Every case", ""]
        lines += [
            "| Modalities | Batch | Mode | How | ms | GFLOP | Of the limit | Times faster | Peak MB | Difference |"
        ]
        lines += ["|---|---|---|---|---|---|---|---|---|---|"]
    for case in results.cases:
        limit = "-" if case.of_the_limit is None else f"{case.of_the_limit:.2f}"
        peak = "-" if case.peak is None else f"{case.peak / 1e6:.0f}"
        gap = "-" if case.difference is None else f"{case.difference:.1e}"
        cells = [case.modalities.replace("_", "+"), case.batch, case.mode, case.name]
        cells += [
            f"{1000 * np.median(case.seconds):.1f}",
            f"{case.flops / 1e9:.1f}",
            limit,
            f"{case.ratio:.2f}",
            peak,
            gap,
        ]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    for title, stages in results.stages.items():
        lines += ["", f"## {title}", "", "| Stage | ms |", "|---|---|"]
        lines += [f"| {name} | {1000 * seconds:.1f} |" for name, seconds in stages.items()]
    return lines


def plot_curves(curves: dict, path: Path):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.2 * len(curves), 2.8), layout="constrained")
    for axes, (label, lines) in zip(
        figure.subplots(1, len(curves), sharey=True, squeeze=False)[0], curves.items(), strict=True
    ):
        for name, points in lines.items():
            axes.plot(*zip(*points, strict=True), marker="o", label=name)
        axes.set_xlabel(label)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("ms for each utterance")
    figure.axes[0].set_ylim(bottom=0)  # of all, once all is drawn
    figure.axes[0].legend(frameon=False)
    figure.savefig(path, dpi=100)


REMARKS = (
    "Plain: `tests/plain_umons.py`, the equations in PyTorch with separate projections, explicit softmax and a loop over "
    "glimpses; it trains with `torch.optim.Adam`. Ours trains with fused AdamW, which is Adam where nothing decays.",
    "FLOPs are counted by `torch.utils.flop_counter` of the plain model, and for the LSTM by formula. The limit is the rate "
    "of the product of 1920 x 1024 by 1024 x 1024 with `@`, in the same precision and rounds; above 1 is faster than that.",
    "Packed: `modeling_umons.export.packed_linear.pack_linears`, weights laid out once for oneDNN. Memory is what a "
    "process of its own holds at most in two calls (`VmHWM`), beyond what it held when all was imported; of int8, by a process "
    "that opens the graph's file. That of the plain model varies by as much as its glimpses hold, as its heap happens to break up.",
    "Compiled: `torch.compile` as it comes, for the batches of one and of 32; what trains takes minutes to compile.",
    "Products: the operators of a way to compute that multiply matrices (linear maps, LSTM, attention, glimpses), one after "
    "the other, of activations that lie in the cache where they can. The plain model has them as well, so what is aimed at "
    "beyond their ratio could only be reached by faster products.",
    "What bounds the epoch: words and frames of MOSEI's utterances correlate by 0.87, so no order of the rows makes both "
    "alike. Without any padding there would be 2.1 times fewer positions than 60 + 60; sorted batches of 32 have 1.9.",
)


def add_model_arguments(parser: argparse.ArgumentParser):
    parser.set_defaults(repeats=7, num_threads=torch.get_num_threads())
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS), help="what to measure (default: all)")
    parser.add_argument(
        "--batch", nargs="+", type=int, default=[1, 8, 32, 128], help="batch sizes (default: %(default)s)"
    )
    parser.add_argument(
        "--modalities", nargs="+", choices=MODALITIES, default=list(MODALITIES), help="(default: both)"
    )
    parser.add_argument("--mode", nargs="+", choices=["inference", "training"], default=["inference", "training"])
    parser.add_argument(
        "--variants", nargs="+", help="beginnings of the names of those to measure, such as packed products"
    )
    for name, default, text in (
        ("hidden_size", 512, "size of the model; it is twice that inside"),
        ("num_hidden_layers", 4, "blocks"),
        ("vocab_size", 14000, "words"),
        ("length", 60, "words and frames of the longest"),
        ("num_rows", 16000, "rows of an epoch of training"),
        ("num_batches", 6, "batches that stand for it"),
        ("num_starts", 3, "cold starts of the command"),
    ):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{text} (default: %(default)s)")
