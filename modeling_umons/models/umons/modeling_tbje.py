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

from collections.abc import Callable
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
from transformers.utils import TransformersKwargs, auto_docstring, can_return_tuple, logging
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import OutputRecorder, capture_outputs

from .configuration_umons import UmonsConfig
from .dropout_umons import UmonsDropout, UmonsReLUDropout, apply_dropout, is_fast
from .encoders_umons import UmonsEncoder, UmonsEncoders
from .front_ends_umons import UmonsFrontEnds, UmonsLSTM
from .inputs_umons import INPUT_NAMES, check_clips, check_length, check_sound, prepare_inputs
from .loading_umons import FromEncodersMixin
from .outputs_umons import UmonsAudioFeaturesOutput, UmonsModelOutput, UmonsSequenceClassifierOutput
from .video_tower_umons import UmonsVideoTower


logger = logging.get_logger(__name__)


class UmonsStream(NamedTuple):
    """One modality's stretch of the joint sequence, and which of its positions a block may look at."""

    modality: str
    length: int
    padding_mask: torch.BoolTensor | None  # (B, T), True where there is something to see; None: everywhere
    attention_mask: torch.Tensor | None  # as the attention implementation wants it: what positions of the stream see
    guide_mask: torch.Tensor | None  # likewise, of the guide


def eager_attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Unpack[TransformersKwargs],
) -> tuple[torch.Tensor, torch.Tensor]:
    scores = query @ key.transpose(2, 3) * scaling
    if attention_mask is not None and attention_mask.dtype == torch.bool:  # as `sdpa` has them, True where to look
        scores = scores.masked_fill(~attention_mask, torch.finfo(scores.dtype).min)
    elif attention_mask is not None:
        scores = scores + attention_mask
    # Half precision is too coarse for a sum of many exponentials; double precision stays what it is.
    dtype = torch.promote_types(scores.dtype, torch.float32)
    weights = nn.functional.softmax(scores, dim=-1, dtype=dtype).to(query.dtype)
    weights = apply_dropout(weights, dropout, module.training)
    return (weights @ value).transpose(1, 2).contiguous(), weights


class UmonsAttention(nn.Module):
    """Multi-head attention: of a sequence to itself, or to the guide when `key_value_states` is given."""

    def __init__(self, config: UmonsConfig):
        super().__init__()
        self.config = config
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.scaling = self.head_dim**-0.5
        self.attention_dropout = config.attention_probs_dropout_prob
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
        dropout = self.attention_dropout if self.training else 0.0
        # With dropout on a CPU, PyTorch does for `sdpa` what `eager` does, but with its own dropout.
        if implementation == "sdpa" and is_fast(query, dropout):
            implementation = "eager"
        attention_interface: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(implementation, eager_attention_forward)
        attended, weights = attention_interface(
            self,
            query,
            key,
            value,
            attention_mask,
            dropout=dropout,
            scaling=self.scaling,
            **kwargs,
        )
        return self.o_proj(attended.flatten(2)), weights


class UmonsMLP(nn.Module):
    """Linear -> ReLU -> dropout -> Linear, position by position."""

    def __init__(self, config: UmonsConfig):
        super().__init__()
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.activation = UmonsReLUDropout(config.hidden_dropout_prob)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.fc2(self.activation(self.fc1(hidden_states)))


