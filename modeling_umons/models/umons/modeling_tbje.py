# Copyright 2026 The modeling_umons authors.
#
# Licensed under the MIT License (the "License"); you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     https://opensource.org/license/mit
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""PyTorch UMONS model: a transformer that encodes text, audio and video jointly (TBJE, ACL 2020)."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs, auto_docstring, can_return_tuple, logging
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import OutputRecorder, capture_outputs

from .configuration_umons import INPUT_NAMES, NEUTRAL, UmonsConfig, UmonsVideoTowerConfig
from .encoders_umons import CLIPS_AT_ONCE, FromEncodersMixin, UmonsEncoder, UmonsEncoders


logger = logging.get_logger(__name__)
# cuDNN copies the weights of an LSTM in every call, 7 MB: too little for the warning that PyTorch then shows.
warnings.filterwarnings("ignore", message="RNN module weights are not part of single contiguous chunk of memory")

# Weight of the sentiments of modalities after the first one of a row, where modalities vote: a voice shifts the
# sentiment of its words, and does not decide over it.
OTHER_SENTIMENTS = 0.25

# Inputs of a modality, of which a call has one at most.
ALTERNATIVES = {
    "audio": ("input_features", "input_values", "audio_embeds"),
    "video": ("video_features", "pixel_values_videos", "video_embeds"),
}
# Documentation of the inputs of both models, for `auto_docstring`.
INPUT_DOCS = r"""
        input_ids (`torch.LongTensor` of shape `(batch_size, text_length)`, *optional*):
            Word ids.
        attention_mask (`torch.Tensor` of shape `(batch_size, text_length)`, *optional*):
            1 for words, 0 for padding.
        history_ids (`torch.LongTensor` of shape `(batch_size, context_length)`, *optional*):
            Word ids of the previous utterances, of models with `context_size`. See `encode_history`.
        history_mask (`torch.Tensor` of shape `(batch_size, context_length)`, *optional*):
            1 for words of the previous utterances, 0 for padding.
        input_features (`torch.FloatTensor` of shape `(batch_size, audio_length, audio_feature_size)`, *optional*):
            Log-mel frames. With an audio encoder that takes spectrograms (Whisper), its `(batch_size, mel_bins,
            num_frames)`.
        input_features_mask (`torch.Tensor` of shape `(batch_size, audio_length)`, *optional*):
            1 for frames, 0 for padding.
        input_values (`torch.FloatTensor` of shape `(batch_size, num_samples)`, *optional*):
            Waveforms, for an audio encoder that takes them (wav2vec 2.0, HuBERT, WavLM).
        input_values_mask (`torch.Tensor` of shape `(batch_size, num_samples)`, *optional*):
            1 for samples, 0 for padding.
        audio_embeds (`torch.FloatTensor` of shape `(batch_size, audio_length, audio_feature_size)`, *optional*):
            Output of the audio encoder, in place of its input. See [`~UmonsModel.get_audio_features`].
        audio_embeds_mask (`torch.Tensor` of shape `(batch_size, audio_length)`, *optional*):
            1 for steps, 0 for padding.
        video_features (`torch.FloatTensor` of shape `(batch_size, video_length, video_feature_size)`, *optional*):
            Features of consecutive video clips.
        video_features_mask (`torch.Tensor` of shape `(batch_size, video_length)`, *optional*):
            1 for clips, 0 for padding, in `video_features` or `pixel_values_videos`.
        video_embeds (`torch.FloatTensor` of shape `(batch_size, video_length, video_feature_size)`, *optional*):
            Output of the video encoder, in place of its input. See [`~UmonsModel.get_video_features`].
        video_embeds_mask (`torch.Tensor` of shape `(batch_size, video_length)`, *optional*):
            1 for clips, 0 for padding.
        pixel_values_videos (`torch.FloatTensor` of shape `(batch_size, video_length, 16, 3, 112, 112)`, *optional*):
            Normalised clips, for the video tower or encoder.
"""
# Documentation of the labels, for `auto_docstring`.
LABEL_DOCS = r"""
        labels (`torch.Tensor`, *optional*):
            Classes, `(batch_size,)` int64; several labels, `(batch_size, num_labels)` float of 0 and 1; a number,
            `(batch_size,)` float; with `joint_sentiment`, `(batch_size, num_labels)` float, the sentiment and then the
            emotions (0 or 1), NaN where unknown.
"""


@auto_docstring(custom_intro="Output class of `get_audio_features`.")
@dataclass
class UmonsAudioFeaturesOutput(BaseModelOutputWithPooling):
    r"""
    last_hidden_state (`torch.FloatTensor` of shape `(B, T_audio, audio_feature_size)`):
        Sequence of the audio encoder: the `audio_embeds` of the model.
    pooler_output (`torch.FloatTensor` of shape `(B, T_audio, audio_feature_size)`):
        The same sequence, under the name that features have in other models.
    attention_mask (`torch.LongTensor` of shape `(B, T_audio)`):
        1 for steps of audio, 0 for padding: the `audio_embeds_mask` of the model.
    """

    attention_mask: torch.LongTensor | None = None


@auto_docstring(
    custom_intro="""
    Output class of [`UmonsModel`]. The joint sequence is the concatenation of the given modalities over time, in the
    order text, audio, video: S = T_text + T_audio + T_video.
    """
)
@dataclass
class UmonsModelOutput(ModelOutput):
    r"""
    last_hidden_state (`torch.FloatTensor` of shape `(B, S, hidden_size)`):
        Joint sequence after the last block.
    pooler_output (`torch.FloatTensor` of shape `(B, 2 * hidden_size)`):
        Normalised sum over modalities of the projected final glimpses; with `modality_fusion="vote"` of shape
        `(B, M, 2 * hidden_size)`, the normalised glimpses of the M given modalities.
    hidden_states (`tuple[torch.FloatTensor]`, *optional*, with `output_hidden_states=True`):
        Joint sequence before the first block and after each block: `num_hidden_layers + 1` tensors of shape
        `(B, S, hidden_size)`.
    attentions (`tuple[torch.FloatTensor]`, *optional*, with `output_attentions=True`):
        Self-attention weights of every modality of every block, `(B, heads, T_m, T_m)` each.
    cross_attentions (`tuple[torch.FloatTensor]`, *optional*, with `output_attentions=True`):
        Attention weights of the guided modalities over the guide, in the same order, `(B, heads, T_m, T_guide)` each.
    glimpse_weights (`tuple[torch.FloatTensor]`, *optional*, with `output_glimpse_weights=True`):
        Weights of the glimpses over time (axis 1), in the same order: `(B, T_m, T_m)` for all blocks but the last, one
        glimpse per position; then `(B, T_m, 1)` for the final glimpse of each modality.
    modality_mask (`torch.BoolTensor` of shape `(B, M)`, *optional*, with `modality_fusion="vote"`):
        `True` for the given modalities that the row has.
    """

    last_hidden_state: torch.FloatTensor | None = None
    pooler_output: torch.FloatTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None
    cross_attentions: tuple[torch.FloatTensor, ...] | None = None
    glimpse_weights: tuple[torch.FloatTensor, ...] | None = None
    modality_mask: torch.BoolTensor | None = None


