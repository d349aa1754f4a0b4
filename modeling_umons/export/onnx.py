# Copyright 2026 The modeling_umons authors.
# SPDX-License-Identifier: MIT
"""UMONS models as ONNX graphs, checked against PyTorch; int8 weights; and the inputs that such a graph wants.

A graph has the inputs of the model by the names that its processor gives them, values and mask of every modality that the
model has, and one output, `logits`. Encoders of text and sound are a part of it. Batch and lengths are free, but for the
window of Whisper. A modality that is missing, for a row or for all, has a mask of zeros there, and values of any length,
of waveforms at least the `min_samples` of the graph's metadata: [`complete_inputs`] adds them. What a graph cannot do is
refuse: sequences longer than the model takes, and rows without anything in any modality, are for the processor to keep away.
"""

import bisect
import copy
import logging
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from ..models.umons.configuration_umons import UmonsConfig
from ..models.umons.encoders_umons import UmonsAudioEncoder
from ..models.umons.modeling_tbje import UmonsForSequenceClassification, UmonsLSTM


MASK_NAMES = {
    "input_ids": "attention_mask",
    "input_features": "input_features_mask",
    "input_values": "input_values_mask",
    "audio_embeds": "audio_embeds_mask",
    "video_features": "video_features_mask",
    "video_embeds": "video_embeds_mask",
}

# The newest that has each operator of the graph and that onnxruntime's quantiser knows.
OPSET = 20

TOLERANCE = 1e-4

DTYPES = {"tensor(int64)": np.int64, "tensor(float)": np.float32}

MAX_BYTES = 2**31  # which protobuf holds at most
MAX_SAMPLES = 2**31  # more than any model hears

# What the metadata of a graph calls the fewest samples of which its audio encoder makes something.
MIN_SAMPLES = "min_samples"


@dataclass(frozen=True)
class GraphInput:
    """
    What a graph takes of a modality: values (B, T, *size) and their mask (B, T). With a `window` values are (B, *size, T) with
    T as large as that always, and lengths are those of what is there.
    """

    name: str
    min_length: int
    max_length: int
    size: tuple[int, ...] = ()
    window: int | None = None

    @property
    def mask_name(self) -> str:
        return MASK_NAMES[self.name]

    @property
    def is_free(self) -> bool:
        """Whether T is any length."""
        return self.window is None and self.min_length < self.max_length

    def shape(self, batch_size: int, length: int) -> tuple[int, ...]:
        return (batch_size, length, *self.size) if self.window is None else (batch_size, *self.size, self.window)


def graph_inputs(model: UmonsForSequenceClassification) -> dict[str, GraphInput]:
    """By modality, what the graph of a model takes. Raises ValueError for an audio encoder that is of no known kind."""
    config = model.config
    sizes = {"text": (), "audio": (config.audio_feature_size,), "video": (config.video_feature_size,)}
    inputs = {m: GraphInput(config.sequence_name(m), 1, config.length_limit(m), sizes[m]) for m in config.modalities}
    if "audio" in model.model.encoders:
        inputs["audio"] = _sound_input(config, model.model.encoders["audio"])
    return inputs


def _sound_input(config: UmonsConfig, encoder: UmonsAudioEncoder) -> GraphInput:
    """Waveforms, from as many samples as make a step to as many as the model takes; or frames of Whisper's spectrograms."""
    sound = config.audio_encoder
    if hasattr(sound, "conv_stride"):

        def count_steps(num_samples: int) -> int:
            return int(encoder.count_steps(torch.tensor(num_samples), 1, 1))

        shortest = bisect.bisect_left(range(MAX_SAMPLES), 1, key=count_steps)
        longest = bisect.bisect_right(range(MAX_SAMPLES), config.max_audio_length, key=count_steps) - 1
        return GraphInput("input_values", shortest, longest)
    if hasattr(sound, "num_mel_bins") and hasattr(sound, "max_source_positions"):
        window = 2 * sound.max_source_positions  # its second convolution leaves out every other frame
        return GraphInput("input_features", 1, min(2 * config.max_audio_length, window), (sound.num_mel_bins,), window)
    raise ValueError(
        f"A model with an audio encoder of the type {sound.model_type!r} cannot be exported, those with wav2vec 2.0, HuBERT, "
        "WavLM and Whisper can. Export it without, `del model.model.encoders['audio']`, and give the graph as "
        "`audio_embeds` the output of `get_audio_features`."
    )


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


