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
"""Shared parts of the baselines: outputs, input checks, masked operations, base class and classification head."""

from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs, auto_docstring, can_return_tuple, logging

from .configuration_baselines import BaselineConfig


logger = logging.get_logger(__name__)

# Copied from modeling_umons.models.umons.configuration_umons.INPUT_NAMES
INPUT_NAMES = {"text": "input_ids", "audio": "input_features", "video": "video_features"}
MASK_NAMES = {"text": "attention_mask", "audio": "input_features_mask", "video": "video_features_mask"}
# Documentation of the inputs of the baselines, for `auto_docstring`.
INPUT_DOCS = r"""
        input_ids (`torch.LongTensor` of shape `(batch_size, text_length)`, *optional*):
            Word ids.
        attention_mask (`torch.Tensor` of shape `(batch_size, text_length)`, *optional*):
            1 for words, 0 for padding.
        input_features (`torch.FloatTensor` of shape `(batch_size, audio_length, audio_feature_size)`, *optional*):
            Log-mel frames.
        input_features_mask (`torch.Tensor` of shape `(batch_size, audio_length)`, *optional*):
            1 for frames, 0 for padding.
        video_features (`torch.FloatTensor` of shape `(batch_size, video_length, video_feature_size)`, *optional*):
            Features of consecutive video clips.
        video_features_mask (`torch.Tensor` of shape `(batch_size, video_length)`, *optional*):
            1 for clips, 0 for padding.
"""
# Documentation of the labels, for `auto_docstring`.
LABEL_DOCS = r"""
        labels (`torch.Tensor`, *optional*):
            Labels, by the task:

            - single-label classification: class ids, `(batch_size,)` int64;
            - multi-label classification: 0 or 1, `(batch_size, num_labels)` float;
            - regression: numbers, `(batch_size,)` float;
            - `joint_sentiment`: the sentiment, then the emotions (0 or 1), `(batch_size, num_labels)` float, NaN where
              unknown.
"""


@auto_docstring(custom_intro="Output class of the baselines.")
@dataclass
class BaselineModelOutput(ModelOutput):
    r"""
    last_hidden_state (`torch.FloatTensor` of shape `(B, S, D)`, *optional*):
        Last sequence of the model. `None` in TFN, which has no sequence.
    pooler_output (`torch.FloatTensor` of shape `(B, D)`):
        Input of the classification head.
    hidden_states (`tuple[torch.FloatTensor]`, *optional*, with `output_hidden_states=True`):
        Hidden states, as documented for each model.
    efficacies (`torch.FloatTensor`, *optional*, with `output_efficacies=True`):
        Weights of the edges of the fusion graph, in [0, 1]. Graph-MFN only.
    """

    last_hidden_state: torch.FloatTensor | None = None
    pooler_output: torch.FloatTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    efficacies: torch.FloatTensor | None = None


@auto_docstring(custom_intro="Output class of the baselines with a classification head.")
@dataclass
class BaselineSequenceClassifierOutput(ModelOutput):
    r"""
    loss (`torch.FloatTensor` of shape `()`, *optional*, with `labels`):
        Mean loss of the batch, selected by `problem_type` and `joint_sentiment`.
    logits (`torch.FloatTensor` of shape `(B, num_labels)`):
        Scores before softmax or sigmoid. With `joint_sentiment`, column 0 is the sentiment itself.
    hidden_states (`tuple[torch.FloatTensor]`, *optional*, with `output_hidden_states=True`):
        Hidden states, as documented for each model.
    efficacies (`torch.FloatTensor`, *optional*, with `output_efficacies=True`):
        Weights of the edges of the fusion graph, in [0, 1]. Graph-MFN only.
    """

    loss: torch.FloatTensor | None = None
    logits: torch.FloatTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    efficacies: torch.FloatTensor | None = None