class UmonsGlimpse(nn.Module):
    """
    Looks at a whole sequence through several learnt softmaxes over time: (B, T, hidden_size) -> the glimpses
    (B, n, hidden_size) and their weights (B, T, n). A sequence of T steps uses the first T of the glimpses there are, so
    that padding can be cut off a batch without any change of the answer.
    """

    def __init__(self, config: UmonsConfig, num_glimpses: int):
        super().__init__()
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.activation = UmonsReLUDropout(config.hidden_dropout_prob)
        self.fc2 = nn.Linear(config.intermediate_size, num_glimpses)

    def forward(
        self, hidden_states: torch.Tensor, padding_mask: torch.BoolTensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        n = min(self.fc2.out_features, hidden_states.shape[1])
        scores = self.activation(self.fc1(hidden_states))
        scores = nn.functional.linear(scores, self.fc2.weight[:n], self.fc2.bias[:n])
        if padding_mask is not None:
            scores = scores.masked_fill(~padding_mask[..., None], torch.finfo(scores.dtype).min)
        dtype = torch.promote_types(scores.dtype, torch.float32)
        weights = nn.functional.softmax(scores, dim=1, dtype=dtype).to(hidden_states.dtype)
        # All glimpses of all rows as one batched product: (B, n, T) @ (B, T, hidden_size).
        return weights.transpose(1, 2) @ hidden_states, weights


class UmonsModalityLayer(nn.Module):
    """
    One modality's part of a block: self-attention (SA in the paper), or guided attention (SGA) when the modality has a
    guide; a residual around all of it; and, unless the block is the last, one glimpse for each position.
    """

    def __init__(self, config: UmonsConfig, modality: str, is_last: bool):
        super().__init__()
        is_guided = modality != config.modalities[0]

        def layer_norm() -> nn.LayerNorm:
            return nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

        self.self_attn = UmonsAttention(config)
        self.self_attn_layer_norm = layer_norm()
        self.cross_attn = UmonsAttention(config) if is_guided else None
        self.cross_attn_layer_norm = layer_norm() if is_guided else None
        self.mlp = UmonsMLP(config)
        self.mlp_layer_norm = layer_norm()
        self.glimpse = None if is_last else UmonsGlimpse(config, config.length_limit(modality))
        self.glimpse_layer_norm = None if is_last else layer_norm()
        self.dropout = UmonsDropout(config.hidden_dropout_prob)

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
                # Rows whose guide is absent get nothing from it, as when the whole batch has none.
                hidden_states = hidden_states + self.dropout(attended) * guide_present
            hidden_states = self.cross_attn_layer_norm(hidden_states)

        hidden_states = self.mlp_layer_norm(hidden_states + self.dropout(self.mlp(hidden_states)))
        hidden_states = residual + hidden_states

        if self.glimpse is not None:
            glimpses, _ = self.glimpse(hidden_states, stream.padding_mask)
            hidden_states = self.glimpse_layer_norm(hidden_states + self.dropout(glimpses))
        return hidden_states


class UmonsLayer(GradientCheckpointingLayer):
    """A co-attention block over the joint sequence. What guides is the block's input, not its own first result."""

    def __init__(self, config: UmonsConfig, is_last: bool):
        super().__init__()
        self.guide = config.modalities[0]
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
        # Contiguous, for a linear map of anything else is a batch of small products.
        lengths = [stream.length for stream in streams]
        sequences = [sequence.contiguous() for sequence in hidden_states.split(lengths, dim=1)]
        guide = sequences[0] if streams[0].modality == self.guide else None
        sequences = [
            self.modality_layers[stream.modality](sequence, stream, guide, guide_present, **kwargs)
            for sequence, stream in zip(sequences, streams, strict=True)
        ]
        return torch.cat(sequences, dim=1)


class UmonsPooler(nn.Module):
    """The final glimpse at one modality: (B, T, hidden_size) -> (B, 2 * hidden_size)."""

    def __init__(self, config: UmonsConfig):
        super().__init__()
        self.glimpse = UmonsGlimpse(config, num_glimpses=1)
        self.projection = nn.Linear(config.hidden_size, 2 * config.hidden_size)

    def forward(self, hidden_states: torch.Tensor, padding_mask: torch.BoolTensor | None) -> torch.Tensor:
        glimpse, _ = self.glimpse(hidden_states, padding_mask)
        return self.projection(glimpse.squeeze(1))


@auto_docstring
class UmonsPreTrainedModel(FromEncodersMixin, PreTrainedModel):
    config: UmonsConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    input_modalities = ("text", "audio", "video")
    # The loss is the mean over a batch, whatever `num_items_in_batch` says. Trainer takes the `**kwargs` of a forward for
    # the opposite, and would then neither divide by the number of accumulated batches nor average over processes.
    accepts_loss_kwargs = False
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
        """PyTorch's own start, scaled by `initializer_factor`: uniform within 1 / sqrt(inputs); word vectors normal."""
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
        self.config.vocab_size = embeddings.num_embeddings  # which transformers sets in that of a text encoder alone
        return embeddings

    @can_return_tuple
    @auto_docstring
    def get_audio_features(
        self, input_values: torch.FloatTensor, input_values_mask: torch.Tensor | None = None, **kwargs
    ) -> UmonsAudioFeaturesOutput:
        r"""
        input_values (`torch.FloatTensor` of shape `(batch_size, num_samples)` or `(batch_size, mel_bins, num_frames)`):
            Sound, as the audio encoder wants it and [`UmonsProcessor`] gives it.
        input_values_mask (`torch.Tensor` of shape `(batch_size, num_samples)` or `(batch_size, num_frames)`, *optional*):
            1 for sound, 0 for padding. Without it, all is sound but for rows of zeros.
        """
        check_sound(self.config, input_values, input_values_mask)
        mask = None if input_values_mask is None else input_values_mask.to(input_values.device, torch.bool)
        features, mask = self.base_model.encoders["audio"](input_values, mask)
        check_length(self.config, "audio", "input_values", features.shape[1])
        return UmonsAudioFeaturesOutput(last_hidden_state=features, pooler_output=features, attention_mask=mask.long())

    @can_return_tuple
    @auto_docstring
    def get_video_features(
        self, pixel_values_videos: torch.FloatTensor, video_features_mask: torch.Tensor | None = None, **kwargs
    ) -> BaseModelOutputWithPooling:
        r"""
        pixel_values_videos (`torch.FloatTensor` of shape `(batch_size, video_length, 16, 3, 112, 112)`):
            Normalised clips, as [`UmonsVideoProcessor`] gives them; of the size and length that a video encoder wants.
        video_features_mask (`torch.Tensor` of shape `(batch_size, video_length)`, *optional*):
            1 for clips, 0 for padding, of which no features are computed.

        Returns:
            [`BaseModelOutputWithPooling`], whose `pooler_output` is the model's `video_features`, `(batch_size, video_length,
            video_feature_size)`: zero where the mask is.
        """
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
    The UMONS model without a head on top: front ends, co-attention blocks, final glimpses.

    Of its modalities a call needs at least one. One that is left out, or whose mask is zero throughout a row, contributes
    nothing there. Without a mask, word id `pad_token_id` and all-zero frames are padding. Inputs that do not fit raise a
    ValueError with the input's name, what is wrong with it and what would be right.
    """
)
class UmonsModel(UmonsPreTrainedModel):
    _auto_class = "AutoModel"  # saving copies the code, so that the folder loads without this package

    def __init__(self, config: UmonsConfig):
        super().__init__(config)
        self.main_input_name = INPUT_NAMES[config.modalities[0]]  # what Trainer counts; not every model has text
        self.front_ends = UmonsFrontEnds(config)
        self.encoders = UmonsEncoders(config)
        # CODEPATH: models of raw pictures have a tower; those of the paper are given the features of clips
        self.video_tower = UmonsVideoTower(config.video_tower) if config.video_tower is not None else None
        last = config.num_hidden_layers - 1
        self.layers = nn.ModuleList([UmonsLayer(config, is_last=i == last) for i in range(config.num_hidden_layers)])
        self.poolers = nn.ModuleDict({modality: UmonsPooler(config) for modality in config.modalities})
        self.layer_norm = nn.LayerNorm(2 * config.hidden_size, eps=config.layer_norm_eps)
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
    @auto_docstring
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        input_features: torch.FloatTensor | None = None,
        input_features_mask: torch.Tensor | None = None,
        input_values: torch.FloatTensor | None = None,
        input_values_mask: torch.Tensor | None = None,
        video_features: torch.FloatTensor | None = None,
        video_features_mask: torch.Tensor | None = None,
        pixel_values_videos: torch.FloatTensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> UmonsModelOutput:
        r"""
        input_ids (`torch.LongTensor` of shape `(batch_size, text_length)`, *optional*):
            Word ids.
        attention_mask (`torch.Tensor` of shape `(batch_size, text_length)`, *optional*):
            1 for words, 0 for padding.
        input_features (`torch.FloatTensor` of shape `(batch_size, audio_length, audio_feature_size)`, *optional*):
            Log-mel frames, or the sequence that an audio encoder made before.
        input_features_mask (`torch.Tensor` of shape `(batch_size, audio_length)`, *optional*):
            1 for frames, 0 for padding.
        input_values (`torch.FloatTensor` of shape `(batch_size, num_samples)` or `(batch_size, mel_bins, num_frames)`, *optional*):
            Sound as the audio encoder wants it, which turns it into `input_features`.
        input_values_mask (`torch.Tensor` of shape `(batch_size, num_samples)` or `(batch_size, num_frames)`, *optional*):
            1 for sound, 0 for padding.
        video_features (`torch.FloatTensor` of shape `(batch_size, video_length, video_feature_size)`, *optional*):
            Features of consecutive video clips.
        video_features_mask (`torch.Tensor` of shape `(batch_size, video_length)`, *optional*):
            1 for clips, 0 for padding.
        pixel_values_videos (`torch.FloatTensor` of shape `(batch_size, video_length, 16, 3, 112, 112)`, *optional*):
            Normalised clips, which the video tower or encoder turns into `video_features`.
        """
        if input_values is not None:
            if input_features is not None:
                raise ValueError("`input_values` and `input_features` are both given: pass one of them.")
            heard = self.get_audio_features(input_values, input_values_mask, return_dict=True)
            input_features, input_features_mask = heard.pooler_output, heard.attention_mask
        if pixel_values_videos is not None:
            if video_features is not None:
                raise ValueError("`pixel_values_videos` and `video_features` are both given: pass one of them.")
            videos = self.get_video_features(pixel_values_videos, video_features_mask, return_dict=True)
            video_features = videos.pooler_output
        inputs = {
            "text": (input_ids, attention_mask),
            "audio": (input_features, input_features_mask),
            "video": (video_features, video_features_mask),
        }
        values, masks = prepare_inputs(self.config, inputs, self.dtype)
        if "text" in values and "text" in self.encoders:
            values["text"] = self.encoders["text"](values["text"], masks["text"]).to(self.dtype)
        sequences = self.front_ends(values)

        present = {modality: mask.any(dim=1) for modality, mask in masks.items()}
        # Rows where a modality is absent look at their padding, so that every softmax is of something. Nothing comes of
        # it: below, their part in the sum is struck out, and in the blocks what they would say as a guide.
        masks = {modality: mask | ~present[modality][:, None] for modality, mask in masks.items()}
        streams = self._make_streams(sequences, masks, present)
        guide = self.config.modalities[0]
        hidden_states = torch.cat(list(sequences.values()), dim=1)
        guide_present = present[guide][:, None, None].to(hidden_states.dtype) if guide in present else None

        for layer in self.layers:
            hidden_states = layer(hidden_states, streams, guide_present, **kwargs)
            # CODEPATH: checkpoints of the published code, which masks in its first block only; models trained here mask always
            if self.config.legacy_masking:
                streams = [UmonsStream(stream.modality, stream.length, None, None, None) for stream in streams]

        pooled = 0.0
        for sequence, stream in zip(hidden_states.split([s.length for s in streams], dim=1), streams, strict=True):
            seen = self.poolers[stream.modality](sequence, stream.padding_mask)
            pooled = pooled + seen * present[stream.modality][:, None].to(seen.dtype)
        return UmonsModelOutput(last_hidden_state=hidden_states, pooler_output=self.layer_norm(pooled))

    def _make_streams(
        self,
        sequences: dict[str, torch.Tensor],
        masks: dict[str, torch.BoolTensor],
        present: dict[str, torch.BoolTensor],
    ) -> list[UmonsStream]:
        guide = self.config.modalities[0]
        streams = []
        for modality, sequence in sequences.items():
            padding_mask, guide_mask = masks[modality], None
            attention_mask = create_bidirectional_mask(self.config, sequence, padding_mask)
            if modality != guide and guide in sequences:
                guide_mask = create_bidirectional_mask(
                    self.config, sequence, masks[guide], encoder_hidden_states=sequences[guide]
                )
            # CODEPATH: published three-modality checkpoints mask the video glimpse like the audio; no other model does
            if (
                self.config.legacy_masking
                and len(self.config.modalities) == 3
                and modality == "video"
                and "audio" in masks
            ):
                padding_mask = torch.where(present["audio"][:, None], masks["audio"], padding_mask)
            streams.append(UmonsStream(modality, sequence.shape[1], padding_mask, attention_mask, guide_mask))
        return streams


def joint_sentiment_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """
    L1 on the sentiment (column 0) plus binary cross-entropy on the emotions (the other columns), each averaged over
    what is known. `logits` and `labels` are (B, num_labels); a label that is not known is NaN.
    """
    if labels.shape != logits.shape:
        raise ValueError(
            f"`labels` has shape {tuple(labels.shape)}, but `joint_sentiment` wants {tuple(logits.shape)}: the sentiment, "
            "then the emotions (0 or 1), NaN where unknown."
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


@auto_docstring(
    custom_intro="""
    The UMONS model with a linear head: emotions (multi-label), sentiment classes, sentiment as a number, or with
    `joint_sentiment` sentiment and emotions at once. `problem_type` and `id2label` decide, as in every such model.
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
    @auto_docstring
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        input_features: torch.FloatTensor | None = None,
        input_features_mask: torch.Tensor | None = None,
        input_values: torch.FloatTensor | None = None,
        input_values_mask: torch.Tensor | None = None,
        video_features: torch.FloatTensor | None = None,
        video_features_mask: torch.Tensor | None = None,
        pixel_values_videos: torch.FloatTensor | None = None,
        labels: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> UmonsSequenceClassifierOutput:
        r"""
        input_ids (`torch.LongTensor` of shape `(batch_size, text_length)`, *optional*):
            Word ids.
        attention_mask (`torch.Tensor` of shape `(batch_size, text_length)`, *optional*):
            1 for words, 0 for padding.
        input_features (`torch.FloatTensor` of shape `(batch_size, audio_length, audio_feature_size)`, *optional*):
            Log-mel frames, or the sequence that an audio encoder made before.
        input_features_mask (`torch.Tensor` of shape `(batch_size, audio_length)`, *optional*):
            1 for frames, 0 for padding.
        input_values (`torch.FloatTensor` of shape `(batch_size, num_samples)` or `(batch_size, mel_bins, num_frames)`, *optional*):
            Sound as the audio encoder wants it, which turns it into `input_features`.
        input_values_mask (`torch.Tensor` of shape `(batch_size, num_samples)` or `(batch_size, num_frames)`, *optional*):
            1 for sound, 0 for padding.
        video_features (`torch.FloatTensor` of shape `(batch_size, video_length, video_feature_size)`, *optional*):
            Features of consecutive video clips.
        video_features_mask (`torch.Tensor` of shape `(batch_size, video_length)`, *optional*):
            1 for clips, 0 for padding.
        pixel_values_videos (`torch.FloatTensor` of shape `(batch_size, video_length, 16, 3, 112, 112)`, *optional*):
            Normalised clips, which the video tower or encoder turns into `video_features`.
        labels (`torch.Tensor`, *optional*):
            Classes, `(batch_size,)` int64; several labels, `(batch_size, num_labels)` float of 0 and 1; a number,
            `(batch_size,)` float; with `joint_sentiment`, `(batch_size, num_labels)` float, the sentiment and then the
            emotions (0 or 1), NaN where unknown.

        Example:

        ```python
        >>> import modeling_umons
        >>> from transformers import AutoModelForSequenceClassification, AutoProcessor

        >>> model = AutoModelForSequenceClassification.from_pretrained("hub/umons-mini")
        >>> processor = AutoProcessor.from_pretrained("hub/umons-mini")
        >>> logits = model(**processor(text=["what a wonderful day"], return_tensors="pt")).logits
        >>> logits.shape
        torch.Size([1, 7])
        ```
        """
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            input_features=input_features,
            input_features_mask=input_features_mask,
            input_values=input_values,
            input_values_mask=input_values_mask,
            video_features=video_features,
            video_features_mask=video_features_mask,
            pixel_values_videos=pixel_values_videos,
            **kwargs,
        )
        logits = self.classifier(outputs.pooler_output)

        loss = None
        # CODEPATH: models of sentiment and emotions at once, such as umons-mini; models of one task have the stock losses
        if labels is not None and self.config.joint_sentiment:
            loss = joint_sentiment_loss(logits, labels.to(logits.device))
        elif labels is not None:
            loss = self.loss_function(labels, logits, self.config)

        return UmonsSequenceClassifierOutput(
            loss=loss,
            logits=logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            cross_attentions=outputs.cross_attentions,
            glimpse_weights=outputs.glimpse_weights,
        )


__all__ = ["UmonsForSequenceClassification", "UmonsModel", "UmonsPreTrainedModel"]