@auto_docstring(custom_intro="Output class of [`UmonsForSequenceClassification`].")
@dataclass
class UmonsSequenceClassifierOutput(ModelOutput):
    r"""
    loss (`torch.FloatTensor` of shape `()`, *optional*, with `labels`):
        Mean loss of the batch, selected by `problem_type` and `joint_sentiment`.
    logits (`torch.FloatTensor` of shape `(B, num_labels)`):
        Scores before softmax or sigmoid. With `joint_sentiment`, column 0 is the sentiment itself.
    hidden_states (`tuple[torch.FloatTensor]`, *optional*, with `output_hidden_states=True`):
        Joint sequence before the first block and after each block: `num_hidden_layers + 1` tensors of shape
        `(B, S, hidden_size)`.
    attentions (`tuple[torch.FloatTensor]`, *optional*, with `output_attentions=True`):
        Self-attention weights of every modality of every block, `(B, heads, T_m, T_m)` each.
    cross_attentions (`tuple[torch.FloatTensor]`, *optional*, with `output_attentions=True`):
        Attention weights of the guided modalities over the guide, in the same order, `(B, heads, T_m, T_guide)` each.
    glimpse_weights (`tuple[torch.FloatTensor]`, *optional*, with `output_glimpse_weights=True`):
        Weights of the glimpses over time (axis 1), in the same order: `(B, T_m, T_m)` for all blocks but the last, one
        glimpse per position; then `(B, T_m, 1)` for the final glimpse of each modality.
    """

    loss: torch.FloatTensor | None = None
    logits: torch.FloatTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None
    cross_attentions: tuple[torch.FloatTensor, ...] | None = None
    glimpse_weights: tuple[torch.FloatTensor, ...] | None = None


def prepare_inputs(
    config: UmonsConfig,
    inputs: dict[str, tuple[torch.Tensor | None, torch.Tensor | None]],
    dtype: torch.dtype,
    names: dict[str, str] = INPUT_NAMES,
) -> tuple[dict[str, torch.Tensor], dict[str, torch.BoolTensor]]:
    """
    Check the inputs of a call and complete their masks.

    Args:
        config: configuration of the model.
        inputs: values, (B, T) int64 or (B, T, feature size), and their mask (B, T), by modality; `None` if missing.
        dtype: dtype of the returned features.
        names: names of the values by modality, for messages.

    Returns:
        Values and boolean masks (B, T) of the given modalities, in the order of `config.modalities`. Without a mask,
        word id `pad_token_id` and all-zero frames are padding.

    Raises:
        ValueError: for inputs that do not fit the configuration, or each other.
    """
    values, masks = {}, {}
    for modality, (value, mask) in inputs.items():
        if value is None:
            continue
        # CODEPATH: all checkpoints take the same batches; a model of text ignores the audio in them
        if modality not in config.modalities:
            logger.warning_once(
                f"The {modality} input is ignored: the modalities of this model are {config.modalities}."
            )
            continue
        check_values(config, modality, names[modality], value)
        if mask is None:
            mask = value != (config.pad_token_id or 0) if modality == "text" else (value != 0).any(dim=-1)
        elif mask.shape != value.shape[:2]:
            mask_name = "attention_mask" if modality == "text" else f"{names[modality]}_mask"
            raise ValueError(
                f"`{mask_name}` has shape {tuple(mask.shape)}, but `{names[modality]}` requires "
                f"{tuple(value.shape[:2])}."
            )
        values[modality] = value if modality == "text" else value.to(dtype)
        masks[modality] = mask.to(device=value.device, dtype=torch.bool)

    if not masks:
        expected = ", ".join(f"`{names[modality]}`" for modality in config.modalities)
        raise ValueError(f"No input: pass at least one of {expected}.")
    first, *others = masks.values()
    # No set of sizes: hashing a symbolic size makes the compiler specialise the graph to it.
    if any(mask.shape[0] != first.shape[0] for mask in others):
        sizes = ", ".join(f"{modality} {mask.shape[0]}" for modality, mask in masks.items())
        raise ValueError(f"The modalities of a batch must have the same number of rows, but have: {sizes}.")
    return values, masks


def check_values(config: UmonsConfig, modality: str, name: str, value: torch.Tensor):
    """Raise a ValueError for values of a wrong shape, unknown word ids, and NaN or infinite features."""
    sizes = {"audio": config.audio_feature_size, "video": config.video_feature_size}
    expected = ("batch", "time") if modality == "text" else ("batch", "time", sizes[modality])
    if value.ndim != len(expected) or (modality != "text" and value.shape[-1] != sizes[modality]):
        raise ValueError(
            f"`{name}` has shape {tuple(value.shape)}, but this model takes ({', '.join(map(str, expected))})."
        )
    check_length(config, modality, name, value.shape[1])
    if not can_read_values(value):
        return
    if modality == "text":
        check_ids(config, name, value)
    elif not torch.isfinite(value).all():
        rows = (~torch.isfinite(value)).flatten(1).any(dim=1).nonzero().flatten().tolist()
        raise ValueError(f"`{name}` contains NaN or infinite values in row(s) {rows}: remove or repair these rows.")


def check_ids(config: UmonsConfig, name: str, ids: torch.LongTensor):
    """Raise a ValueError for word ids outside of the vocabulary."""
    if can_read_values(ids) and len(outside := ids[(ids < 0) | (ids >= config.vocab_size)]):
        raise ValueError(
            f"`{name}` contains word id {outside[0].item()}, but ids must be 0 to {config.vocab_size - 1} "
            "(`vocab_size` - 1): was another tokenizer used?"
        )


def check_length(config: UmonsConfig, modality: str, name: str, length: int):
    """Raise a ValueError if the input `name` is empty or longer than the model allows."""
    limit = config.length_limit(modality)
    if not 1 <= length <= limit:
        raise ValueError(
            f"`{name}` has {length} steps, but this model takes 1 to {limit} (`max_{modality}_length`): truncate "
            "longer sequences, as the processor does, or leave the modality out."
        )


def check_audio(name: str, value: torch.Tensor, mask: torch.Tensor | None):
    """Raise a ValueError for waveforms or spectrograms that the audio encoder cannot process."""
    expected = "(batch, samples)" if name == "input_values" else "(batch, mel bins, frames)"
    # The audio spectrogram transformer calls its spectrograms `input_values`.
    if value.ndim not in ((2, 3) if name == "input_values" else (3,)):
        raise ValueError(
            f"`{name}` has shape {tuple(value.shape)}, but the audio encoder takes {expected}, as its feature "
            "extractor returns them."
        )
    if mask is not None and (
        mask.ndim != 2 or mask.shape[0] != value.shape[0] or mask.shape[1] not in value.shape[1:]
    ):
        raise ValueError(
            f"`{name}_mask` has shape {tuple(mask.shape)}, but must have the batch and time of `{name}`, which has "
            f"shape {tuple(value.shape)}."
        )
    if can_read_values(value) and not torch.isfinite(value).all():
        raise ValueError(f"`{name}` contains NaN or infinite values: remove or repair such audio.")


def check_clips(config: UmonsConfig, clips: torch.Tensor, mask: torch.Tensor | None):
    """Raise a ValueError for clips that the video tower or encoder cannot process."""
    if clips.ndim != 6 or clips.shape[3] != 3:
        raise ValueError(
            f"`pixel_values_videos` has shape {tuple(clips.shape)}, but this model takes (batch, clips, frames, 3, "
            "height, width): (batch, clips, 16, 3, 112, 112), or what its video encoder takes."
        )
    if not 1 <= clips.shape[1] <= config.max_video_length:
        raise ValueError(
            f"`pixel_values_videos` has {clips.shape[1]} clips, but this model takes 1 to {config.max_video_length} "
            "(`max_video_length`): truncate longer videos, as the processor does."
        )
    if mask is not None and mask.shape != clips.shape[:2]:
        raise ValueError(
            f"`video_features_mask` has shape {tuple(mask.shape)}, but must have the shape {tuple(clips.shape[:2])} "
            "of the clips."
        )
    if can_read_values(clips) and not torch.isfinite(clips).all():
        raise ValueError("`pixel_values_videos` contains NaN or infinite values: remove or repair such videos.")


