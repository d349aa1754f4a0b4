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
"""What the baselines have in common: their inputs, checked and with masks, their outputs, their start and their head."""

from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs, auto_docstring, can_return_tuple, logging

from .configuration_baselines import BaselineConfig


logger = logging.get_logger(__name__)

INPUT_NAMES = {"text": "input_ids", "audio": "input_features", "video": "video_features"}
MASK_NAMES = {"text": "attention_mask", "audio": "input_features_mask", "video": "video_features_mask"}
# What every `forward` takes.
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
# What a model with a head takes besides.
LABEL_DOCS = r"""
    labels (`torch.Tensor`, *optional*):
        Classes, `(batch_size,)` int64; several labels, `(batch_size, num_labels)` float of 0 and 1; a number,
        `(batch_size,)` float; with `joint_sentiment`, `(batch_size, num_labels)` float, the sentiment and then the
        emotions (0 or 1), NaN where unknown.
"""


@auto_docstring(custom_intro="What the baselines give.")
@dataclass
class BaselineModelOutput(ModelOutput):
    r"""
    last_hidden_state (`torch.FloatTensor` of shape `(B, S, D)`, *optional*):
        The last sequence inside the model, where it has one.
    pooler_output (`torch.FloatTensor` of shape `(B, D)`):
        What the head reads.
    hidden_states (`tuple[torch.FloatTensor]`, *optional*, with `output_hidden_states=True`):
        What each model's own documentation says.
    efficacies (`torch.FloatTensor`, *optional*, with `output_efficacies=True`):
        Of Graph-MFN: how much each edge of the fusion graph lets through, from 0 to 1.
    """

    last_hidden_state: torch.FloatTensor | None = None
    pooler_output: torch.FloatTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    efficacies: torch.FloatTensor | None = None


@auto_docstring(custom_intro="What the baselines with a head give.")
@dataclass
class BaselineSequenceClassifierOutput(ModelOutput):
    r"""
    loss (`torch.FloatTensor` of shape `()`, *optional*, with `labels`):
        The mean over the batch of the loss that the configuration names.
    logits (`torch.FloatTensor` of shape `(B, num_labels)`):
        Scores before any softmax or sigmoid. With `joint_sentiment`, column 0 is the sentiment itself.
    hidden_states (`tuple[torch.FloatTensor]`, *optional*, with `output_hidden_states=True`):
        What each model's own documentation says.
    efficacies (`torch.FloatTensor`, *optional*, with `output_efficacies=True`):
        Of Graph-MFN: how much each edge of the fusion graph lets through, from 0 to 1.
    """

    loss: torch.FloatTensor | None = None
    logits: torch.FloatTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    efficacies: torch.FloatTensor | None = None


def prepare_inputs(
    config: BaselineConfig, inputs: dict[str, tuple[torch.Tensor | None, torch.Tensor | None]], dtype: torch.dtype
) -> tuple[dict[str, torch.Tensor], dict[str, torch.BoolTensor]]:
    """
    Checks what a model of this configuration is given.

    Args:
        config: says what fits.
        inputs: by modality, the values, (B, T) int64 or (B, T, feature size), and their mask (B, T); `None` for absent.
        dtype: what features are cast to.

    Returns:
        values and boolean masks (B, T) of the modalities that are there, in the order of `config.modalities`. Features
        are zero where the mask is. Without a mask, word id `pad_token_id` and all-zero frames are padding.

    Raises:
        ValueError: with the input's name, what is wrong with it and what would be right.
    """
    values, masks = {}, {}
    for modality, (value, mask) in inputs.items():
        if value is None:
            continue
        # CODEPATH: models of fewer modalities than the data has; those of all three take whatever is given
        if modality not in config.modalities:
            logger.warning_once(f"The {modality} given is ignored: this model has {config.modalities} only.")
            continue
        _check_values(config, modality, value)
        if mask is None:
            mask = value != (config.pad_token_id or 0) if modality == "text" else (value != 0).any(dim=-1)
        elif mask.shape != value.shape[:2]:
            raise ValueError(
                f"`{MASK_NAMES[modality]}` has shape {tuple(mask.shape)}, but it must be that of the {modality} without "
                f"its features, {tuple(value.shape[:2])}."
            )
        masks[modality] = mask.to(device=value.device, dtype=torch.bool)
        is_text = modality == "text"
        values[modality] = value if is_text else value.to(dtype).masked_fill(~masks[modality][..., None], 0)
    if not masks:
        raise ValueError(
            f"No input: pass at least one of {', '.join(f'`{INPUT_NAMES[m]}`' for m in config.modalities)}."
        )
    sizes = {modality: len(mask) for modality, mask in masks.items()}
    if len(set(sizes.values())) > 1:
        sizes = ", ".join(f"{modality} {size}" for modality, size in sizes.items())
        raise ValueError(f"The modalities of a batch must have the same number of rows, but they have: {sizes}.")
    return values, masks


