"""Export of a saved model to a folder with its ONNX graph, checked against PyTorch."""

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from ..data.arguments import DataArguments
from ..data.collator import ArrowRows
from ..data.rows import load_splits, make_collator, usable_rows
from ..data.schema import SPLIT_NAMES
from ..evaluation.metrics import is_label_metric, task_metrics
from ..evaluation.training_rows import find_training_rows
from ..inference.loading import load_model
from ..models.umons.processing_umons import check_processor
from ..tasks.task import task_of
from ..utils.files import new_folder
from .onnx import (
    TOLERANCE,
    export_onnx,
    graph_inputs,
    make_session,
    max_difference,
    quantize_int8,
    random_inputs,
    run,
)


GRAPH_NAME, INT8_NAME = "model.onnx", "model_int8.onnx"

# A speed is the median of NUM_RUNS runs after NUM_WARM_UP runs; the engines take turns.
NUM_RUNS, NUM_WARM_UP = 20, 3


def torch_logits(model, inputs) -> np.ndarray:
    with torch.inference_mode():
        return model(**inputs).logits.numpy()


def print_speeds(engines: dict[str, Callable], model) -> None:
    """Print the milliseconds for batches of maximum length, and the speed-up over PyTorch."""
    longest = {modality: given.max_length for modality, given in graph_inputs(model).items()}
    for batch_size in (1,) if "audio" in model.model.encoders else (1, 32):  # 32 rows of 30 s take too long
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


def print_metrics(model_name: str, engines: dict[str, Callable], model, processor, dataset) -> None:
    """Print the metrics of each engine on a data set."""
    task = task_of(model.config)
    collator = make_collator(processor, model.config, task, dataset.column_names)
    rows, problems = usable_rows(dataset, collator, processor, DataArguments(), is_trained=True)
    if not len(rows):
        raise ValueError(f"The model cannot use any row of the data set: {problems[0]}")
    truth, logits = [], {name: [] for name in engines}
    for batch in torch.utils.data.DataLoader(ArrowRows(rows), 32, collate_fn=collator):
        truth.append(batch.pop("labels").numpy())
        for name, answer in engines.items():
            logits[name].append(answer(batch))
    truth = np.concatenate(truth)
    logits = {name: np.concatenate(of_engine) for name, of_engine in logits.items()}
    metrics = {name: task_metrics(task, truth, of_engine) for name, of_engine in logits.items()}

    print(f"\n{len(rows)} rows, {len(problems)} left out")
    if note := find_training_rows(model_name, rows, collator):
        print(f"warning: {note}")
    print(f"{'':24}" + "".join(f"{name:>12}" for name in engines))
    for metric in (name for name in metrics["PyTorch"] if not is_label_metric(name)):
        print(f"{metric:24}" + "".join(f"{metrics[name].get(metric, np.nan):12.4f}" for name in engines))
    distances = {name: np.abs(of_engine - logits["PyTorch"]) for name, of_engine in logits.items()}
    for how, of in (("largest", np.max), ("mean", np.mean)):
        print(f"{f'{how} difference':24}" + "".join(f"{of(distances[name]):12.2g}" for name in engines))


def export_model(
    name: str,
    output: Path,
    int8: bool = False,
    float_word_vectors: bool = False,
    check_dataset: str | None = None,
    split: str = "test",
) -> None:
    """
    Export a model to ONNX, check it against PyTorch, and print sizes, speeds and metrics.

    Args:
        name: The folder or Hub id of the model.
        output: The folder to write; new or empty.
        int8: Write a graph with 8-bit weights too.
        float_word_vectors: Leave the word vectors out of the 8-bit weights.
        check_dataset: A table, folder or Hub repository to evaluate all engines on.
        split: Its split.
    """
    with new_folder(output) as folder:
        # Check the arguments before the export, which takes longer.
        split = SPLIT_NAMES.get(split.lower(), split)
        dataset = load_splits(check_dataset, DataArguments(), split)[split] if check_dataset else None
        model, processor = load_model(name, ("umons",), dtype=torch.float32)
        check_processor(processor, model.config)
        if dataset is not None and "audio" in model.model.encoders and "audio_features" in dataset.column_names:
            raise ValueError(
                f"{check_dataset} has audio features, but a model with an audio encoder takes waveforms: pass a table "
                "of files, or leave --check_dataset out."
            )
        graph = export_onnx(model).SerializeToString()
        num_threads = torch.get_num_threads()
        sessions = {"ONNX": make_session(graph, num_threads)}
        difference = max_difference(sessions["ONNX"], model)
        if not difference <= TOLERANCE:
            raise ValueError(
                f"The logits of the exported model are up to {difference:.2g} from those of PyTorch, more than "
                f"{TOLERANCE:.0e}: nothing was written. Check the weights for very large or non-finite values."
            )
        (folder / GRAPH_NAME).write_bytes(graph)
        model.config.save_pretrained(folder)
        processor.save_pretrained(folder)
        print(f"{GRAPH_NAME}: {len(graph) / 1e6:.2f} MB, at most {difference:.1e} from PyTorch on random inputs")
        if int8:
            quantize_int8(folder / GRAPH_NAME, folder / INT8_NAME, word_vectors=not float_word_vectors)
            sessions["ONNX int8"] = make_session(folder / INT8_NAME, num_threads)
            size = (folder / INT8_NAME).stat().st_size
            difference = max_difference(sessions["ONNX int8"], model)
            print(f"{INT8_NAME}: {size / 1e6:.2f} MB, at most {difference:.2g} from PyTorch on random inputs")
        if model.config.video_tower is not None or model.config.video_encoder is not None:
            print("The graph does not contain the video tower or encoder: pass `video_features` from `umons extract`.")

        engines = {"PyTorch": lambda inputs: torch_logits(model, inputs)}
        engines |= {name: lambda inputs, s=session: run(s, inputs) for name, session in sessions.items()}
        if int8:
            print_speeds(engines, model)
        if dataset is not None:
            print_metrics(name, engines, model, processor, dataset)
    print(f"\n{output} contains the ONNX model, its configuration and its processor.")
