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
"""PyTorch Tensor Fusion Network (TFN; Zadeh et al., EMNLP 2017)."""

import torch
from torch import nn
from transformers.utils import auto_docstring

from .configuration_baselines import TfnConfig
from .modeling_baselines import (
    INPUT_NAMES,
    BaselineForSequenceClassification,
    BaselineModel,
    BaselinePreTrainedModel,
    masked_mean,
    move_padding_last,
    select_last_state,
)


# Order of the axes of the tensor.
TENSOR_ORDER = ("audio", "video", "text")


class TfnBatchNorm(nn.BatchNorm1d):
    """
    Batch normalisation over the rows that have the modality.

    A training batch with fewer than two such rows has no variance: it is normalised with the running statistics, as in
    evaluation, and does not update them.
    """

    def forward(self, values: torch.Tensor, present: torch.BoolTensor) -> torch.Tensor:
        if not self.training:
            return super().forward(values)
        weights = present[:, None].float()
        count = weights.sum()
        mean = (values * weights).sum(dim=0) / count.clamp(min=1)
        variance = ((values - mean) ** 2 * weights).sum(dim=0) / count.clamp(min=1)
        has_spread = count > 1
        used_mean = torch.where(has_spread, mean, self.running_mean)
        used_variance = torch.where(has_spread, variance, self.running_var)
        with torch.no_grad():
            momentum = self.momentum * has_spread.to(self.running_mean.dtype)
            unbiased = variance * (count / (count - 1).clamp(min=1))
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), momentum)
            self.running_var.lerp_(unbiased.to(self.running_var.dtype), momentum)
            self.num_batches_tracked.add_(has_spread)
        normalised = (values - used_mean) * torch.rsqrt(used_variance + self.eps)
        return (normalised * self.weight + self.bias).to(values.dtype)


class TfnFrameNetwork(nn.Module):
    """Encoder of frames, (B, T, input_size) to (B, hidden_size): mean over time, batch norm, three layers."""

    def __init__(self, input_size: int, hidden_size: int, dropout: float):
        super().__init__()
        self.batch_norm = TfnBatchNorm(input_size)
        self.dropout = nn.Dropout(dropout)
        self.fc1 = nn.Linear(input_size, hidden_size)
        self.fc2 = nn.Linear(hidden_size, hidden_size)
        self.fc3 = nn.Linear(hidden_size, hidden_size)

    def forward(self, frames: torch.Tensor, mask: torch.BoolTensor) -> torch.Tensor:
        hidden_states = self.dropout(self.batch_norm(masked_mean(frames, mask), mask.any(dim=1)))
        for layer in (self.fc1, self.fc2, self.fc3):
            hidden_states = nn.functional.relu(layer(hidden_states))
        return hidden_states


class TfnTextNetwork(nn.Module):
    """Encoder of word vectors, (B, T, input_size) to (B, output_size): last state of an LSTM, one layer."""

    def __init__(self, input_size: int, hidden_size: int, output_size: int, dropout: float):
        super().__init__()
        self.lstm = nn.LSTM(input_size, hidden_size, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(hidden_size, output_size)

    def forward(self, words: torch.Tensor, mask: torch.BoolTensor) -> torch.Tensor:
        words, mask = move_padding_last(words, mask)
        states, _ = self.lstm(words)
        return self.fc(self.dropout(select_last_state(states, mask)))


@auto_docstring
class TfnPreTrainedModel(BaselinePreTrainedModel):
    config: TfnConfig


@auto_docstring(
    custom_intro="""
    The Tensor Fusion Network without a head on top: one vector per modality, the tensor of all products of their
    values (of one, two or three modalities), and two layers.

    A call needs at least one modality of the model. The vector of a missing modality is zero, both for an input that
    is left out and for a row whose mask is all zero. `hidden_states` are the vectors of the modalities, `(B, size)`
    each, in the order of `config.modalities`; there is no `last_hidden_state`. Invalid inputs raise a ValueError.
    """
)
class TfnModel(TfnPreTrainedModel, BaselineModel):
    _auto_class = "AutoModel"  # saving copies the code, so that the folder loads without this package

    def __init__(self, config: TfnConfig):
        super().__init__(config)
        self.main_input_name = INPUT_NAMES[config.modalities[0]]
        networks, tensor_size = {}, 1
        for modality in config.modalities:
            hidden_size = getattr(config, f"{modality}_hidden_size")
            if modality == "text":
                self.embed_tokens = nn.Embedding(config.vocab_size, config.word_embedding_size, config.pad_token_id)
                sizes = (config.word_embedding_size, hidden_size, config.text_output_size)
                networks[modality] = TfnTextNetwork(*sizes, config.dropout)
            else:
                feature_size = getattr(config, f"{modality}_feature_size")
                networks[modality] = TfnFrameNetwork(feature_size, hidden_size, config.dropout)
        self.vector_sizes = {
            modality: config.text_output_size if modality == "text" else getattr(config, f"{modality}_hidden_size")
            for modality in config.modalities
        }
        for size in self.vector_sizes.values():
            tensor_size *= 1 + size
        self.networks = nn.ModuleDict(networks)
        self.dropout = nn.Dropout(config.dropout)
        self.fc1 = nn.Linear(tensor_size, config.fusion_hidden_size)
        self.fc2 = nn.Linear(config.fusion_hidden_size, config.fusion_hidden_size)
        self.post_init()

    def fuse(
        self, values: dict[str, torch.Tensor], masks: dict[str, torch.BoolTensor]
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        """Return the input of the head (B, D) and the vectors of the modalities."""
        vectors = self._encode_modalities(values, masks)

        tensor = None
        for modality in TENSOR_ORDER:
            if modality in vectors:
                vector = nn.functional.pad(vectors[modality], (1, 0), value=1.0)
                tensor = vector if tensor is None else (tensor[:, :, None] * vector[:, None]).flatten(1)
        pooled = nn.functional.relu(self.fc1(self.dropout(tensor)))
        return nn.functional.relu(self.fc2(pooled)), tuple(vectors.values())

    def _encode_modalities(
        self, values: dict[str, torch.Tensor], masks: dict[str, torch.BoolTensor]
    ) -> dict[str, torch.Tensor]:
        """Return a vector (B, size) for every modality of the model, zero for the rows without it."""
        batch_size, device = len(next(iter(masks.values()))), next(iter(masks.values())).device
        vectors = {}
        for modality, size in self.vector_sizes.items():
            if modality in values:
                value = self.embed_tokens(values["text"]) if modality == "text" else values[modality]
                vector = self.networks[modality](value, masks[modality])
                vectors[modality] = vector * masks[modality].any(dim=1, keepdim=True).to(vector.dtype)
            else:
                vectors[modality] = torch.zeros(batch_size, size, dtype=self.dtype, device=device)
        return vectors


@auto_docstring(
    custom_intro="""
    The Tensor Fusion Network with a classification head for emotions, sentiment classes, sentiment as a number, or,
    with `joint_sentiment`, sentiment and emotions at once. `problem_type` and `id2label` select the task.
    """
)
class TfnForSequenceClassification(TfnPreTrainedModel, BaselineForSequenceClassification):
    _auto_class = "AutoModelForSequenceClassification"

    def __init__(self, config: TfnConfig):
        super().__init__(config)
        self.add_head(TfnModel(config), config.fusion_hidden_size)
        self.post_init()


__all__ = ["TfnForSequenceClassification", "TfnModel", "TfnPreTrainedModel"]
