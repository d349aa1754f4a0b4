# Copyright 2026 The modeling_umons authors.
# SPDX-License-Identifier: MIT
"""UMONS models as ONNX graphs, checked against PyTorch; int8 weights; and the inputs that such a graph wants.

A graph has the inputs of the model by their names, values and mask of every modality that the model has, and one output,
`logits`. Batch and lengths are free. A modality that is missing, for a row or for all, has a mask of zeros there, and
values of any length: [`complete_inputs`] adds them. What a graph cannot do is refuse: sequences longer than the model
takes, and rows without anything in any modality, are for the processor to keep away.
"""

import copy
import logging
from collections.abc import Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import nn

from .configuration_umons import UmonsConfig
from .front_ends_umons import UmonsLSTM
from .inputs_umons import INPUT_NAMES
from .modeling_umons import UmonsForSequenceClassification


MASK_NAMES = {"text": "attention_mask", "audio": "input_features_mask", "video": "video_features_mask"}

# The newest that has each operator of the graph and that onnxruntime's quantiser knows.
OPSET = 20

TOLERANCE = 1e-4

DTYPES = {"tensor(int64)": np.int64, "tensor(float)": np.float32}


class OnnxLSTM(nn.Module):
    """
    ONNX' own operator in the place of a [`UmonsLSTM`], for export alone: outside of a graph it gives zeros. The
    exporter's own way is a loop over the steps, which it also fails to trace a second time in one process.
    """

    def __init__(self, lstm: UmonsLSTM):
        super().__init__()
        self.hidden_size = lstm.hidden_size
        self.register_buffer("weight", _reorder_gates(lstm.weight_ih_l0)[None])
        self.register_buffer("recurrence", _reorder_gates(lstm.weight_hh_l0)[None])
        biases = [_reorder_gates(lstm.bias_ih_l0), _reorder_gates(lstm.bias_hh_l0)]
        self.register_buffer("bias", torch.cat(biases)[None])

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        batch_size, length, _ = hidden_states.shape
        # Time first; the second axis of the result is the direction. States start as zeros.
        hidden_states = torch.onnx.ops.symbolic(
            "LSTM",
            (hidden_states.transpose(0, 1), self.weight, self.recurrence, self.bias),
            attrs={"hidden_size": self.hidden_size},
            dtype=hidden_states.dtype,
            shape=(length, 1, batch_size, self.hidden_size),
            version=OPSET,
        )
        return hidden_states.squeeze(1).transpose(0, 1)


def _reorder_gates(parameter: torch.Tensor) -> torch.Tensor:
    """From PyTorch's order, input, forget, cell, output, to that of ONNX: input, output, forget, cell."""
    in_gate, forget_gate, cell, out_gate = parameter.detach().chunk(4)
    return torch.cat([in_gate, out_gate, forget_gate, cell])


def export_onnx(model: UmonsForSequenceClassification):
    """
    The graph of a model, in float32.

    Args:
        model: any that has no `legacy_masking` of three modalities. A video tower is left out: the graph takes
            `video_features`.

    Returns:
        `onnx.ModelProto`, with nothing in it of the machine that made it. It is not checked: see [`max_difference`].

    Raises:
        ValueError: the model is one that cannot be exported.
    """
    config = model.config
    if config.legacy_masking and len(config.modalities) == 3:
        raise ValueError(
            "A model with `legacy_masking` of text, audio and video cannot be exported: onnxruntime has no operator for "
            "the way it chooses the mask of the video. Models of text and audio can, and all without `legacy_masking`."
        )
    exported = copy.deepcopy(model).cpu().float().eval()
    exported.model.video_tower = None
    exported.set_attn_implementation("eager")  # half as many operators as the other one becomes
    if "text" in config.modalities:
        front_end = exported.model.front_ends["text"]
        front_end.lstm = OnnxLSTM(front_end.lstm)

    # Lengths that differ from one another and from 1, so that none is taken for another or for a constant.
    lengths = {m: min(config.length_limit(m), 5 + 2 * i) for i, m in enumerate(config.modalities)}
    with torch.no_grad():
        program = torch.onnx.export(
            exported,
            (),
            kwargs=random_inputs(config, 3, lengths),
            input_names=_input_names(config),
            output_names=["logits"],
            opset_version=OPSET,
            dynamic_shapes=_dynamic_shapes(config),
            dynamo=True,
            verbose=False,
        )
    graph = program.model_proto
    _strip(graph)
    return graph


def _input_names(config: UmonsConfig) -> list[str]:
    return [name for modality in config.modalities for name in (INPUT_NAMES[modality], MASK_NAMES[modality])]


def _dynamic_shapes(config: UmonsConfig) -> dict[str, dict]:
    """Each axis has its name where it comes first; elsewhere it is found to be the same, as masks must fit values."""
    same, fixed = torch.export.Dim.AUTO, torch.export.Dim.STATIC
    shapes = {}
    for modality in config.modalities:
        batch = same if shapes else torch.export.Dim("batch", min=1)
        limit = config.length_limit(modality)
        length = torch.export.Dim(f"{modality}_length", min=1, max=limit) if limit > 1 else fixed
        shapes[INPUT_NAMES[modality]] = {0: batch, 1: length}
        shapes[MASK_NAMES[modality]] = {0: same, 1: same if limit > 1 else fixed}
    return shapes


def _strip(message) -> None:
    """Takes out what the exporter notes of every node: stack traces, with the folders of the machine."""
    for field, value in message.ListFields():
        if field.name in ("doc_string", "metadata_props"):
            message.ClearField(field.name)
        elif field.message_type is not None:
            for part in value if field.is_repeated else [value]:
                _strip(part)


