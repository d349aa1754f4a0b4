"""ONNX graphs of UMONS models: export, comparison with PyTorch, int8 weights, and inputs.

The inputs of a graph are values and mask of every modality of the model, named as by its processor; the output is
`logits`. Encoders of text and audio are part of the graph. Batch size and lengths are free. A missing modality, in a
row or in the batch, has a mask of zeros and values of any length (waveforms: at least `min_samples` of the graph's
metadata); [`complete_inputs`] adds them. A graph does not validate its inputs: the caller must not pass sequences
longer than the model takes, or rows without any modality.
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
from ..models.umons.encoders_umons import UmonsAudioEncoder, UmonsWhisperEncoder
from ..models.umons.modeling_tbje import UmonsForSequenceClassification, UmonsLSTM, UmonsTextFrontEnd


MASK_NAMES = {
    "input_ids": "attention_mask",
    "input_features": "input_features_mask",
    "input_values": "input_values_mask",
    "audio_embeds": "audio_embeds_mask",
    "video_features": "video_features_mask",
    "video_embeds": "video_embeds_mask",
}

# Newest version with every operator of the graph that onnxruntime's quantiser supports.
OPSET = 20

TOLERANCE = 1e-4

DTYPES = {"tensor(int64)": np.int64, "tensor(float)": np.float32}

MAX_BYTES = 2**31  # limit of protobuf
MAX_SAMPLES = 2**31  # more than any model takes

# Metadata key of the minimum number of samples of the audio encoder.
MIN_SAMPLES = "min_samples"


@dataclass(frozen=True)
class GraphInput:
    """
    Input of a graph for a modality: values (B, T, *size), or (B, *size, T) if `is_time_last`, and their mask (B, T).
    """

    name: str
    min_length: int
    max_length: int
    size: tuple[int, ...] = ()
    is_time_last: bool = False

    @property
    def mask_name(self) -> str:
        return MASK_NAMES[self.name]

    @property
    def is_free(self) -> bool:
        """Return `True` if T is not fixed."""
        return self.min_length < self.max_length

    def shape(self, batch_size: int, length: int) -> tuple[int, ...]:
        return (batch_size, *self.size, length) if self.is_time_last else (batch_size, length, *self.size)


def graph_inputs(model: UmonsForSequenceClassification) -> dict[str, GraphInput]:
    """Return the inputs of a model's graph by modality. Raises a ValueError for unsupported audio encoders."""
    config = model.config
    if config.context_size:
        raise ValueError(
            f"The model takes {config.context_size} previous utterances (`context_size`), which the ONNX graph does "
            "not support: export a model without them."
        )
    sizes = {"text": (), "audio": (config.audio_feature_size,), "video": (config.video_feature_size,)}
    inputs = {m: GraphInput(config.sequence_name(m), 1, config.length_limit(m), sizes[m]) for m in config.modalities}
    if "audio" in model.model.encoders:
        inputs["audio"] = _sound_input(config, model.model.encoders["audio"])
    return inputs


def _sound_input(config: UmonsConfig, encoder: UmonsAudioEncoder) -> GraphInput:
    """Return waveforms, from the samples of one step to those of the longest input, or frames of spectrograms."""
    sound = config.audio_encoder
    if hasattr(sound, "conv_stride"):

        def count_steps(num_samples: int) -> int:
            return int(encoder.count_steps(torch.tensor(num_samples), 1, 1))

        shortest = bisect.bisect_left(range(MAX_SAMPLES), 1, key=count_steps)
        longest = bisect.bisect_right(range(MAX_SAMPLES), config.max_audio_length, key=count_steps) - 1
        return GraphInput("input_values", shortest, longest)
    if isinstance(encoder, UmonsWhisperEncoder):  # its second convolution has a stride of 2
        longest = 2 * min(config.max_audio_length, sound.max_source_positions)
        return GraphInput("input_features", 1, longest, (sound.num_mel_bins,), is_time_last=True)
    raise ValueError(
        f"A model with an audio encoder of the type {sound.model_type!r} cannot be exported; wav2vec 2.0, HuBERT, "
        "WavLM and Whisper can. Export it without the encoder, `del model.model.encoders['audio']`, and pass the "
        "output of `get_audio_features` as `audio_embeds`."
    )