def check_rows(masks: dict[str, torch.BoolTensor]):
    """Raise a ValueError for rows that are padding in every modality."""
    if can_read_values(*masks.values()):
        empty = ~torch.stack([mask.any(dim=1) for mask in masks.values()]).any(dim=0)
        if empty.any():
            raise ValueError(
                f"Row(s) {empty.nonzero().flatten().tolist()} of the batch are padding in every modality "
                f"({', '.join(masks)}): each row requires at least one modality."
            )


def can_read_values(*tensors: torch.Tensor) -> bool:
    """Return `True` for CPU tensors outside of compiled graphs. Reading from other devices would wait for them."""
    return not torch.compiler.is_compiling() and all(tensor.device.type == "cpu" for tensor in tensors)


def pad_to_full_length(config: UmonsConfig, values: dict[str, torch.Tensor], masks: dict[str, torch.BoolTensor]):
    """Pad all sequences to the maximum length, as in the published code, whose models attend to padding."""
    for modality, value in values.items():
        missing = config.length_limit(modality) - value.shape[1]
        padding = (0, missing) if modality == "text" else (0, 0, 0, missing)
        fill = config.pad_token_id or 0 if modality == "text" else 0.0
        values[modality] = nn.functional.pad(value, padding, value=fill)
        masks[modality] = nn.functional.pad(masks[modality], (0, missing), value=False)


def prepend_history(
    config: UmonsConfig,
    values: dict[str, torch.Tensor],
    masks: dict[str, torch.BoolTensor],
    history_ids: torch.LongTensor,
    history_mask: torch.Tensor | None,
) -> int:
    """Put the ids of the previous utterances (B, C) before those of the text (B, T), and return C."""
    if not config.context_size or "text" not in values:
        raise ValueError("`history_ids` requires `input_ids`, and a model with `context_size`: leave it out.")
    if history_mask is None:
        history_mask = history_ids != (config.pad_token_id or 0)
    if history_ids.ndim != 2 or history_mask.shape != history_ids.shape or len(history_ids) != len(values["text"]):
        raise ValueError(
            f"`history_ids` has shape {tuple(history_ids.shape)} and `history_mask` {tuple(history_mask.shape)}: both "
            f"must be (batch, length) with the {len(values['text'])} rows of `input_ids`."
        )
    if history_ids.shape[1] > config.max_context_length:
        raise ValueError(
            f"`history_ids` has {history_ids.shape[1]} steps, but this model takes at most "
            f"{config.max_context_length} (`config.max_context_length`): leave out the oldest."
        )
    check_ids(config, "history_ids", history_ids)
    values["text"] = torch.cat([history_ids, values["text"]], dim=1)
    masks["text"] = torch.cat([history_mask.to(masks["text"]), masks["text"]], dim=1)
    return history_ids.shape[1]


def rank_steps(mask: torch.BoolTensor) -> torch.LongTensor:
    """Return the place (B, T) of each step in its row if the padding of the row moved behind its other steps."""
    place = mask.cumsum(dim=1)
    return torch.where(mask, place, place[:, -1:] + (~mask).cumsum(dim=1)) - 1


class UmonsLSTM(nn.Module):
    """
    Unidirectional LSTM of one layer, (B, T, input_size) -> (B, T, hidden_size).

    `torch.compile` breaks the graph at `nn.LSTM`, but not at the operator that it calls. Parameter names are the same.
    `torch.export` would unroll the operator for one length, so it exports a loop over the steps.
    """

    def __init__(self, input_size: int, hidden_size: int):
        super().__init__()
        self.hidden_size = hidden_size
        self.weight_ih_l0 = nn.Parameter(torch.empty(4 * hidden_size, input_size))
        self.weight_hh_l0 = nn.Parameter(torch.empty(4 * hidden_size, hidden_size))
        self.bias_ih_l0 = nn.Parameter(torch.empty(4 * hidden_size))
        self.bias_hh_l0 = nn.Parameter(torch.empty(4 * hidden_size))

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        # CODEPATH: exported programs take texts of any length. PyTorch 2.11 takes every compilation for an export.
        if torch.compiler.is_exporting() and not torch.compiler.is_dynamo_compiling():
            return self._scan(hidden_states)
        state = hidden_states.new_zeros(1, hidden_states.shape[0], self.hidden_size)
        weights = [self.weight_ih_l0, self.weight_hh_l0, self.bias_ih_l0, self.bias_hh_l0]
        # Arguments: has biases, layers, dropout, training, bidirectional, batch first.
        return torch.lstm(hidden_states, (state, state), weights, True, 1, 0.0, self.training, False, True)[0]

    def _scan(self, hidden_states: torch.Tensor) -> torch.Tensor:
        from torch._higher_order_ops import scan  # not public in PyTorch 2.14

        def step(states: tuple[torch.Tensor, torch.Tensor], gates: torch.Tensor):
            hidden, cell = states
            gates = gates + nn.functional.linear(hidden, self.weight_hh_l0)
            in_gate, forget_gate, candidate, out_gate = gates.chunk(4, dim=-1)
            cell = forget_gate.sigmoid() * cell + in_gate.sigmoid() * candidate.tanh()
            hidden = out_gate.sigmoid() * cell.tanh()
            return (hidden, cell), hidden.clone()  # outputs must not share memory

        gates = nn.functional.linear(hidden_states, self.weight_ih_l0, self.bias_ih_l0 + self.bias_hh_l0)
        state = hidden_states.new_zeros(hidden_states.shape[0], self.hidden_size)
        return scan(step, (state, state.clone()), gates.transpose(0, 1))[1].transpose(0, 1)


class UmonsTextFrontEnd(nn.Module):
    """Word embedding and LSTM, (B, T) -> (B, T, hidden_size)."""

    def __init__(self, config: UmonsConfig):
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.word_embedding_size, config.pad_token_id)
        self.lstm = UmonsLSTM(config.word_embedding_size, config.hidden_size)

    def forward(self, input_ids: torch.LongTensor) -> torch.Tensor:
        return self.lstm(self.embed_tokens(input_ids))