def check_rows(masks: dict[str, torch.BoolTensor]):
    """Raises ValueError where a row is padding in every modality."""
    if may_look_at_values(*masks.values()):
        empty = ~torch.stack([mask.any(dim=1) for mask in masks.values()]).any(dim=0)
        if empty.any():
            raise ValueError(
                f"Row(s) {empty.nonzero().flatten().tolist()} of the batch are padding in every modality "
                f"({', '.join(masks)}): each row needs something to look at."
            )


def _check_values(config: BaselineConfig, modality: str, value: torch.Tensor):
    name = INPUT_NAMES[modality]
    sizes = {"audio": config.audio_feature_size, "video": config.video_feature_size}
    expected = ("batch", "time") if modality == "text" else ("batch", "time", sizes[modality])
    if value.ndim != len(expected) or (modality != "text" and value.shape[-1] != sizes[modality]):
        raise ValueError(
            f"`{name}` has shape {tuple(value.shape)}, but this model wants ({', '.join(map(str, expected))})."
        )
    limit = config.length_limit(modality)
    if not 1 <= value.shape[1] <= limit:
        raise ValueError(
            f"`{name}` has {value.shape[1]} steps, but this model takes 1 to {limit} (`max_{modality}_length`): cut "
            "longer sequences, as the processor does, or leave the modality out."
        )
    if not may_look_at_values(value):
        return
    if modality == "text" and ((value < 0) | (value >= config.vocab_size)).any():
        outside = value[(value < 0) | (value >= config.vocab_size)][0].item()
        raise ValueError(
            f"`input_ids` holds the word id {outside}, but ids must be 0 to {config.vocab_size - 1} (`vocab_size` - 1): "
            "was another tokenizer used?"
        )
    if modality != "text" and not torch.isfinite(value).all():
        rows = (~torch.isfinite(value)).flatten(1).any(dim=1).nonzero().flatten().tolist()
        raise ValueError(f"`{name}` holds NaN or infinite values in row(s) {rows}: leave them out or repair them.")


def may_look_at_values(*tensors: torch.Tensor) -> bool:
    """Whether the values can decide what happens: not in a graph that is being compiled or exported."""
    return not torch.compiler.is_compiling() and not any(tensor.is_meta for tensor in tensors)


def true_steps_first(values: torch.Tensor, mask: torch.BoolTensor) -> tuple[torch.Tensor, torch.BoolTensor]:
    """(B, T, D) and (B, T) -> the same with padding behind, wherever it was, for what reads from the beginning."""
    mask, order = mask.int().sort(dim=1, descending=True, stable=True)
    return values.take_along_dim(order[..., None], dim=1), mask.bool()


