"""Export a model to ONNX, checked against PyTorch, with what onnxruntime and AutoProcessor need beside it.

    python scripts/export_onnx.py runs/sample runs/onnx
    python scripts/export_onnx.py hub/umons-mini runs/onnx --int8 --check_dataset mosi --split test

OUT_DIR has model.onnx, config.json and the files of the processor. The inputs of model.onnx are those of the model, values
and mask of each modality it has; batch and lengths are free; the output is `logits`. All modalities are always taken:
one that is missing is a sequence of any length with a mask of zeros, which `complete_inputs` of modeling_umons.export.onnx
adds to what the processor gives.

Pretrained encoders of text and sound are a part of model.onnx, so that it takes what AutoProcessor gives: `input_ids`, and
as `input_values` waveforms, or the spectrograms of Whisper, of one length. A video tower or encoder is no part of it: it
takes `video_features`. An encoder that ONNX has no way to hold is an error that says so.

Before anything is written, the answers are compared with PyTorch's, for 1, 3 and 8 rows, the shortest sequences and the
longest, rows and batches without a modality; a difference above 1e-4 is an error. OUT_DIR appears whole or not at all.

--int8 writes model_int8.onnx beside it, with weights in eight bits; with --float_word_vectors all but the word vectors, which
makes it larger and closer to the model. Sizes and speeds are shown (a full batch of 1 row, and without an encoder of sound
of 32, on as many threads for all), and with --check_dataset also how well each of them does. No difference is refused there.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from datasets.exceptions import DatasetsError
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForSequenceClassification
from transformers.utils.logging import disable_progress_bar

from .. import UmonsProcessor
from ..data.arguments import DataArguments
from ..data.collator import ArrowRows
from ..data.rows import load_splits, make_collator, usable_rows
from ..data.schema import SPLIT_NAMES
from ..evaluation.metrics import is_emotion_metric, task_metrics
from ..export.onnx import (
    TOLERANCE,
    export_onnx,
    graph_inputs,
    make_session,
    max_difference,
    quantize_int8,
    random_inputs,
    run,
)
from ..models.umons.processing_umons import check_processor
from ..tasks.task import task_of
from ..utils.files import new_folder


GRAPH_NAME, INT8_NAME = "model.onnx", "model_int8.onnx"

# Of each speed, the median of so many runs after some that do not count; the engines take turns.
NUM_RUNS, NUM_WARM_UP = 20, 3


def load(name: str):
    """The model in float32, for the CPU, and its processor. Raises OSError where there is no such model."""
    try:
        config = AutoConfig.from_pretrained(name)
        if config.model_type != "umons":
            raise ValueError(f"it is of the type {config.model_type!r}, and no UMONS model.")
        model = AutoModelForSequenceClassification.from_pretrained(name, config=config, dtype=torch.float32)
        return model.eval(), UmonsProcessor.from_pretrained(name)
    except (OSError, ValueError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0]
        raise OSError(f"{name}: no model can be loaded from there: {reason}") from error


def torch_logits(model, inputs) -> np.ndarray:
    with torch.inference_mode():
        return model(**inputs).logits.numpy()


def print_speeds(engines: dict[str, Callable], model) -> None:
    """Milliseconds for batches of the longest sequences, and how many times as fast as PyTorch that is."""
    longest = {modality: given.max_length for modality, given in graph_inputs(model).items()}
    for batch_size in (1,) if "audio" in model.model.encoders else (1, 32):  # 32 sounds of half a minute are too many
        inputs = random_inputs(model, batch_size, longest)
        times = {name: [] for name in engines}
        for _ in range(NUM_WARM_UP + NUM_RUNS):
            for name, answer in engines.items():
                start = time.perf_counter()
                answer(inputs)
                times[name].append(time.perf_counter() - start)
        medians = {name: statistics.median(of_engine[NUM_WARM_UP:]) for name, of_engine in times.items()}
        shown = ", ".join(
            f"{name} {median * 1e3:.2f} ms ({medians['PyTorch'] / median:.2f} x)" for name, median in medians.items()
        )
        print(f"{batch_size:2d} row(s), {torch.get_num_threads()} thread(s): {shown}")


def print_metrics(engines: dict[str, Callable], model, processor, dataset) -> None:
    """How well each engine does on the rows of a data set, side by side."""
    task = task_of(model.config)
    collator = make_collator(processor, model.config, task, dataset.column_names)
    rows, problems = usable_rows(dataset, collator, processor, DataArguments(), is_trained=True)
    if not len(rows):
        raise ValueError(f"The model can use no row of the data set: {problems[0]}")
    truth, logits = [], {name: [] for name in engines}
    for batch in torch.utils.data.DataLoader(ArrowRows(rows), 32, collate_fn=collator):
        truth.append(batch.pop("labels").numpy())
        for name, answer in engines.items():
            logits[name].append(answer(batch))
    truth = np.concatenate(truth)
    logits = {name: np.concatenate(of_engine) for name, of_engine in logits.items()}
    metrics = {name: task_metrics(task, truth, of_engine) for name, of_engine in logits.items()}

    print(f"\n{len(rows)} rows, {len(problems)} left out")
    print(f"{'':24}" + "".join(f"{name:>12}" for name in engines))
    for metric in (name for name in metrics["PyTorch"] if not is_emotion_metric(name)):
        print(f"{metric:24}" + "".join(f"{metrics[name].get(metric, np.nan):12.4f}" for name in engines))
    distances = {name: np.abs(of_engine - logits["PyTorch"]) for name, of_engine in logits.items()}
    for how, of in (("largest", np.max), ("mean", np.mean)):
        print(f"{f'{how} difference':24}" + "".join(f"{of(distances[name]):12.2g}" for name in engines))


def export(args: argparse.Namespace) -> None:
    with new_folder(args.output) as folder:
        # What can be wrong with the arguments, before what takes long.
        split = SPLIT_NAMES.get(args.split.lower(), args.split)
        dataset = load_splits(args.check_dataset, DataArguments(), split)[split] if args.check_dataset else None
        model, processor = load(args.model)
        check_processor(processor, model.config)
        if dataset is not None and "audio" in model.model.encoders and "audio_features" in dataset.column_names:
            raise ValueError(
                f"{args.check_dataset} has features of sound, but a model with an audio encoder takes sound itself: give a "
                "table of files, or leave --check_dataset out."
            )
        graph = export_onnx(model).SerializeToString()
        num_threads = torch.get_num_threads()
        sessions = {"ONNX": make_session(graph, num_threads)}
        difference = max_difference(sessions["ONNX"], model)
        if not difference <= TOLERANCE:
            raise ValueError(
                f"The logits of the exported model are up to {difference:.2g} from those of PyTorch, more than "
                f"{TOLERANCE:.0e}: nothing was written. A model whose weights are very large, or not finite, does that."
            )
        (folder / GRAPH_NAME).write_bytes(graph)
        model.config.save_pretrained(folder)
        processor.save_pretrained(folder)
        print(f"{GRAPH_NAME}: {len(graph) / 1e6:.2f} MB, at most {difference:.1e} from PyTorch on random inputs")
        if args.int8:
            quantize_int8(folder / GRAPH_NAME, folder / INT8_NAME, word_vectors=not args.float_word_vectors)
            sessions["ONNX int8"] = make_session(folder / INT8_NAME, num_threads)
            size = (folder / INT8_NAME).stat().st_size
            difference = max_difference(sessions["ONNX int8"], model)
            print(f"{INT8_NAME}: {size / 1e6:.2f} MB, at most {difference:.2g} from PyTorch on random inputs")
        if model.config.video_tower is not None or model.config.video_encoder is not None:
            print(
                "The video tower, or encoder, is not in it: give `video_features`, as scripts/extract_features.py computes them."
            )

        engines = {"PyTorch": lambda inputs: torch_logits(model, inputs)}
        engines |= {name: lambda inputs, s=session: run(s, inputs) for name, session in sessions.items()}
        if args.int8:
            print_speeds(engines, model)
        if dataset is not None:
            print_metrics(engines, model, processor, dataset)
    print(f"\n{args.output} holds the ONNX model, with its configuration and processor.")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="the folder of a model, or its name on the Hub")
    parser.add_argument("output", type=Path, help="the folder to write, which must be new or empty")
    parser.add_argument("--int8", action="store_true", help="also write model_int8.onnx, and measure its speed")
    parser.add_argument("--float_word_vectors", action="store_true", help="leave word vectors out of --int8")
    parser.add_argument("--check_dataset", help="measure all on it: a table, or a folder of prepare_mosei.py")
    parser.add_argument("--split", default="test", help="which split of it (default: test)")
    args = parser.parse_args()
    if args.float_word_vectors and not args.int8:
        parser.error("--float_word_vectors says what --int8 leaves as it is: give --int8 as well.")
    disable_progress_bar()
    try:
        export(args)
    except ImportError as error:
        raise SystemExit(f"error: {error}. Install what ONNX needs: pip install 'modeling-umons[onnx]'") from error
    except (OSError, ValueError, DatasetsError) as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    main()