class UmonsFrontEnds(nn.ModuleDict):
    """
    Projection of each modality to (B, T, hidden_size): x = LSTM(embedding(ids)), y = Linear(audio), z = Linear(video).

    There are no position embeddings: the LSTM encodes the order of words, and the order of frames is not encoded.
    After a pretrained text encoder, text is projected by a linear layer. With `audio_front_end="lstm"`,
    y = LSTM(audio).
    """

    def __init__(self, config: UmonsConfig):
        encoder = config.text_encoder
        # CODEPATH: published checkpoints of MELD have an LSTM over audio frames; those of MOSEI project them
        has_audio_lstm = config.audio_front_end == "lstm"
        front_ends = {
            "text": lambda: (
                nn.Linear(encoder.hidden_size, config.hidden_size) if encoder else UmonsTextFrontEnd(config)
            ),
            "audio": lambda: (UmonsLSTM if has_audio_lstm else nn.Linear)(
                config.audio_feature_size, config.hidden_size
            ),
            "video": lambda: nn.Linear(config.video_feature_size, config.hidden_size),
        }
        super().__init__({modality: front_ends[modality]() for modality in config.modalities})

    @property
    def dtype(self) -> torch.dtype:
        """The dtype that features must have. In sharded models (FSDP) it is not that of all parameters."""
        layers = (layer for layer in self.values() if not isinstance(layer, UmonsTextFrontEnd))
        biases = (layer.bias_ih_l0 if isinstance(layer, UmonsLSTM) else layer.bias for layer in layers)
        return next((bias.dtype for bias in biases), torch.float32)

    def forward(self, values: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        # With gradients, the compiler unrolls the LSTM for every length, which takes minutes, and fails on a CPU if
        # the word vectors are frozen. The break is not in `UmonsLSTM`: a graph does not resume after a break inside a
        # loop.
        has_lstm = any(isinstance(self[modality], (UmonsTextFrontEnd, UmonsLSTM)) for modality in values)
        if has_lstm and torch.is_grad_enabled() and not torch.compiler.is_exporting():
            return self._encode_uncompiled(values)
        return self._encode(values)

    def _encode(self, values: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {modality: self[modality](value) for modality, value in values.items()}

    @torch.compiler.disable(
        reason="an LSTM that requires gradients is not compiled: run inference under torch.no_grad()"
    )
    def _encode_uncompiled(self, values: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return self._encode(values)


def _import_torchvision_video():
    """Return `torchvision.models.video`. Raises ImportError with a remedy if torchvision is missing."""
    try:  # imports outside of a try block are required when code is loaded from the Hub, even without a video tower
        import torchvision.models.video
    except ImportError as error:
        raise ImportError("A video tower requires torchvision: run `pip install torchvision`.") from error
    return torchvision.models.video


@auto_docstring(
    custom_intro="""
    R(2+1)D with 18 layers (Tran et al., "A Closer Look at Spatiotemporal Convolutions for Action Recognition", CVPR
    2018), torchvision's `r2plus1d_18` without the classifier. Frozen by default (`freeze`).
    """
)
class UmonsVideoTower(PreTrainedModel):
    config: UmonsVideoTowerConfig
    base_model_prefix = "network"
    main_input_name = "pixel_values_videos"
    input_modalities = ("video",)
    _supports_sdpa = True  # the tower has no attention: every implementation fits
    _no_split_modules = ["UmonsVideoTower"]

    def __init__(self, config: UmonsVideoTowerConfig):
        super().__init__(config)
        self.network = _import_torchvision_video().r2plus1d_18(weights=None)
        self.network.fc = nn.Identity()
        self.train()  # modules start in training mode: a frozen tower must leave it
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module):
        if isinstance(module, nn.Conv3d):
            init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        else:
            super()._init_weights(module)

    def train(self, mode: bool = True):
        # A frozen tower keeps its batch statistics as well. `from_pretrained` replaces parameters before it calls
        # this.
        self.requires_grad_(not self.config.freeze)
        return super().train(mode and not self.config.freeze)

    def load_torchvision_weights(self, weights: str | Path):
        """
        Load pretrained weights in torchvision's format, without executing code from the file.

        Args:
            weights: name of torchvision weights, `"KINETICS400_V1"`, downloaded and verified by hash; or path of a
            state
                dict of `r2plus1d_18` written by `torch.save`.

        Raises:
            OSError: the weights cannot be downloaded or read, or do not fit `r2plus1d_18`.
            ValueError: `weights` is neither a file nor a name of torchvision weights.
        """
        known = _import_torchvision_video().R2Plus1D_18_Weights.__members__
        is_file = Path(weights).is_file()
        if not is_file and str(weights) not in known:
            raise ValueError(
                f"{str(weights)!r} is neither a file nor weights of torchvision's r2plus1d_18 ({', '.join(known)})."
            )
        try:
            if is_file:
                state_dict = torch.load(weights, map_location="cpu", weights_only=True)
            else:  # torch does not verify the hash of files in its cache: `weights_only` protects these
                state_dict = known[str(weights)].get_state_dict(
                    progress=False, check_hash=True, map_location="cpu", weights_only=True
                )
        except (OSError, RuntimeError) as error:
            raise OSError(f"{weights} could not be read: {error}") from error
        except Exception as error:  # of many types, with the advice to execute code from the file
            raise OSError(
                f"{weights} is not a state dict of torchvision's r2plus1d_18 that can be read without executing code: "
                "pass a file written by `torch.save(network.state_dict(), path)`."
            ) from error
        if not isinstance(state_dict, dict) or not all(isinstance(name, str) for name in state_dict):
            raise OSError(
                f"{weights} is not a dict of names and tensors: pass a state dict of torchvision's r2plus1d_18."
            )
        state_dict = {name: tensor for name, tensor in state_dict.items() if not name.startswith("fc.")}
        try:
            self.network.load_state_dict(state_dict)
        except RuntimeError as error:
            raise OSError(f"{weights} does not fit torchvision's r2plus1d_18: {error}") from error

    @auto_docstring
    def forward(self, pixel_values_videos: torch.FloatTensor, **kwargs) -> torch.FloatTensor:
        r"""
        pixel_values_videos (`torch.FloatTensor` of shape `(num_clips, 16, 3, 112, 112)`):
            Normalised clips, as returned by [`UmonsVideoProcessor`].

        Returns:
            `torch.FloatTensor` of shape `(num_clips, 512)`.
        """
        if pixel_values_videos.ndim != 5 or pixel_values_videos.shape[2] != 3:
            raise ValueError(
                f"`pixel_values_videos` has shape {tuple(pixel_values_videos.shape)}, but the tower takes "
                "(clips, frames, 3, height, width)."
            )
        clips = pixel_values_videos.to(self.dtype).transpose(1, 2)  # torchvision's layout: channels, then time
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.config.freeze):
            return torch.cat([self.network(some) for some in clips.split(CLIPS_AT_ONCE)])


class UmonsStream(NamedTuple):
    """One modality in the joint sequence, and its masks."""

    modality: str
    length: int
    padding_mask: torch.BoolTensor | None  # (B, T), False for padding; None if there is no padding
    attention_mask: torch.Tensor | None  # of self-attention, in the format of the attention implementation
    guide_mask: torch.Tensor | None  # of attention over the guide, in the same format
    ranks: torch.LongTensor  # (B, T), see `rank_steps`


def eager_attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    **kwargs: Unpack[TransformersKwargs],
) -> tuple[torch.Tensor, torch.Tensor]:
    scores = query @ key.transpose(2, 3) * scaling
    if attention_mask is not None and attention_mask.dtype == torch.bool:  # the format of `sdpa`: True to attend
        scores = scores.masked_fill(~attention_mask, torch.finfo(scores.dtype).min)
    elif attention_mask is not None:
        scores = scores + attention_mask
    # At least single precision: half precision is too coarse for the sum of the exponentials.
    dtype = torch.promote_types(scores.dtype, torch.float32)
    weights = nn.functional.softmax(scores, dim=-1, dtype=dtype).to(query.dtype)
    weights = module.dropout(weights)  # a module, so that training can replace it
    return (weights @ value).transpose(1, 2).contiguous(), weights