def last_valid_state(states: torch.Tensor, mask: torch.BoolTensor) -> torch.Tensor:
    """(B, T, D) and (B, T) -> (B, D), the state at the last step that is no padding; zeros for a row without one."""
    steps = torch.arange(1, mask.shape[1] + 1, device=mask.device)
    last = (mask * steps).amax(dim=1)  # 0: there is none
    state = states[torch.arange(len(states), device=states.device), (last - 1).clamp(min=0)]
    return state * (last > 0)[:, None].to(state.dtype)


def masked_mean(values: torch.Tensor, mask: torch.BoolTensor) -> torch.Tensor:
    """(B, T, D) and (B, T) -> (B, D), the mean over steps that are no padding; zeros for a row without one."""
    weights = mask[..., None].to(values.dtype)
    return (values * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)


def masked_softmax(scores: torch.Tensor, mask: torch.BoolTensor) -> torch.Tensor:
    """
    Over the last axis, of what the mask leaves; of no meaning where it leaves nothing. Half precision is too coarse for a
    sum of many exponentials: it is made in single precision then.
    """
    scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    return scores.softmax(dim=-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(scores.dtype)


@auto_docstring(
    custom_intro="The start of all baselines' weights, and what the rest of transformers has to know of them."
)
class BaselinePreTrainedModel(PreTrainedModel):
    config: BaselineConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    input_modalities = ("text", "audio", "video")
    # The loss is the mean over a batch, whatever `num_items_in_batch` says (see UmonsPreTrainedModel).
    accepts_loss_kwargs = False

    def wants_hidden_states(self, kwargs: dict) -> bool:
        """Whether a call with these keyword arguments, or else the configuration, asks for hidden states."""
        wanted = kwargs.get("output_hidden_states")
        return bool(self.config.output_hidden_states if wanted is None else wanted)

    @torch.no_grad()
    def _init_weights(self, module):
        """PyTorch's own start, scaled by `initializer_factor`: uniform within 1 / sqrt(inputs); word vectors normal."""
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
        """The word vectors; `None` in a model without text."""
        return getattr(self.base_model, "embed_tokens", None)

    def set_input_embeddings(self, value: nn.Embedding):
        """Puts other word vectors in place. Raises ValueError in a model without text."""
        if "text" not in self.config.modalities:
            raise ValueError(f"This model has no word vectors: its modalities are {self.config.modalities}.")
        self.base_model.embed_tokens = value


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
    known, labels = ~labels.isnan(), labels.nan_to_num()
    of_emotions = nn.functional.binary_cross_entropy_with_logits(logits[:, 1:], labels[:, 1:], reduction="none")
    of_sentiment = (logits[:, :1] - labels[:, :1]).abs()
    return sum(
        (errors * is_known).sum() / is_known.sum().clamp(min=1)
        for errors, is_known in ((of_sentiment, known[:, :1]), (of_emotions, known[:, 1:]))
    )


@auto_docstring(
    custom_intro="""
    The head of all baselines: a linear map of `pooler_output`. A subclass calls `add_head` and
    then `post_init`.
    """
)
class BaselineForSequenceClassification(BaselinePreTrainedModel):
    def add_head(self, model: BaselinePreTrainedModel, size: int):
        """`model`, and on it a head that reads its `pooler_output` of that size."""
        self.num_labels = self.config.num_labels
        self.model = model
        self.main_input_name = model.main_input_name
        self.classifier = nn.Linear(size, self.config.num_labels)

    def compute_loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The loss that the configuration names, of `logits` (N, num_labels)."""
        labels = labels.to(logits.device)
        # CODEPATH: models of sentiment and emotions at once; models of one task have the stock losses
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
        >>> from modeling_umons import TfnConfig, TfnForSequenceClassification

        >>> model = TfnForSequenceClassification(TfnConfig())
        ```
        """
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            input_features=input_features,
            input_features_mask=input_features_mask,
            video_features=video_features,
            video_features_mask=video_features_mask,
            **kwargs | {"return_dict": True},  # whatever the configuration says of it
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
    "BaselineModelOutput",
    "BaselinePreTrainedModel",
    "BaselineSequenceClassifierOutput",
]