class OnnxLSTM(nn.Module):
    """
    The LSTM operator of ONNX in place of a [`UmonsLSTM`], for export only: outside of a graph its output is zero.

    By default the exporter writes a loop over the steps, which it fails to trace a second time in a process.
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
    """Reorder gates from PyTorch (input, forget, cell, output) to ONNX (input, output, forget, cell)."""
    in_gate, forget_gate, cell, out_gate = parameter.detach().chunk(4)
    return torch.cat([in_gate, out_gate, forget_gate, cell])


def export_onnx(model: UmonsForSequenceClassification):
    """
    Export a model to an ONNX graph in float32.

    Args:
        model: any model without `legacy_masking` of three modalities. Encoders of text and audio are part of the
            graph, which takes `input_values` (B, samples), or `input_features` (B, mel bins, frames) for Whisper. A
            video tower or encoder is left out: the graph takes its output, `video_features` or `video_embeds`.

    Returns:
        `onnx.ModelProto` without paths of the exporting machine. [`max_difference`] compares it with the model.

    Raises:
        ValueError: the model cannot be exported, because of `legacy_masking`, its encoders or its size.
    """
    _check_exportable(model)
    inputs = graph_inputs(model)
    exported = _prepare(model)
    # Lengths differ from each other and from 1, so that the exporter does not unify them or take one as constant.
    lengths = {m: min(x.max_length, x.min_length * (5 + 2 * i)) for i, (m, x) in enumerate(inputs.items())}
    # No exported part uses operators of torchvision.
    quiet = _without_messages("torch.onnx._internal.exporter._registration", "torchvision is not installed")
    with torch.no_grad(), quiet, _named_encoders(exported):
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
            "A model with `legacy_masking` of text, audio and video cannot be exported: onnxruntime has no operator "
            "for its selection of the video mask. Models of text and audio, and all without `legacy_masking`, can."
        )
    left_out = ("model.video_tower.", "model.encoders.video.")
    size = 4 * sum(p.numel() for name, p in model.named_parameters() if not name.startswith(left_out))
    if size >= MAX_BYTES:
        raise ValueError(
            f"The model has {size / 1e9:.1f} GB of weights in float32, but the limit of an ONNX file is "
            f"{MAX_BYTES / 1e9:.1f}: take smaller encoders."
        )


@contextmanager
def _named_encoders(exported: UmonsForSequenceClassification):
    """Name the types of the encoders in errors of the exporter."""
    try:
        yield
    except torch.onnx.OnnxExporterError as error:
        types = [exported.config.encoder_of(modality).model_type for modality in exported.model.encoders]
        if not types:
            raise
        raise ValueError(
            f"A model with encoders of the type {' and '.join(map(repr, types))} cannot be exported: torch.onnx does "
            "not support their operations. Supported: BERT, MiniLM, RoBERTa and DeBERTa for text; wav2vec 2.0, "
            "HuBERT, WavLM and Whisper for audio."
        ) from error


def _prepare(model: UmonsForSequenceClassification) -> UmonsForSequenceClassification:
    """Return a copy of the exported part of the model, prepared for the exporter."""
    exported = copy.deepcopy(model).cpu().float().eval()
    body = exported.model
    body.video_tower = None
    if "video" in body.encoders:
        del body.encoders["video"]
    for modality, front_end in body.front_ends.items():
        if isinstance(front_end, UmonsLSTM):
            body.front_ends[modality] = OnnxLSTM(front_end)
        elif isinstance(front_end, UmonsTextFrontEnd):
            front_end.lstm = OnnxLSTM(front_end.lstm)
    for module in exported.modules():
        if isinstance(module, PreTrainedModel):
            module.config._attn_implementation = "eager"  # half as many operators as sdpa
    return exported


def _dynamic_shapes(inputs: dict[str, GraphInput]) -> dict[str, dict]:
    """Return the free axes of all inputs. Each is named once; the exporter infers that the others are equal."""
    same, fixed = torch.export.Dim.AUTO, torch.export.Dim.STATIC
    shapes = {}
    for modality, given in inputs.items():
        batch = same if shapes else torch.export.Dim("batch", min=1)
        length, same_length = fixed, fixed
        if given.is_free:
            length = torch.export.Dim(f"{modality}_length", min=given.min_length, max=given.max_length)
            same_length = same
        shapes[given.name] = {0: batch, 2 if given.is_time_last else 1: length}
        shapes[given.mask_name] = {0: same, 1: same_length}
    return shapes


def _strip(message) -> None:
    """Remove the stack traces of all nodes, which contain paths of the exporting machine."""
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
    Return random inputs of a graph and its model, with a sequence of the given length for each modality in `lengths`.

    The second half of the last row is padding, unless less than one step would remain. In a batch of three or more
    rows and several modalities, the i-th modality is missing in row i. Audio for an encoder that normalises over time
    has no padding: a graph cannot process rows of each length separately, as the model does.
    """
    generator = torch.Generator().manual_seed(seed)
    given = graph_inputs(model)
    is_group_normalised = getattr(model.config.audio_encoder, "feat_extract_norm", None) == "group"
    inputs = {}
    for row, (modality, length) in enumerate(lengths.items()):
        shape = given[modality].shape(batch_size, length)
        if modality == "text":
            values = torch.randint(model.config.vocab_size, shape, generator=generator)
        else:
            values = torch.randn(shape, generator=generator)
        mask = torch.ones(batch_size, length, dtype=torch.int64)
        if batch_size > 1 and not (modality == "audio" and is_group_normalised):
            mask[-1, max(given[modality].min_length, (length + 1) // 2) :] = 0
        if batch_size > 2 and len(lengths) > 1:
            mask[row] = 0
        inputs |= {given[modality].name: values, given[modality].mask_name: mask}
    return inputs


def max_difference(session, model: UmonsForSequenceClassification) -> float:
    """
    Return the maximum difference between the logits of a graph and those of PyTorch on random inputs.

    They cover batches of 1, 3 and 8 rows; the shortest, half-length and longest sequences; padding; and modalities
    that are missing in a row or in the call.
    """
    given = graph_inputs(model)
    shortest = {modality: limits.min_length for modality, limits in given.items()}
    longest = {modality: limits.max_length for modality, limits in given.items()}
    guide = model.config.modalities[0]
    cases = [
        (1, shortest),
        (3, {modality: max(shortest[modality], longest[modality] // 2) for modality in given}),
        (8, longest),
        # A short guide with long others, and the reverse.
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
    Write the graph `source` with 8-bit weights, with a scale for each output channel.

    With `word_vectors=False` the word vectors stay in float32: the graph is larger and closer to the model.
    Activations are quantised by their range in the batch. Unlike in the float32 graph, the logits of a row therefore
    depend slightly on the other rows and on padding.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    # The exporter has done the pre-processing already.
    with _without_messages(None, "Please consider to run pre-processing before quantization"):
        # Weights use 7 bits: with 8, sums overflow on CPUs without VNNI instructions.
        options = {} if word_vectors else {"op_types_to_quantize": ["MatMul", "Gemm", "LSTM"]}
        quantize_dynamic(
            Path(source), Path(target), per_channel=True, reduce_range=True, weight_type=QuantType.QInt8, **options
        )


@contextmanager
def _without_messages(name: str | None, beginning: str):
    """Suppress the messages of a logger, by default the root, that begin with a text."""

    def is_other(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith(beginning)

    logger = logging.getLogger(name)
    logger.addFilter(is_other)
    try:
        yield
    finally:
        logger.removeFilter(is_other)


def make_session(graph: str | Path | bytes, num_threads: int = 0):
    """Create an `onnxruntime.InferenceSession` on the CPU. With `num_threads=0`, onnxruntime chooses the number."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    # Threads spin between operators, which saves a quarter of the time of one row. By default they also spin for a
    # while after the run, and take the cores from what follows.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    graph = graph if isinstance(graph, bytes) else str(graph)
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def complete_inputs(session, inputs: Mapping) -> dict[str, np.ndarray]:
    """
    Convert the outputs of a processor to the inputs of `session.run`.

    Args:
        session: `onnxruntime.InferenceSession` of an exported model.
        inputs: arrays or CPU tensors by the names of the model's inputs. A modality may be left out.

    Returns:
        The inputs as numpy arrays, with zeros of minimum length, including masks, for missing modalities.

    Raises:
        ValueError: there is no modality, a modality without its mask, or an input that the graph does not have.
    """
    wanted = {entry.name: entry for entry in session.get_inputs()}
    if unknown := [name for name in inputs if name not in wanted]:
        if "pixel_values_videos" in unknown:
            remedy = "compute the video features from it, as `umons extract` does"
        elif unknown[0] in MASK_NAMES:
            remedy = "pass the outputs of the processor in the same folder"
        else:
            remedy = "leave it out"
        raise ValueError(f"The ONNX model takes {', '.join(wanted)}, but {', '.join(unknown)} is given: {remedy}.")
    for name, mask_name in MASK_NAMES.items():
        if (name in inputs) != (mask_name in inputs):
            raise ValueError(f"`{name}` and `{mask_name}` must be passed together, but only one of them is given.")
    if not inputs:
        raise ValueError(f"No input: pass at least one modality of {', '.join(wanted)}.")
    num_rows = len(next(iter(inputs.values())))
    min_samples = int(session.get_modelmeta().custom_metadata_map.get(MIN_SAMPLES, 1))
    lengths = dict.fromkeys(("input_values", "input_values_mask"), min_samples)
    complete = {}
    for name, entry in wanted.items():
        # Free axes have names in place of sizes. The first axis is the batch.
        sizes = [size if isinstance(size, int) else lengths.get(name, 1) for size in entry.shape[1:]]
        values = inputs[name] if name in inputs else np.zeros((num_rows, *sizes))
        complete[name] = np.asarray(values, DTYPES[entry.type])
    return complete


def run(session, inputs: Mapping) -> np.ndarray:
    """Return the logits (B, num_labels) float32. Missing modalities need not be passed."""
    return session.run(["logits"], complete_inputs(session, inputs))[0]