class UmonsAttention(nn.Module):
    """MHA of the paper: multi-head self-attention, or attention over the guide with `key_value_states`."""

    def __init__(self, config: UmonsConfig):
        super().__init__()
        self.config = config
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.scaling = self.head_dim**-0.5
        self.dropout = nn.Dropout(config.attention_probs_dropout_prob)
        self.is_causal = False
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.k_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.v_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.o_proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        key_value_states: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        source = hidden_states if key_value_states is None else key_value_states
        query = self.q_proj(hidden_states).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
        key = self.k_proj(source).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
        value = self.v_proj(source).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)

        implementation = self.config._attn_implementation
        if implementation != "eager" and kwargs.get("output_attentions"):
            logger.warning_once(
                f"{implementation!r} attention does not return attention weights: calls with `output_attentions=True` "
                "run "
                'eager attention. Load the model with `attn_implementation="eager"` to avoid this warning.'
            )
            implementation = "eager"
        attention_interface: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(implementation, eager_attention_forward)
        attended, weights = attention_interface(
            self,
            query,
            key,
            value,
            attention_mask,
            dropout=self.dropout.p if self.training else 0.0,
            scaling=self.scaling,
            **kwargs,
        )
        return self.o_proj(attended.flatten(2)), weights


class UmonsLayerNorm(nn.LayerNorm):
    """
    Layer normalisation in the dtype of its input, also under autocast.

    Autocast on GPUs normalises in float32 and returns it, so that all sums of a block, their gradients and the copies
    for the next layers take twice the memory. The kernels compute mean and variance in float32 for any dtype.
    """

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        device, dtype = hidden_states.device.type, hidden_states.dtype
        if not torch.is_autocast_enabled(device):
            return super().forward(hidden_states)
        with torch.autocast(device, enabled=False):
            weight, bias = self.weight.to(dtype), self.bias.to(dtype)
            return nn.functional.layer_norm(hidden_states, self.normalized_shape, weight, bias, self.eps)


class UmonsMLP(nn.Module):
    """FFN of the paper: Linear -> ReLU -> dropout -> Linear."""

    def __init__(self, config: UmonsConfig):
        super().__init__()
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.activation = nn.ReLU()
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.fc2(self.dropout(self.activation(self.fc1(hidden_states))))