def random_inputs(
    config: UmonsConfig, batch_size: int, lengths: Mapping[str, int], seed: int = 0
) -> dict[str, torch.Tensor]:
    """
    Inputs of a model: of each modality in `lengths` a sequence that long in every row but the last, which is padding in
    its second half; and in a batch of three or more rows, row i lacks the i-th modality if there is another one.
    """
    generator = torch.Generator().manual_seed(seed)
    sizes = {"audio": config.audio_feature_size, "video": config.video_feature_size}
    inputs = {}
    for row, (modality, length) in enumerate(lengths.items()):
        if modality == "text":
            values = torch.randint(config.vocab_size, (batch_size, length), generator=generator)
        else:
            values = torch.randn(batch_size, length, sizes[modality], generator=generator)
        mask = torch.ones(batch_size, length, dtype=torch.int64)
        if batch_size > 1:
            mask[-1, (length + 1) // 2 :] = 0
        if batch_size > 2 and len(lengths) > 1:
            mask[row] = 0
        inputs |= {INPUT_NAMES[modality]: values, MASK_NAMES[modality]: mask}
    return inputs


def max_difference(session, model: UmonsForSequenceClassification) -> float:
    """
    How far the logits of a graph are from those of PyTorch at most: batches of 1, 3 and 8 rows, lengths of 1, a half of
    the limit and the limit, with padding, with rows that lack a modality, and with each modality left out of the call.
    """
    config = model.config
    limits = {modality: config.length_limit(modality) for modality in config.modalities}
    cases = [
        (1, dict.fromkeys(limits, 1)),
        (3, {modality: max(1, limit // 2) for modality, limit in limits.items()}),
        (8, limits),
        # The guide short and the others long, and the other way round.
        (3, {modality: 1 if i == 0 else limit for i, (modality, limit) in enumerate(limits.items())}),
        (3, {modality: limit if i == 0 else 1 for i, (modality, limit) in enumerate(limits.items())}),
    ]
    if len(limits) > 1:
        cases += [(3, {m: limit for m, limit in limits.items() if m != absent}) for absent in limits]
    differences = []
    for seed, (batch_size, lengths) in enumerate(cases):
        inputs = random_inputs(config, batch_size, lengths, seed)
        with torch.inference_mode():
            expected = model(**inputs).logits.float().numpy()
        differences.append(np.abs(run(session, inputs) - expected).max())
    return float(np.max(differences))  # NaN if any is


def quantize_int8(source: str | Path, target: str | Path) -> None:
    """
    Writes the graph `source` with its weights, word vectors included, in eight bits, with a scale for each output channel;
    those of the LSTM stay in float32. What the weights are multiplied with is rounded as it comes, by its range in the
    batch: unlike in the float32 graph, the answer for a row depends a little on the rows and the padding beside it.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with _without_hint():
        # Weights use seven of the bits: with eight, sums overflow on CPUs that lack the instructions for them (VNNI).
        quantize_dynamic(Path(source), Path(target), per_channel=True, reduce_range=True, weight_type=QuantType.QInt8)


@contextmanager
def _without_hint():
    """Without onnxruntime's advice to run a preprocessing, which the exporter has done already."""

    def is_other(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith("Please consider to run pre-processing before quantization")

    logger = logging.getLogger()
    logger.addFilter(is_other)
    try:
        yield
    finally:
        logger.removeFilter(is_other)


def make_session(graph: str | Path | bytes, num_threads: int = 0):
    """An `onnxruntime.InferenceSession` on the CPU; `num_threads` of 0 are as many as onnxruntime likes."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    graph = graph if isinstance(graph, bytes) else str(graph)
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def complete_inputs(session, inputs: Mapping) -> dict[str, np.ndarray]:
    """
    What `session.run` wants, from what a processor gives.

    Args:
        session: `onnxruntime.InferenceSession` of an exported model.
        inputs: arrays or CPU tensors by the names of the model's inputs. A modality may be left out.

    Returns:
        the same as numpy arrays, and for each modality that is left out zeros of length 1, masks included.

    Raises:
        ValueError: there is no modality, one without its mask, or an input that the graph does not have.
    """
    wanted = {entry.name: entry for entry in session.get_inputs()}
    if unknown := [name for name in inputs if name not in wanted]:
        remedy = (
            "compute `video_features` from it, as scripts/extract_features.py does"
            if "pixel_values_videos" in unknown
            else "leave it out"
        )
        raise ValueError(f"The ONNX model takes {', '.join(wanted)}, but {', '.join(unknown)} is given: {remedy}.")
    for modality, name in INPUT_NAMES.items():
        if (name in inputs) != (MASK_NAMES[modality] in inputs):
            raise ValueError(f"`{name}` and `{MASK_NAMES[modality]}` go together, but only one of them is given.")
    if not inputs:
        raise ValueError(f"No input: pass at least one modality of {', '.join(wanted)}.")
    num_rows = len(next(iter(inputs.values())))
    empty = {name: np.zeros((num_rows, 1, *entry.shape[2:])) for name, entry in wanted.items()}
    return {name: np.asarray(inputs.get(name, empty[name]), DTYPES[wanted[name].type]) for name in wanted}


def run(session, inputs: Mapping) -> np.ndarray:
    """The logits (B, num_labels) float32, of inputs that need not be complete."""
    return session.run(["logits"], complete_inputs(session, inputs))[0]