class OnnxAudioEncoder(nn.Module):
    """A [`UmonsAudioEncoder`] of a fixed window, of which the model takes no more than its first `max_length` steps."""

    def __init__(self, encoder: UmonsAudioEncoder, max_length: int):
        super().__init__()
        self.encoder = encoder
        self.input_name = encoder.input_name
        self.max_length = max_length

    def forward(self, values: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        states, mask = self.encoder(values, mask)
        return states[:, : self.max_length], mask[:, : self.max_length]


def export_onnx(model: UmonsForSequenceClassification):
    """
    The graph of a model, in float32.

    Args:
        model: any that has no `legacy_masking` of three modalities. Encoders of text and sound are a part of the graph,
            which takes `input_values` (B, samples), or for Whisper `input_features` (B, mel bins, frames). A video tower or
            encoder is left out: the graph takes its output, `video_features` or `video_embeds`.

    Returns:
        `onnx.ModelProto`, with nothing in it of the machine that made it. It is not checked: see [`max_difference`].

    Raises:
        ValueError: the model cannot be exported, for its `legacy_masking`, its encoders or its size.
    """
    _check_exportable(model)
    inputs = graph_inputs(model)
    exported = _prepare(model)
    # Lengths that differ from one another and from 1, so that none is taken for another or for a constant.
    lengths = {m: min(x.max_length, x.min_length * (5 + 2 * i)) for i, (m, x) in enumerate(inputs.items())}
    with torch.no_grad(), _named_encoders(exported):
        program = torch.onnx.export(
            exported,
            (),
            kwargs=random_inputs(model, 3, lengths),
            input_names=[name for x in inputs.values() for name in (x.name, x.mask_name)],
            output_names=["logits"],
            opset_version=OPSET,
            dynamic_shapes=_dynamic_shapes(inputs),
            dynamo=True,
            verbose=False,
        )
    graph = program.model_proto
    _strip(graph)
    if "audio" in exported.model.encoders:
        graph.metadata_props.add(key=MIN_SAMPLES, value=str(inputs["audio"].min_length))
    return graph


def _check_exportable(model: UmonsForSequenceClassification):
    if model.config.legacy_masking and len(model.config.modalities) == 3:
        raise ValueError(
            "A model with `legacy_masking` of text, audio and video cannot be exported: onnxruntime has no operator for "
            "the way it chooses the mask of the video. Models of text and audio can, and all without `legacy_masking`."
        )
    left_out = ("model.video_tower.", "model.encoders.video.")
    size = 4 * sum(p.numel() for name, p in model.named_parameters() if not name.startswith(left_out))
    if size >= MAX_BYTES:
        raise ValueError(
            f"The model has {size / 1e9:.1f} GB of weights in float32, but an ONNX file holds {MAX_BYTES / 1e9:.1f}: take "
            "smaller encoders."
        )


@contextmanager
def _named_encoders(exported: UmonsForSequenceClassification):
    """Errors of the exporter say which encoders it fails on, if there are any."""
    try:
        yield
    except torch.onnx.OnnxExporterError as error:
        types = [exported.config.encoder_of(modality).model_type for modality in exported.model.encoders]
        if not types:
            raise
        raise ValueError(
            f"A model with encoders of the type {' and '.join(map(repr, types))} cannot be exported: torch.onnx does not "
            "follow what they do. Take others: BERT, MiniLM, RoBERTa or DeBERTa for text; wav2vec 2.0, HuBERT, WavLM or Whisper for "
            "sound."
        ) from error


def _prepare(model: UmonsForSequenceClassification) -> UmonsForSequenceClassification:
    """A copy of what the graph is to hold, as the exporter likes it."""
    exported = copy.deepcopy(model).cpu().float().eval()
    body, config = exported.model, exported.config
    body.video_tower = None
    if "video" in body.encoders:
        del body.encoders["video"]
    if "audio" in body.encoders and not hasattr(config.audio_encoder, "conv_stride"):
        body.encoders["audio"] = OnnxAudioEncoder(body.encoders["audio"], config.max_audio_length)
    if "text" in config.modalities and "text" not in body.encoders:
        body.front_ends["text"].lstm = OnnxLSTM(body.front_ends["text"].lstm)
    for module in exported.modules():
        if isinstance(module, PreTrainedModel):
            module.config._attn_implementation = "eager"  # half as many operators as the other one becomes
    return exported


def _dynamic_shapes(inputs: dict[str, GraphInput]) -> dict[str, dict]:
    """Each axis has its name where it comes first; elsewhere it is found to be the same, as masks must fit values."""
    same, fixed = torch.export.Dim.AUTO, torch.export.Dim.STATIC
    shapes = {}
    for modality, given in inputs.items():
        batch = same if shapes else torch.export.Dim("batch", min=1)
        length, same_length = fixed, fixed
        if given.is_free:
            length = torch.export.Dim(f"{modality}_length", min=given.min_length, max=given.max_length)
            same_length = same
        shapes[given.name] = {0: batch, 1: length}
        shapes[given.mask_name] = {0: same, 1: same_length}
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
    model: UmonsForSequenceClassification, batch_size: int, lengths: Mapping[str, int], seed: int = 0
) -> dict[str, torch.Tensor]:
    """
    Inputs of a graph and its model: of each modality in `lengths` a sequence that long in every row but the last, which is
    padding in its second half, unless too little for a step would be left; and in a batch of three or more rows, row i lacks
    the i-th modality if there is another one.
    """
    generator = torch.Generator().manual_seed(seed)
    given = graph_inputs(model)
    inputs = {}
    for row, (modality, length) in enumerate(lengths.items()):
        shape = given[modality].shape(batch_size, length)
        if modality == "text":
            values = torch.randint(model.config.vocab_size, shape, generator=generator)
        else:
            values = torch.randn(shape, generator=generator)
        mask = torch.zeros(batch_size, given[modality].window or length, dtype=torch.int64)
        mask[:, :length] = 1
        if batch_size > 1:
            mask[-1, max(given[modality].min_length, (length + 1) // 2) :] = 0
        if batch_size > 2 and len(lengths) > 1:
            mask[row] = 0
        inputs |= {given[modality].name: values, given[modality].mask_name: mask}
    return inputs


def max_difference(session, model: UmonsForSequenceClassification) -> float:
    """
    How far the logits of a graph are from those of PyTorch at most: batches of 1, 3 and 8 rows, the shortest sequences, the
    longest and half of those, with padding, with rows that lack a modality, and with each modality left out of the call.
    """
    given = graph_inputs(model)
    shortest = {modality: limits.min_length for modality, limits in given.items()}
    longest = {modality: limits.max_length for modality, limits in given.items()}
    guide = model.config.modalities[0]
    cases = [
        (1, shortest),
        (3, {modality: max(shortest[modality], longest[modality] // 2) for modality in given}),
        (8, longest),
        # The guide short and the others long, and the other way round.
        (3, longest | {guide: shortest[guide]}),
        (3, shortest | {guide: longest[guide]}),
    ]
    if len(given) > 1:
        cases += [(3, {m: length for m, length in longest.items() if m != absent}) for absent in given]
    differences = []
    for seed, (batch_size, lengths) in enumerate(cases):
        inputs = random_inputs(model, batch_size, lengths, seed)
        with torch.inference_mode():
            expected = model(**inputs).logits.float().numpy()
        differences.append(np.abs(run(session, inputs) - expected).max())
    return float(np.max(differences))  # NaN if any is


def quantize_int8(source: str | Path, target: str | Path, word_vectors: bool = True) -> None:
    """
    Writes the graph `source` with its weights in eight bits, with a scale for each output channel; word vectors stay in
    float32 if `word_vectors` is False, for a graph that is larger and closer to the model. What the weights are multiplied
    with is rounded as it comes, by its range in the batch: unlike in the float32 graph, the answer for a row depends a
    little on the rows and the padding beside it.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with _without_hint():
        # Weights use seven of the bits: with eight, sums overflow on CPUs that lack the instructions for them (VNNI).
        options = {} if word_vectors else {"op_types_to_quantize": ["MatMul", "Gemm", "LSTM"]}
        quantize_dynamic(
            Path(source), Path(target), per_channel=True, reduce_range=True, weight_type=QuantType.QInt8, **options
        )


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
    # Between its operators threads wait spinning, which saves a quarter of the time of one row or more; by default they go
    # on for a while after the answer, and take the cores from whatever comes then.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    graph = graph if isinstance(graph, bytes) else str(graph)
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def complete_inputs(session, inputs: Mapping) -> dict[str, np.ndarray]:
    """
    What `session.run` wants, from what a processor gives.

    Args:
        session: `onnxruntime.InferenceSession` of an exported model.
        inputs: arrays or CPU tensors by the names of the model's inputs. A modality may be left out.

    Returns:
        the same as numpy arrays, and for each modality that is left out zeros of the shortest length, masks included.

    Raises:
        ValueError: there is no modality, one without its mask, or an input that the graph does not have.
    """
    wanted = {entry.name: entry for entry in session.get_inputs()}
    if unknown := [name for name in inputs if name not in wanted]:
        if "pixel_values_videos" in unknown:
            remedy = "compute the video features from it, as `umons extract` does"
        elif unknown[0] in MASK_NAMES:
            remedy = "give what the processor that is saved beside it makes"
        else:
            remedy = "leave it out"
        raise ValueError(f"The ONNX model takes {', '.join(wanted)}, but {', '.join(unknown)} is given: {remedy}.")
    for name, mask_name in MASK_NAMES.items():
        if (name in inputs) != (mask_name in inputs):
            raise ValueError(f"`{name}` and `{mask_name}` go together, but only one of them is given.")
    if not inputs:
        raise ValueError(f"No input: pass at least one modality of {', '.join(wanted)}.")
    num_rows = len(next(iter(inputs.values())))
    min_samples = int(session.get_modelmeta().custom_metadata_map.get(MIN_SAMPLES, 1))
    lengths = dict.fromkeys(("input_values", "input_values_mask"), min_samples)
    complete = {}
    for name, entry in wanted.items():
        # Axes that are free have names in place of sizes; of these the first is the batch.
        sizes = [size if isinstance(size, int) else lengths.get(name, 1) for size in entry.shape[1:]]
        values = inputs[name] if name in inputs else np.zeros((num_rows, *sizes))
        complete[name] = np.asarray(values, DTYPES[entry.type])
    return complete


def run(session, inputs: Mapping) -> np.ndarray:
    """The logits (B, num_labels) float32, of inputs that need not be complete."""
    return session.run(["logits"], complete_inputs(session, inputs))[0]