class UmonsGlimpse(nn.Module):
    """
    Glimpses of the paper: weighted sums over time, with weights softmax(MLP(m)) over time.

    (B, T, hidden_size) -> glimpses (B, n, hidden_size) and weights (B, T, n). A sequence of T steps uses the first T
    glimpses, and with the (B, T) `ranks` of [`rank_steps`] each step the glimpse of its rank, so that the padding of a
    batch does not change its logits.
    """

    def __init__(self, config: UmonsConfig, num_glimpses: int):
        super().__init__()
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.activation = nn.ReLU()
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.fc2 = nn.Linear(config.intermediate_size, num_glimpses)

    def forward(
        self,
        hidden_states: torch.Tensor,
        padding_mask: torch.BoolTensor | None,
        ranks: torch.LongTensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        n = min(self.fc2.out_features, hidden_states.shape[1])
        scores = self.dropout(self.activation(self.fc1(hidden_states)))
        scores = nn.functional.linear(scores, self.fc2.weight[:n], self.fc2.bias[:n])
        if ranks is not None:
            scores = scores.gather(2, ranks[:, None].expand_as(scores))
        if padding_mask is not None:
            scores = scores.masked_fill(~padding_mask[..., None], torch.finfo(scores.dtype).min)
        dtype = torch.promote_types(scores.dtype, torch.float32)
        weights = nn.functional.softmax(scores, dim=1, dtype=dtype).to(hidden_states.dtype)
        return weights.transpose(1, 2) @ hidden_states, weights


class UmonsModalityLayer(nn.Module):
    """
    One modality of a block. The guide has self-attention (SA), the other modalities self and guided attention (SGA):

        SA(q):     h = LN(q + MHA(q, q, q));                             out = LN(h + FFN(h))
        SGA(q, x): h = LN(q + MHA(q, q, q));  h = LN(h + MHA(h, x, x));  out = LN(h + FFN(h))

    A residual connection spans the whole unit: m = m + SA(m), or m = m + SGA(m, x). In all blocks but the last, the
    glimpses follow: m = LN(m + glimpses(m)). Dropout precedes every sum but the residual connection of the unit.

    Without `use_cross_attention`, all modalities have SA; without `use_outer_residual`, m = SA(m) or m = SGA(m, x);
    without `use_glimpses`, no glimpses follow.
    """

    def __init__(self, config: UmonsConfig, modality: str, is_last: bool):
        super().__init__()
        is_guided = config.use_cross_attention and modality != config.guide_modality
        has_glimpse = config.use_glimpses and not is_last
        self.has_outer_residual = config.use_outer_residual

        def layer_norm() -> UmonsLayerNorm:
            return UmonsLayerNorm(config.hidden_size, eps=config.layer_norm_eps)

        self.self_attn = UmonsAttention(config)
        self.self_attn_layer_norm = layer_norm()
        self.cross_attn = UmonsAttention(config) if is_guided else None
        self.cross_attn_layer_norm = layer_norm() if is_guided else None
        self.mlp = UmonsMLP(config)
        self.mlp_layer_norm = layer_norm()
        self.glimpse = UmonsGlimpse(config, config.length_limit(modality)) if has_glimpse else None
        self.glimpse_layer_norm = layer_norm() if has_glimpse else None
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(
        self,
        hidden_states: torch.Tensor,
        stream: UmonsStream,
        guide: torch.Tensor | None,
        guide_present: torch.Tensor | None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> torch.Tensor:
        residual = hidden_states
        attended, _ = self.self_attn(hidden_states, stream.attention_mask, **kwargs)
        hidden_states = self.self_attn_layer_norm(hidden_states + self.dropout(attended))

        if self.cross_attn is not None:
            if guide is not None:
                attended, _ = self.cross_attn(hidden_states, stream.guide_mask, key_value_states=guide, **kwargs)
                # A row without the guide equals a batch without it.
                hidden_states = hidden_states + self.dropout(attended) * guide_present
            hidden_states = self.cross_attn_layer_norm(hidden_states)

        hidden_states = self.mlp_layer_norm(hidden_states + self.dropout(self.mlp(hidden_states)))
        # CODEPATH: the paper's models have the outer residual connection; an ablation has none
        if self.has_outer_residual:
            hidden_states = residual + hidden_states

        if self.glimpse is not None:
            glimpses, _ = self.glimpse(hidden_states, stream.padding_mask, stream.ranks)
            hidden_states = self.glimpse_layer_norm(hidden_states + self.dropout(glimpses))
        return hidden_states


class UmonsLayer(GradientCheckpointingLayer):
    """Block of the joint sequence. The guide x of SGA is the input of the block, not the output of its SA."""

    def __init__(self, config: UmonsConfig, is_last: bool):
        super().__init__()
        # CODEPATH: in models whose modalities vote, no modality attends to another
        self.guide = config.guide_modality if config.modality_fusion == "attention" else None
        self.modality_layers = nn.ModuleDict(
            {modality: UmonsModalityLayer(config, modality, is_last) for modality in config.modalities}
        )

    def forward(
        self,
        hidden_states: torch.Tensor,
        streams: list[UmonsStream],
        guide_present: torch.Tensor | None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> torch.Tensor:
        # Contiguous: a linear layer would split other tensors into many small products.
        lengths = [stream.length for stream in streams]
        sequences = [sequence.contiguous() for sequence in hidden_states.split(lengths, dim=1)]
        places = [stream.modality for stream in streams]
        guide = sequences[places.index(self.guide)] if self.guide in places else None
        sequences = [
            self.modality_layers[stream.modality](sequence, stream, guide, guide_present, **kwargs)
            for sequence, stream in zip(sequences, streams, strict=True)
        ]
        return torch.cat(sequences, dim=1)


class UmonsPooler(nn.Module):
    """
    Final glimpse of one modality and its projection, (B, T, hidden_size) -> (B, 2 * hidden_size). Without
    `use_glimpses`, the mean over time replaces the glimpse.
    """

    def __init__(self, config: UmonsConfig):
        super().__init__()
        # CODEPATH: all published checkpoints have glimpses; an ablation has none
        self.glimpse = UmonsGlimpse(config, num_glimpses=1) if config.use_glimpses else None
        self.projection = nn.Linear(config.hidden_size, 2 * config.hidden_size)

    def forward(self, hidden_states: torch.Tensor, padding_mask: torch.BoolTensor | None) -> torch.Tensor:
        if self.glimpse is not None:
            glimpse, _ = self.glimpse(hidden_states, padding_mask)
            return self.projection(glimpse.squeeze(1))
        if padding_mask is None:
            return self.projection(hidden_states.mean(dim=1))
        weights = padding_mask[..., None].to(hidden_states.dtype)
        return self.projection((hidden_states * weights).sum(dim=1) / weights.sum(dim=1))


@auto_docstring
class UmonsPreTrainedModel(FromEncodersMixin, PreTrainedModel):
    config: UmonsConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    input_modalities = ("text", "audio", "video")
    accepts_loss_kwargs = True
    supports_gradient_checkpointing = True
    _no_split_modules = ["UmonsTextFrontEnd", "UmonsModalityLayer"]
    _supports_sdpa = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _can_record_outputs = {
        "hidden_states": UmonsLayer,
        "attentions": OutputRecorder(UmonsAttention, index=1, layer_name="self_attn"),
        "cross_attentions": OutputRecorder(UmonsAttention, index=1, layer_name="cross_attn"),
        "glimpse_weights": OutputRecorder(UmonsGlimpse, index=1),
    }

    @torch.no_grad()
    def _init_weights(self, module):
        """Initialize as PyTorch does, scaled by `initializer_factor`."""
        factor = self.config.initializer_factor
        if isinstance(module, nn.Linear):
            bound = factor * module.in_features**-0.5
            init.uniform_(module.weight, -bound, bound)
            init.uniform_(module.bias, -bound, bound)
        elif isinstance(module, UmonsLSTM):
            bound = factor * module.hidden_size**-0.5
            for parameter in module.parameters():
                init.uniform_(parameter, -bound, bound)
        elif isinstance(module, nn.Embedding):
            init.normal_(module.weight, std=factor)
            if module.padding_idx is not None and not getattr(module.weight, "_is_hf_initialized", False):
                init.zeros_(module.weight[module.padding_idx])
        elif isinstance(module, UmonsEncoder) and module.layer_weights is not None:
            init.zeros_(module.layer_weights)
        else:
            super()._init_weights(module)

    def resize_token_embeddings(self, *args, **kwargs) -> nn.Embedding:
        embeddings = super().resize_token_embeddings(*args, **kwargs)
        self.config.vocab_size = embeddings.num_embeddings  # transformers sets it in the text encoder only
        return embeddings

    @can_return_tuple
    @auto_docstring
    def get_audio_features(
        self,
        input_values: torch.FloatTensor | None = None,
        input_values_mask: torch.Tensor | None = None,
        input_features: torch.FloatTensor | None = None,
        input_features_mask: torch.Tensor | None = None,
        **kwargs,
    ) -> UmonsAudioFeaturesOutput:
        r"""
        input_values (`torch.FloatTensor` of shape `(batch_size, num_samples)`, *optional*):
            Waveforms, for an audio encoder that takes `input_values`.
        input_values_mask (`torch.Tensor` of shape `(batch_size, num_samples)`, *optional*):
            1 for samples, 0 for padding. Without a mask, only rows of zeros are padding.
        input_features (`torch.FloatTensor` of shape `(batch_size, mel_bins, num_frames)`, *optional*):
            Spectrograms, for an audio encoder that takes `input_features`.
        input_features_mask (`torch.Tensor` of shape `(batch_size, num_frames)`, *optional*):
            1 for frames, 0 for padding. Without a mask, only rows of zeros are padding.
        """
        if "audio" not in self.base_model.encoders:
            raise ValueError("This model has no audio encoder: configure one with `UmonsConfig(audio_encoder=...)`.")
        encoder = self.base_model.encoders["audio"]
        inputs = {
            "input_values": (input_values, input_values_mask),
            "input_features": (input_features, input_features_mask),
        }
        values, mask = inputs[encoder.input_name]
        if values is None:
            raise ValueError(f"The audio encoder of this model takes `{encoder.input_name}`, which is missing.")
        check_audio(encoder.input_name, values, mask)
        mask = None if mask is None else mask.to(values.device, torch.bool)
        features, mask = encoder(values, mask)
        check_length(self.config, "audio", encoder.input_name, features.shape[1])
        return UmonsAudioFeaturesOutput(last_hidden_state=features, pooler_output=features, attention_mask=mask.long())

    @can_return_tuple
    @auto_docstring
    def get_video_features(
        self, pixel_values_videos: torch.FloatTensor, video_features_mask: torch.Tensor | None = None, **kwargs
    ) -> BaseModelOutputWithPooling:
        r"""
        pixel_values_videos (`torch.FloatTensor` of shape `(batch_size, video_length, 16, 3, 112, 112)`):
            Normalised clips, as returned by [`UmonsVideoProcessor`]. A video encoder has its own clip length and size.
        video_features_mask (`torch.Tensor` of shape `(batch_size, video_length)`, *optional*):
            1 for clips, 0 for padding, which is not computed.

        Returns:
            [`BaseModelOutputWithPooling`]. Its `pooler_output` `(batch_size, video_length, video_feature_size)` holds
            the `video_features` of the model, or `video_embeds` with a video encoder. Padding is zero.
        """
        if self.base_model.video_tower is None and "video" not in self.base_model.encoders:
            raise ValueError(
                "This model has no video tower or encoder: configure one with `UmonsConfig(video_tower={})`."
            )
        check_clips(self.config, pixel_values_videos, video_features_mask)
        clips = pixel_values_videos.flatten(0, 1)
        tower = self.base_model.video_tower or self.base_model.encoders["video"]
        if video_features_mask is None:
            features = tower(clips)
        else:
            is_clip = video_features_mask.flatten().to(device=clips.device, dtype=torch.bool)
            features = clips.new_zeros(len(clips), self.config.video_feature_size, dtype=tower.dtype)
            if is_clip.any():
                features[is_clip] = tower(clips[is_clip])
        features = features.unflatten(0, pixel_values_videos.shape[:2])
        return BaseModelOutputWithPooling(last_hidden_state=features, pooler_output=features)


@auto_docstring(
    custom_intro="""
    The UMONS model (TBJE) without a head on top: front ends, joint-encoding blocks, final glimpses.

    A call requires at least one of the modalities. A missing modality, left out of the call or masked throughout a
    row, contributes nothing, and neither does padding, in any place of a row. Without a mask, word id `pad_token_id`
    and all-zero frames are padding.
    """
)
class UmonsModel(UmonsPreTrainedModel):
    _auto_class = "AutoModel"  # saving copies the code, so that the folder loads without this package

    def __init__(self, config: UmonsConfig):
        super().__init__(config)
        self.main_input_name = config.sequence_name(config.modalities[0])  # counted by Trainer
        self.front_ends = UmonsFrontEnds(config)
        self.encoders = UmonsEncoders(config)
        # CODEPATH: models of raw video have a tower; those of the paper take features of clips
        self.video_tower = UmonsVideoTower(config.video_tower) if config.video_tower is not None else None
        last = config.num_hidden_layers - 1
        self.layers = nn.ModuleList([UmonsLayer(config, is_last=i == last) for i in range(config.num_hidden_layers)])
        self.poolers = nn.ModuleDict({modality: UmonsPooler(config) for modality in config.modalities})
        self.layer_norm = UmonsLayerNorm(2 * config.hidden_size, eps=config.layer_norm_eps)
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding | None:
        if "text" in self.encoders:
            return self.encoders["text"].model.get_input_embeddings()
        return self.front_ends["text"].embed_tokens if "text" in self.front_ends else None

    def set_input_embeddings(self, value: nn.Embedding):
        if "text" in self.encoders:
            self.encoders["text"].model.set_input_embeddings(value)
        else:
            self.front_ends["text"].embed_tokens = value

    @merge_with_config_defaults
    @capture_outputs
    @auto_docstring(custom_args=INPUT_DOCS)
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        history_ids: torch.LongTensor | None = None,
        history_mask: torch.Tensor | None = None,
        input_features: torch.FloatTensor | None = None,
        input_features_mask: torch.Tensor | None = None,
        input_values: torch.FloatTensor | None = None,
        input_values_mask: torch.Tensor | None = None,
        audio_embeds: torch.FloatTensor | None = None,
        audio_embeds_mask: torch.Tensor | None = None,
        video_features: torch.FloatTensor | None = None,
        video_features_mask: torch.Tensor | None = None,
        video_embeds: torch.FloatTensor | None = None,
        video_embeds_mask: torch.Tensor | None = None,
        pixel_values_videos: torch.FloatTensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> UmonsModelOutput:
        inputs = {
            "input_ids": (input_ids, attention_mask),
            "input_features": (input_features, input_features_mask),
            "input_values": (input_values, input_values_mask),
            "audio_embeds": (audio_embeds, audio_embeds_mask),
            "video_features": (video_features, video_features_mask),
            "video_embeds": (video_embeds, video_embeds_mask),
            "pixel_values_videos": (pixel_values_videos, video_features_mask),
        }
        sequences, masks = self._embed_inputs(inputs, history_ids, history_mask)
        present = {modality: mask.any(dim=1) for modality, mask in masks.items()}
        # Rows without a modality attend to its padding, so that no softmax is empty. `present` then removes them from
        # the guide and from the sum.
        masks = {modality: mask | ~present[modality][:, None] for modality, mask in masks.items()}
        streams = self._make_streams(sequences, masks, present)
        guide = self.config.guide_modality
        hidden_states = torch.cat(list(sequences.values()), dim=1)
        guide_present = present[guide][:, None, None].to(hidden_states.dtype) if guide in present else None

        for layer in self.layers:
            hidden_states = layer(hidden_states, streams, guide_present, **kwargs)
            # CODEPATH: checkpoints of the published code are masked in the first block only, others in all blocks
            if self.config.legacy_masking:
                streams = [
                    stream._replace(padding_mask=None, attention_mask=None, guide_mask=None) for stream in streams
                ]

        glimpses = [
            self.poolers[stream.modality](sequence, stream.padding_mask)
            for sequence, stream in zip(hidden_states.split([s.length for s in streams], dim=1), streams, strict=True)
        ]
        mask = torch.stack([present[stream.modality] for stream in streams], dim=1)
        glimpses = torch.stack(glimpses, dim=1) * mask[:, :, None].to(hidden_states.dtype)
        # CODEPATH: the head processes the modalities of models that vote one by one, and the sum in all other models
        if self.config.modality_fusion == "vote":
            return UmonsModelOutput(hidden_states, self.layer_norm(glimpses), modality_mask=mask)
        return UmonsModelOutput(hidden_states, self.layer_norm(glimpses.sum(dim=1)))

    def _embed_inputs(
        self,
        inputs: dict[str, tuple[torch.Tensor | None, torch.Tensor | None]],
        history_ids: torch.LongTensor | None,
        history_mask: torch.Tensor | None,
    ) -> tuple[dict[str, torch.Tensor], dict[str, torch.BoolTensor]]:
        """Return hidden states (B, T, hidden_size) and masks (B, T) by modality, of values and masks by input name."""
        self._check_names([name for name, (value, _) in inputs.items() if value is not None])
        if "audio" in self.encoders:
            name = self.encoders["audio"].input_name
            values, mask = inputs[name]
            if values is not None:
                outputs = self.get_audio_features(**{name: values, f"{name}_mask": mask}, return_dict=True)
                inputs["audio_embeds"] = (outputs.pooler_output, outputs.attention_mask)
        clips, mask = inputs["pixel_values_videos"]
        if clips is not None:
            outputs = self.get_video_features(clips, mask, return_dict=True)
            inputs[self.config.sequence_name("video")] = (outputs.pooler_output, mask)

        names = {modality: self.config.sequence_name(modality) for modality in INPUT_NAMES}
        sequences = {modality: inputs[name] for modality, name in names.items()}
        values, masks = prepare_inputs(self.config, sequences, self.front_ends.dtype, names)
        check_rows(masks)
        # CODEPATH: checkpoints of the published code attend to padding in later blocks; models trained here never do
        if self.config.legacy_masking:
            pad_to_full_length(self.config, values, masks)
        # CODEPATH: models of conversations process the previous utterances before the text
        num_before = 0
        if history_ids is not None:
            num_before = prepend_history(self.config, values, masks, history_ids, history_mask)
        # LSTMs, and the positions of encoders, depend on the order of steps: padding moves behind the others.
        has_order = {"text": True, "audio": self.config.audio_front_end == "lstm", "video": False}
        ranks = {modality: rank_steps(masks[modality]) for modality in values if has_order[modality]}
        for modality, places in ranks.items():
            value = values[modality]
            places = places if value.ndim == 2 else places[..., None].expand_as(value)
            values[modality] = torch.zeros_like(value).scatter(1, places, value)
        if "text" in values and "text" in self.encoders:
            steps = torch.arange(values["text"].shape[1], device=values["text"].device)
            is_word = steps < masks["text"].sum(dim=1, keepdim=True)
            values["text"] = self.encoders["text"](values["text"], is_word).to(self.front_ends.dtype)
        sequences = self.front_ends(values)
        for modality, places in ranks.items():
            sequence = sequences[modality]
            sequences[modality] = sequence.gather(1, places[..., None].expand_as(sequence))
        if num_before:
            sequences["text"], masks["text"] = sequences["text"][:, num_before:], masks["text"][:, num_before:]
        return sequences, masks

    def _check_names(self, given: list[str]):
        """Raise a ValueError for inputs that this model does not take, and for several of one modality."""
        takes_clips = self.video_tower is not None or "video" in self.encoders
        raw = {
            "audio": [self.encoders["audio"].input_name] if "audio" in self.encoders else [],
            "video": ["pixel_values_videos"] if takes_clips else [],
        }
        for modality, alternatives in ALTERNATIVES.items():
            accepted = [self.config.sequence_name(modality), *raw[modality]]
            names = [name for name in alternatives if name in given]
            for name in names:
                if name not in accepted:
                    raise ValueError(
                        f"`{name}` is given, but the {modality} of this model is `{'` or `'.join(accepted)}`, by the "
                        "encoders of its configuration."
                    )
            if len(names) > 1:
                raise ValueError(f"`{'` and `'.join(names)}` are both given: pass one of them.")

    def _make_streams(
        self,
        sequences: dict[str, torch.Tensor],
        masks: dict[str, torch.BoolTensor],
        present: dict[str, torch.BoolTensor],
    ) -> list[UmonsStream]:
        guide = self.config.guide_modality
        streams = []
        for modality, sequence in sequences.items():
            padding_mask, guide_mask, ranks = masks[modality], None, rank_steps(masks[modality])
            # A batch without padding requires no mask, but finding out would wait for the GPU.
            skips = {"allow_is_bidirectional_skip": can_read_values(padding_mask)}
            attention_mask = create_bidirectional_mask(self.config, sequence, padding_mask, **skips)
            if modality != guide and guide in sequences:
                guide_mask = create_bidirectional_mask(
                    self.config, sequence, masks[guide], encoder_hidden_states=sequences[guide], **skips
                )
            # CODEPATH: published three-modality checkpoints mask the video glimpse like the audio; no other model does
            if (
                self.config.legacy_masking
                and len(self.config.modalities) == 3
                and modality == "video"
                and "audio" in masks
            ):
                padding_mask = torch.where(present["audio"][:, None], masks["audio"], padding_mask)
            streams.append(UmonsStream(modality, sequence.shape[1], padding_mask, attention_mask, guide_mask, ranks))
        return streams


def combine_votes(logits: torch.Tensor, mask: torch.BoolTensor, neutral: int | None) -> torch.Tensor:
    """
    Combine the logits of single modalities, (B, M, num_labels), to those of each row, (B, num_labels).

    An emotion is present if any modality expresses it, with independent probabilities (noisy-or; Pearl, 1988), and the
    row is neutral if all its modalities are. The sentiment is that of the first modality of the row, the words if it
    has any, plus `OTHER_SENTIMENTS` times those of the others. A single modality keeps its logits.

    Args:
        logits: column 0 is the sentiment, the others are emotions.
        mask: (B, M), `True` for modalities that the row has.
        neutral: column of the label "neutral", if there is one.
    """
    dtype, logits = logits.dtype, logits.float()
    known = mask[:, :, None].to(logits.dtype)
    sign = torch.ones(logits.shape[-1], device=logits.device)
    if neutral is not None:
        sign[neutral] = -1.0
    # The negative logarithm of the probability that no modality expresses the emotion, or that all are neutral.
    cost = (nn.functional.softplus(logits * sign) * known).sum(dim=1).clamp(min=1e-30)
    combined = sign * (cost + torch.log(-torch.expm1(-cost)))
    is_first = known * (known.cumsum(dim=1) == 1)
    weights = is_first + OTHER_SENTIMENTS * (known - is_first)
    sentiment = (logits[..., :1] * weights).sum(dim=1)
    return torch.cat([sentiment, combined[:, 1:]], dim=1).to(dtype)


def joint_sentiment_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """
    Compute the L1 loss of the sentiment (column 0) plus the binary cross-entropy of the emotions (the other columns).

    Each is the mean over the known labels. `logits` and `labels` are (B, num_labels); unknown labels are NaN.
    """
    if labels.shape != logits.shape:
        raise ValueError(
            f"`labels` has shape {tuple(labels.shape)}, but `joint_sentiment` requires {tuple(logits.shape)}: the "
            "sentiment, then the emotions (0 or 1), NaN where unknown."
        )
    logits, labels = logits.float(), labels.float()
    known = ~labels.isnan()
    labels = labels.nan_to_num()
    sentiment = (logits[:, :1] - labels[:, :1]).abs()
    emotions = nn.functional.binary_cross_entropy_with_logits(logits[:, 1:], labels[:, 1:], reduction="none")
    return sum(
        (errors * is_known).sum() / is_known.sum().clamp(min=1)
        for errors, is_known in ((sentiment, known[:, :1]), (emotions, known[:, 1:]))
    )


def share_of_loss(loss: torch.Tensor, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None):
    """
    Scale the mean loss of a batch to its share of the mean over all accumulated batches of all processes.

    These have `num_items_in_batch` labels, as `Trainer` counts them: all but -100. Unknown labels of `joint_sentiment`
    (NaN) are counted, so that a batch weighs as many rows as it has.
    """
    return loss if num_items_in_batch is None else loss * labels.ne(-100).sum() / num_items_in_batch


@auto_docstring(
    custom_intro="""
    The UMONS model with a linear head for emotions (multi-label), sentiment classes, sentiment as a number, or with
    `joint_sentiment` sentiment and emotions at once. `problem_type` and `id2label` select the task.
    """
)
class UmonsForSequenceClassification(UmonsPreTrainedModel):
    _auto_class = "AutoModelForSequenceClassification"

    def __init__(self, config: UmonsConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.model = UmonsModel(config)
        self.main_input_name = self.model.main_input_name
        self.classifier = nn.Linear(2 * config.hidden_size, config.num_labels)
        self.post_init()

    @can_return_tuple
    @auto_docstring(custom_args=INPUT_DOCS + LABEL_DOCS)
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        history_ids: torch.LongTensor | None = None,
        history_mask: torch.Tensor | None = None,
        input_features: torch.FloatTensor | None = None,
        input_features_mask: torch.Tensor | None = None,
        input_values: torch.FloatTensor | None = None,
        input_values_mask: torch.Tensor | None = None,
        audio_embeds: torch.FloatTensor | None = None,
        audio_embeds_mask: torch.Tensor | None = None,
        video_features: torch.FloatTensor | None = None,
        video_features_mask: torch.Tensor | None = None,
        video_embeds: torch.FloatTensor | None = None,
        video_embeds_mask: torch.Tensor | None = None,
        pixel_values_videos: torch.FloatTensor | None = None,
        labels: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> UmonsSequenceClassifierOutput:
        r"""
        Example:

        ```python
        >>> import modeling_umons
        >>> from transformers import AutoModelForSequenceClassification, AutoProcessor

        >>> model = AutoModelForSequenceClassification.from_pretrained("hub/umons-mini")
        >>> processor = AutoProcessor.from_pretrained("hub/umons-mini")
        >>> logits = model(**processor(text=["what a wonderful day"], return_tensors="pt")).logits
        >>> logits.shape
        torch.Size([1, 8])
        ```
        """
        num_items_in_batch = kwargs.pop("num_items_in_batch", None)
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            history_ids=history_ids,
            history_mask=history_mask,
            input_features=input_features,
            input_features_mask=input_features_mask,
            input_values=input_values,
            input_values_mask=input_values_mask,
            audio_embeds=audio_embeds,
            audio_embeds_mask=audio_embeds_mask,
            video_features=video_features,
            video_features_mask=video_features_mask,
            video_embeds=video_embeds,
            video_embeds_mask=video_embeds_mask,
            pixel_values_videos=pixel_values_videos,
            **kwargs,
        )
        logits = self.classifier(outputs.pooler_output)
        # CODEPATH: in umons-base and umons-mini, words and voice vote
        if self.config.modality_fusion == "vote":
            neutral = next((i for i, label in self.config.id2label.items() if label == NEUTRAL), None)
            logits = combine_votes(logits, outputs.modality_mask, neutral)

        loss = None
        # CODEPATH: models of sentiment and emotions at once, such as umons-mini; models of one task have the stock
        # losses
        if labels is not None and self.config.joint_sentiment:
            loss = joint_sentiment_loss(logits, labels.to(logits.device))
        elif labels is not None:
            loss = self.loss_function(labels, logits, self.config)
        if loss is not None:
            loss = share_of_loss(loss, labels, num_items_in_batch)

        return UmonsSequenceClassifierOutput(
            loss=loss,
            logits=logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            cross_attentions=outputs.cross_attentions,
            glimpse_weights=outputs.glimpse_weights,
        )


__all__ = ["UmonsForSequenceClassification", "UmonsModel", "UmonsPreTrainedModel", "UmonsVideoTower"]