# Copied from modeling_umons.models.umons.modeling_tbje.prepare_inputs with Umons->Baseline
def prepare_inputs(
    config: BaselineConfig,
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


# Copied from modeling_umons.models.umons.modeling_tbje.check_values with Umons->Baseline
def check_values(config: BaselineConfig, modality: str, name: str, value: torch.Tensor):
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


# Copied from modeling_umons.models.umons.modeling_tbje.check_ids with Umons->Baseline
def check_ids(config: BaselineConfig, name: str, ids: torch.LongTensor):
    """Raise a ValueError for word ids outside of the vocabulary."""
    if can_read_values(ids) and len(outside := ids[(ids < 0) | (ids >= config.vocab_size)]):
        raise ValueError(
            f"`{name}` contains word id {outside[0].item()}, but ids must be 0 to {config.vocab_size - 1} "
            "(`vocab_size` - 1): was another tokenizer used?"
        )


# Copied from modeling_umons.models.umons.modeling_tbje.check_length with Umons->Baseline
def check_length(config: BaselineConfig, modality: str, name: str, length: int):
    """Raise a ValueError if the input `name` is empty or longer than the model allows."""
    limit = config.length_limit(modality)
    if not 1 <= length <= limit:
        raise ValueError(
            f"`{name}` has {length} steps, but this model takes 1 to {limit} (`max_{modality}_length`): truncate "
            "longer sequences, as the processor does, or leave the modality out."
        )


# Copied from modeling_umons.models.umons.modeling_tbje.check_rows
def check_rows(masks: dict[str, torch.BoolTensor]):
    """Raise a ValueError for rows that are padding in every modality."""
    if can_read_values(*masks.values()):
        empty = ~torch.stack([mask.any(dim=1) for mask in masks.values()]).any(dim=0)
        if empty.any():
            raise ValueError(
                f"Row(s) {empty.nonzero().flatten().tolist()} of the batch are padding in every modality "
                f"({', '.join(masks)}): each row requires at least one modality."
            )


# Copied from modeling_umons.models.umons.modeling_tbje.can_read_values
def can_read_values(*tensors: torch.Tensor) -> bool:
    """Return `True` for CPU tensors outside of compiled graphs. Reading from other devices would wait for them."""
    return not torch.compiler.is_compiling() and all(tensor.device.type == "cpu" for tensor in tensors)


def clear_padding(values: dict[str, torch.Tensor], masks: dict[str, torch.BoolTensor]) -> dict[str, torch.Tensor]:
    """Set features to zero in padding, so that no value of it can reach a sum."""
    return {
        modality: value if modality == "text" else value.masked_fill(~masks[modality][..., None], 0)
        for modality, value in values.items()
    }


def move_padding_last(values: torch.Tensor, mask: torch.BoolTensor) -> tuple[torch.Tensor, torch.BoolTensor]:
    """Return (B, T, D) values and their (B, T) mask with the padding moved to the end, for recurrent networks."""
    mask, order = mask.int().sort(dim=1, descending=True, stable=True)
    return values.take_along_dim(order[..., None], dim=1), mask.bool()


def select_last_state(states: torch.Tensor, mask: torch.BoolTensor) -> torch.Tensor:
    """Select the (B, D) states at the last step of the (B, T) mask; zeros for a row that is all padding."""
    steps = torch.arange(1, mask.shape[1] + 1, device=mask.device)
    last = (mask * steps).amax(dim=1)  # 0: all padding
    state = states[torch.arange(len(states), device=states.device), (last - 1).clamp(min=0)]
    return state * (last > 0)[:, None].to(state.dtype)


def masked_mean(values: torch.Tensor, mask: torch.BoolTensor) -> torch.Tensor:
    """Compute the (B, D) mean of (B, T, D) values over the (B, T) mask; zeros for a row that is all padding."""
    weights = mask[..., None].to(values.dtype)
    return (values * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)


def masked_softmax(scores: torch.Tensor, mask: torch.BoolTensor) -> torch.Tensor:
    """
    Compute the softmax over the last axis, restricted to the mask. Rows with an empty mask have undefined values.

    Half-precision scores are summed in single precision.
    """
    scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    return scores.softmax(dim=-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(scores.dtype)


@auto_docstring(custom_intro="Base class of the baselines: initial weights and word embeddings.")
class BaselinePreTrainedModel(PreTrainedModel):
    config: BaselineConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    input_modalities = ("text", "audio", "video")
    # The loss is the mean over the batch and ignores `num_items_in_batch`. Trainer assumes the opposite of a forward
    # with `**kwargs`: it would neither divide by the number of accumulated batches nor average over processes.
    accepts_loss_kwargs = False

    def returns_hidden_states(self, kwargs: dict) -> bool:
        """Return `output_hidden_states` of a call's keyword arguments, by default that of the configuration."""
        requested = kwargs.get("output_hidden_states")
        return bool(self.config.output_hidden_states if requested is None else requested)

    @torch.no_grad()
    def _init_weights(self, module):
        """Initialise as PyTorch does, scaled by `initializer_factor`: uniform in +-1 / sqrt(inputs), words normal."""
        factor = self.config.initializer_factor
        if isinstance(module, nn.Linear):
            bound = factor * module.in_features**-0.5
            init.uniform_(module.weight, -bound, bound)
            if module.bias is not None:
                init.uniform_(module.bias, -bound, bound)
        elif isinstance(module, (nn.RNNBase, nn.RNNCellBase)):
            bound = factor * module.hidden_size**-0.5
            for parameter in module.parameters():
                init.uniform_(parameter, -bound, bound)
        elif isinstance(module, nn.Embedding):
            init.normal_(module.weight, std=factor)
            if module.padding_idx is not None and not getattr(module.weight, "_is_hf_initialized", False):
                init.zeros_(module.weight[module.padding_idx])
        else:
            super()._init_weights(module)

    def get_input_embeddings(self) -> nn.Embedding | None:
        """Return the word embeddings; `None` in a model without text."""
        return getattr(self.base_model, "embed_tokens", None)

    def set_input_embeddings(self, value: nn.Embedding):
        """Replace the word embeddings. Raises a ValueError in a model without text."""
        if "text" not in self.config.modalities:
            raise ValueError(f"This model has no word embeddings: its modalities are {self.config.modalities}.")
        self.base_model.embed_tokens = value


@auto_docstring(
    custom_intro="""
    Base class of the baselines that encode all modalities at once. A subclass implements `fuse`.
    """
)
class BaselineModel(BaselinePreTrainedModel):
    def fuse(
        self, values: dict[str, torch.Tensor], masks: dict[str, torch.BoolTensor]
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        """
        Return the input of the head (B, D) and the hidden states.

        `values` are word ids (B, T) and features (B, T, size) by modality, zero in padding, with their masks (B, T).
        """
        raise NotImplementedError

    @can_return_tuple
    @auto_docstring(custom_args=INPUT_DOCS)
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        input_features: torch.FloatTensor | None = None,
        input_features_mask: torch.Tensor | None = None,
        video_features: torch.FloatTensor | None = None,
        video_features_mask: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaselineModelOutput:
        r"""
        Example:

        ```python
        >>> import torch
        >>> from modeling_umons import TfnConfig, TfnModel

        >>> model = TfnModel(TfnConfig(modalities=["text", "audio"]))
        >>> words, frames = torch.randint(1, 14000, (2, 8)), torch.randn(2, 20, 80)
        >>> list(model(input_ids=words, input_features=frames).pooler_output.shape)
        [2, 16]
        ```
        """
        inputs = {
            "text": (input_ids, attention_mask),
            "audio": (input_features, input_features_mask),
            "video": (video_features, video_features_mask),
        }
        values, masks = prepare_inputs(self.config, inputs, self.dtype)
        check_rows(masks)
        pooled, hidden_states = self.fuse(clear_padding(values, masks), masks)
        return BaselineModelOutput(
            pooler_output=pooled, hidden_states=hidden_states if self.returns_hidden_states(kwargs) else None
        )


# Copied from modeling_umons.models.umons.modeling_tbje.joint_sentiment_loss
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


@auto_docstring(
    custom_intro="""
    Base class of the baselines with a classification head, a linear layer on `pooler_output`. A subclass calls
    `add_head` and then `post_init`.
    """
)
class BaselineForSequenceClassification(BaselinePreTrainedModel):
    def add_head(self, model: BaselinePreTrainedModel, size: int):
        """Set `model` and the head on its `pooler_output` of the given size."""
        self.num_labels = self.config.num_labels
        self.model = model
        self.main_input_name = model.main_input_name
        self.classifier = nn.Linear(size, self.config.num_labels)

    def compute_loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Compute the loss of (N, num_labels) logits, selected by `joint_sentiment` and `problem_type`."""
        labels = labels.to(logits.device)
        # CODEPATH: models of sentiment and emotions at once; models of one task use the standard losses
        if self.config.joint_sentiment:
            return joint_sentiment_loss(logits, labels)
        return self.loss_function(labels, logits, self.config)

    @can_return_tuple
    @auto_docstring(custom_args=INPUT_DOCS + LABEL_DOCS)
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        input_features: torch.FloatTensor | None = None,
        input_features_mask: torch.Tensor | None = None,
        video_features: torch.FloatTensor | None = None,
        video_features_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaselineSequenceClassifierOutput:
        r"""
        Example:

        ```python
        >>> import torch
        >>> from modeling_umons import TfnConfig, TfnForSequenceClassification

        >>> model = TfnForSequenceClassification(TfnConfig(modalities=["text", "audio"], num_labels=3))
        >>> words, frames = torch.randint(1, 14000, (2, 8)), torch.randn(2, 20, 80)
        >>> outputs = model(input_ids=words, input_features=frames, labels=torch.tensor([0, 2]))
        >>> list(outputs.logits.shape)
        [2, 3]

        >>> outputs.loss.backward()
        ```
        """
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            input_features=input_features,
            input_features_mask=input_features_mask,
            video_features=video_features,
            video_features_mask=video_features_mask,
            **kwargs | {"return_dict": True},  # also if the configuration has `return_dict=False`
        )
        logits = self.classifier(outputs.pooler_output)
        return BaselineSequenceClassifierOutput(
            loss=None if labels is None else self.compute_loss(logits, labels),
            logits=logits,
            hidden_states=outputs.hidden_states,
            efficacies=outputs.efficacies,
        )


__all__ = [
    "BaselineForSequenceClassification",
    "BaselineModel",
    "BaselineModelOutput",
    "BaselinePreTrainedModel",
    "BaselineSequenceClassifierOutput",
]
