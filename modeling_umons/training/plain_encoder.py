"""Baseline of a pretrained text encoder: mean over tokens and a linear head."""

from typing import ClassVar

import torch
from huggingface_hub.dataclasses import strict
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification
from transformers.modeling_outputs import SequenceClassifierOutput

from ..models.baselines.modeling_baselines import masked_mean
from ..models.umons.configuration_umons import UmonsConfig
from ..models.umons.encoders_umons import UmonsEncoders
from ..models.umons.modeling_tbje import UmonsPreTrainedModel, joint_sentiment_loss


@strict
class PlainEncoderConfig(UmonsConfig):
    """Configuration of [`PlainEncoderForSequenceClassification`]: a `UmonsConfig` of which `text_encoder` is used."""

    model_type = "plain_encoder"
    _auto_class: ClassVar[None] = None  # saved without code: requires this package

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        del self.auto_map  # refers to the code of UMONS


class PlainEncoder(UmonsPreTrainedModel):
    """Mean (B, size) of the encoder's outputs over the tokens (B, T)."""

    config: PlainEncoderConfig
    _auto_class = None

    def __init__(self, config: PlainEncoderConfig):
        super().__init__(config)
        self.encoders = UmonsEncoders(config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.encoders["text"].model.get_input_embeddings()

    def forward(self, input_ids: torch.LongTensor, attention_mask: torch.Tensor) -> torch.Tensor:
        mask = attention_mask.bool()
        return masked_mean(self.encoders["text"](input_ids, mask), mask)


class PlainEncoderForSequenceClassification(UmonsPreTrainedModel):
    """Text encoder with a linear head; inputs, labels and losses as in `UmonsForSequenceClassification`."""

    config: PlainEncoderConfig
    _auto_class = None
    accepts_loss_kwargs = False  # the loss is the mean over the batch

    def __init__(self, config: PlainEncoderConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.model = PlainEncoder(config)
        self.classifier = nn.Linear(config.text_encoder.hidden_size, config.num_labels)
        self.post_init()

    def forward(
        self,
        input_ids: torch.LongTensor,
        attention_mask: torch.Tensor,
        labels: torch.Tensor | None = None,
        **kwargs,
    ) -> SequenceClassifierOutput:
        logits = self.classifier(self.model(input_ids, attention_mask))
        loss = None
        if labels is not None and self.config.joint_sentiment:
            loss = joint_sentiment_loss(logits, labels)
        elif labels is not None:
            loss = self.loss_function(labels, logits, self.config)
        return SequenceClassifierOutput(loss=loss, logits=logits)


AutoConfig.register(PlainEncoderConfig.model_type, PlainEncoderConfig, exist_ok=True)
AutoModelForSequenceClassification.register(PlainEncoderConfig, PlainEncoderForSequenceClassification, exist_ok=True)
