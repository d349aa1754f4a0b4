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
"""PyTorch Multilogue-Net: utterances in the context of conversation and speaker (Shenoy and Sardana, 2020)."""

from itertools import permutations

import torch
from torch import nn
from transformers import initialization as init
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs, auto_docstring, can_return_tuple

from .configuration_baselines import MultilogueNetConfig
from .modeling_baselines import (
    INPUT_NAMES,
    MASK_NAMES,
    BaselineForSequenceClassification,
    BaselineModelOutput,
    BaselinePreTrainedModel,
    BaselineSequenceClassifierOutput,
    check_rows,
    clear_padding,
    masked_mean,
    masked_softmax,
    move_padding_last,
    prepare_inputs,
    select_last_state,
)


# Documentation of the inputs and labels, for `auto_docstring`.
INPUT_DOCS = r"""
        input_ids (`torch.LongTensor` of shape `(C, U, text_length)`, *optional*):
            Word ids.
        attention_mask (`torch.Tensor` of shape `(C, U, text_length)`, *optional*):
            1 for words, 0 for padding.
        input_features (`torch.FloatTensor` of shape `(C, U, audio_length, audio_feature_size)`, *optional*):
            Log-mel frames.
        input_features_mask (`torch.Tensor` of shape `(C, U, audio_length)`, *optional*):
            1 for frames, 0 for padding.
        video_features (`torch.FloatTensor` of shape `(C, U, video_length, video_feature_size)`, *optional*):
            Features of consecutive video clips.
        video_features_mask (`torch.Tensor` of shape `(C, U, video_length)`, *optional*):
            1 for clips, 0 for padding.
        speaker_ids (`torch.LongTensor` of shape `(C, U)`, *optional*):
            Ids of the speakers, any integers. By default all utterances have the same speaker.
        utterance_mask (`torch.Tensor` of shape `(C, U)`, *optional*):
            1 for utterances, 0 for padding. By default everything with a step in any modality is an utterance.
"""
LABEL_DOCS = r"""
        labels (`torch.Tensor` of shape `(C, U)` or `(C, U, num_labels)`, *optional*):
            Labels of each utterance, as those of each row in [`TfnForSequenceClassification`]. Class -100 and NaN are
            unknown: such utterances are ignored, and, with `joint_sentiment`, such labels.
"""


class MultilogueNetGRUCell(nn.Module):
    """GRU cells of N streams, each with its own weights. The equations are those of `nn.GRUCell`."""

    def __init__(self, num_streams: int, input_size: int, hidden_size: int):
        super().__init__()
        self.hidden_size = hidden_size
        self.weight_ih = nn.Parameter(torch.empty(num_streams, input_size, 3 * hidden_size))
        self.weight_hh = nn.Parameter(torch.empty(num_streams, hidden_size, 3 * hidden_size))
        self.bias_ih = nn.Parameter(torch.empty(num_streams, 1, 3 * hidden_size))
        self.bias_hh = nn.Parameter(torch.empty(num_streams, 1, 3 * hidden_size))

    def forward(self, gates: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
        """Return the next state (N, C, hidden_size). `gates` (N, C, 3 * hidden_size): input @ weight_ih + bias_ih."""
        reset, update, new = gates.chunk(3, dim=-1)
        of_state = torch.baddbmm(self.bias_hh, state, self.weight_hh).chunk(3, dim=-1)
        update = torch.sigmoid(update + of_state[1])
        new = torch.tanh(new + torch.sigmoid(reset + of_state[0]) * of_state[2])
        return new + update * (state - new)


class MultilogueNetRecurrence(nn.Module):
    """
    Recurrence over the utterances of conversations, in N streams: a modality in one direction each, with its own
    weights.

    At an utterance u of a speaker with state p:

        g <- GRU([u; p], g)                            state of the conversation
        c  = softmax(u^T W g_s over the past s) g_s    context
        p <- GRU([u; c], p)                            state of the speaker; other speakers keep theirs
        e <- GRU(p, e)                                 emotion
    """

    def __init__(self, config: MultilogueNetConfig, num_streams: int):
        super().__init__()
        self.utterance_size = config.utterance_size
        self.party_state_size = config.party_state_size
        self.dropout = nn.Dropout(config.recurrent_dropout)
        inputs = config.utterance_size + config.party_state_size
        self.global_cell = MultilogueNetGRUCell(num_streams, inputs, config.global_state_size)
        self.attention_weight = nn.Parameter(torch.empty(num_streams, config.utterance_size, config.global_state_size))
        inputs = config.utterance_size + config.global_state_size
        self.party_cell = MultilogueNetGRUCell(num_streams, inputs, config.party_state_size)
        self.emotion_cell = MultilogueNetGRUCell(num_streams, config.party_state_size, config.emotion_state_size)

    def forward(
        self, utterances: torch.Tensor, mask: torch.BoolTensor, speakers: torch.LongTensor, num_speakers: int
    ) -> torch.Tensor:
        """
        Compute the emotion states (N, C, U, emotion_state_size), zero in padding.

        Args:
            utterances: (N, C, U, utterance_size), of C conversations.
            mask: (N, C, U), True for utterances. Padding leaves all states as they are.
            speakers: (N, C, U), ids of the speakers, 0 to num_speakers - 1.
            num_speakers: maximum number of speakers in a conversation.
        """
        num_streams, num_conversations, length = mask.shape
        # The products with the utterances do not depend on the states: they are computed for all steps at once.
        flat, size = utterances.flatten(1, 2), self.utterance_size
        global_cell, party_cell, emotion_cell = self.global_cell, self.party_cell, self.emotion_cell
        global_gates = torch.baddbmm(global_cell.bias_ih, flat, global_cell.weight_ih[:, :size])
        party_gates = torch.baddbmm(party_cell.bias_ih, flat, party_cell.weight_ih[:, :size])
        queries = flat @ self.attention_weight
        global_gates, party_gates, queries = (
            values.unflatten(1, (num_conversations, length)) for values in (global_gates, party_gates, queries)
        )
        has_past = mask.cumsum(dim=-1) > mask.long()

        shape = (num_streams, num_conversations)
        context = utterances.new_zeros(*shape, global_cell.hidden_size)
        history = utterances.new_zeros(*shape, 0, global_cell.hidden_size)
        parties = utterances.new_zeros(*shape, num_speakers, self.party_state_size)
        emotion = utterances.new_zeros(*shape, emotion_cell.hidden_size)
        streams = torch.arange(num_streams, device=mask.device)[:, None]
        conversations = torch.arange(num_conversations, device=mask.device)[None]
        emotions = []
        for step in range(length):
            is_utterance = mask[:, :, step, None]
            speaker = (streams, conversations, speakers[:, :, step])
            party = parties[speaker]

            gates = torch.baddbmm(global_gates[:, :, step], party, global_cell.weight_ih[:, size:])
            context = torch.where(is_utterance, self.dropout(global_cell(gates, context)), context)
            past = self._attend(queries[:, :, step], history, mask[:, :, :step], has_past[:, :, step])
            history = torch.cat([history, context[:, :, None]], dim=2)

            gates = torch.baddbmm(party_gates[:, :, step], past, party_cell.weight_ih[:, size:])
            party = torch.where(is_utterance, self.dropout(party_cell(gates, party)), party)
            parties = parties.index_put(speaker, party)

            gates = torch.baddbmm(emotion_cell.bias_ih, party, emotion_cell.weight_ih)
            emotion = torch.where(is_utterance, self.dropout(emotion_cell(gates, emotion)), emotion)
            emotions.append(emotion)
        return torch.stack(emotions, dim=2) * mask[..., None].to(utterances.dtype)

    @staticmethod
    def _attend(
        query: torch.Tensor, history: torch.Tensor, mask: torch.BoolTensor, has_past: torch.BoolTensor
    ) -> torch.Tensor:
        """Attend to the past states (N, C, S, D). The result (N, C, D) is zero without a past utterance."""
        if history.shape[2] == 0:
            return torch.zeros_like(query)
        scores = (history @ query[..., None]).squeeze(-1)
        weights = masked_softmax(scores, mask)
        return (weights[:, :, None] @ history).squeeze(2) * has_past[..., None].to(query.dtype)


def number_speakers(speaker_ids: torch.Tensor) -> tuple[torch.LongTensor, int]:
    """Return ids (C, U) from 0 in each conversation, in order of appearance, and the maximum number of speakers."""
    first = (speaker_ids[:, :, None] == speaker_ids[:, None, :]).int().argmax(dim=-1)
    is_first = first == torch.arange(first.shape[1], device=first.device)
    return (is_first.cumsum(dim=1) - 1).gather(1, first), int(is_first.sum(dim=1).max())


@auto_docstring
class MultilogueNetPreTrainedModel(BaselinePreTrainedModel):
    config: MultilogueNetConfig

    @torch.no_grad()
    def _init_weights(self, module):
        super()._init_weights(module)
        factor = self.config.initializer_factor
        if isinstance(module, MultilogueNetGRUCell):
            bound = factor * module.hidden_size**-0.5
            for parameter in module.parameters():
                init.uniform_(parameter, -bound, bound)
        elif isinstance(module, MultilogueNetRecurrence):
            bound = factor * module.utterance_size**-0.5
            init.uniform_(module.attention_weight, -bound, bound)


@auto_docstring(
    custom_intro="""
    Multilogue-Net without a head on top. The second axis of every input is the utterances of a conversation: C
    conversations of at most U utterances. An LSTM encodes words by its last state; audio and video are averaged. Then
    three recurrent states follow conversation, speaker and emotion, in each modality and both directions, and the
    modalities attend to each other.

    A call needs at least one modality of the model. A modality that an utterance does not have leaves the states of
    that modality as they are. Invalid inputs raise a ValueError.

    `last_hidden_state` is (C, U, M * 2 * emotion_state_size), the emotion states of M modalities. `pooler_output` is
    (C, U, M * M * 2 * emotion_state_size), these states and the attention of each modality to each other.
    `hidden_states` are the utterances before their context, (C, U, M * utterance_size), and the `last_hidden_state`.
    """
)
class MultilogueNetModel(MultilogueNetPreTrainedModel):
    _auto_class = "AutoModel"

    def __init__(self, config: MultilogueNetConfig):
        super().__init__(config)
        self.main_input_name = INPUT_NAMES[config.modalities[0]]
        # CODEPATH: models with text; models of audio and video only have no words
        if "text" in config.modalities:
            self.embed_tokens = nn.Embedding(config.vocab_size, config.word_embedding_size, config.pad_token_id)
            self.lstm = nn.LSTM(config.word_embedding_size, config.utterance_size, batch_first=True)
        sizes = {"audio": config.audio_feature_size, "video": config.video_feature_size}
        self.front_ends = nn.ModuleDict(
            {name: nn.Linear(size, config.utterance_size) for name, size in sizes.items() if name in config.modalities}
        )
        self.recurrence = MultilogueNetRecurrence(config, num_streams=2 * len(config.modalities))
        self.pairs = list(permutations(range(len(config.modalities)), 2))
        self.post_init()

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
        speaker_ids: torch.LongTensor | None = None,
        utterance_mask: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaselineModelOutput:
        r"""
        Example:

        ```python
        >>> import torch
        >>> from modeling_umons import MultilogueNetConfig, MultilogueNetModel

        >>> model = MultilogueNetModel(MultilogueNetConfig(modalities=["text", "audio"]))
        >>> # Two conversations of three utterances each, by two speakers
        >>> words, frames = torch.randint(1, 14000, (2, 3, 8)), torch.randn(2, 3, 20, 80)
        >>> speakers = torch.tensor([[0, 1, 0], [0, 0, 1]])
        >>> outputs = model(input_ids=words, input_features=frames, speaker_ids=speakers)
        >>> list(outputs.last_hidden_state.shape)
        [2, 3, 400]
        ```
        """
        inputs = {
            "text": (input_ids, attention_mask),
            "audio": (input_features, input_features_mask),
            "video": (video_features, video_features_mask),
        }
        check_conversations(inputs, speaker_ids, utterance_mask)
        shape = next(value.shape[:2] for value, _ in inputs.values() if value is not None)
        # The front ends take utterances, without the axis of conversations.
        flat = {
            modality: (value.flatten(0, 1), None if mask is None else mask.flatten(0, 1))
            for modality, (value, mask) in inputs.items()
            if value is not None
        }
        values, masks = prepare_inputs(self.config, flat, self.dtype)
        values = clear_padding(values, masks)
        mask = self._mask_utterances(masks, shape, utterance_mask)
        utterances = self._encode_utterances(values, masks).unflatten(0, shape)  # (C, U, M * utterance_size)

        if speaker_ids is None:
            speaker_ids = torch.zeros(shape, dtype=torch.long, device=mask.device)
        by_modality = utterances.unflatten(-1, (len(mask), -1)).movedim(2, 0)
        states = self._run_recurrence(
            by_modality, mask, speaker_ids.to(mask.device)
        )  # (M, C, U, 2 * emotion_state_size)
        last_hidden_state = states.movedim(0, 2).flatten(2)
        pooler_output = torch.cat([last_hidden_state, *self._attend_across_modalities(states, mask)], dim=-1)
        return BaselineModelOutput(
            last_hidden_state=last_hidden_state,
            pooler_output=pooler_output,
            hidden_states=(utterances, last_hidden_state) if self.returns_hidden_states(kwargs) else None,
        )

    def _mask_utterances(
        self, masks: dict[str, torch.BoolTensor], shape: torch.Size, utterance_mask: torch.Tensor | None
    ) -> torch.BoolTensor:
        """Return (M, C, U), True for the modalities of each utterance, False in padding."""
        absent = torch.zeros(shape, dtype=torch.bool, device=next(iter(masks.values())).device)
        present = torch.stack(
            [masks[m].any(dim=1).unflatten(0, shape) if m in masks else absent for m in self.config.modalities]
        )
        if utterance_mask is not None:
            is_utterance = utterance_mask.to(device=present.device, dtype=torch.bool)
            # An utterance without any step is an error; padding may have none.
            check_rows({m: mask | ~is_utterance.flatten()[:, None] for m, mask in masks.items()})
            present = present & is_utterance
        check_rows({m: mask for m, mask in zip(self.config.modalities, present, strict=True) if m in masks})
        return present

    def _encode_utterances(self, values: dict[str, torch.Tensor], masks: dict[str, torch.BoolTensor]) -> torch.Tensor:
        """Encode each modality of the utterances. The result (rows, M * utterance_size) is zero for missing ones."""
        num_rows = len(next(iter(values.values())))
        features = []
        for modality in self.config.modalities:
            if modality not in values:
                size = self.config.utterance_size
                features.append(torch.zeros(num_rows, size, dtype=self.dtype, device=self.device))
            elif modality == "text":
                features.append(self._encode_words(values["text"], masks["text"]))
            else:
                is_present = masks[modality].any(dim=1)[:, None]
                mean = self.front_ends[modality](masked_mean(values[modality], masks[modality]))
                features.append(mean * is_present.to(mean.dtype))
        return torch.cat(features, dim=-1)

    def _encode_words(self, input_ids: torch.LongTensor, mask: torch.BoolTensor) -> torch.Tensor:
        """Encode word ids (rows, T) to (rows, utterance_size)."""
        has_words = mask.any(dim=1)  # many rows of a batch of conversations are padding
        words, mask = move_padding_last(self.embed_tokens(input_ids[has_words]), mask[has_words])
        states, _ = self.lstm(words)
        features = states.new_zeros(len(has_words), states.shape[-1])
        return features.index_put((has_words,), select_last_state(states, mask))

    def _run_recurrence(
        self, utterances: torch.Tensor, mask: torch.BoolTensor, speaker_ids: torch.LongTensor
    ) -> torch.Tensor:
        """Run the recurrence in both directions: (M, C, U, utterance_size) to (M, C, U, 2 * emotion_state_size)."""
        speakers, num_speakers = number_speakers(speaker_ids)
        speakers = speakers.expand_as(mask)
        states = self.recurrence(
            torch.cat([utterances, utterances.flip(2)]),
            torch.cat([mask, mask.flip(2)]),
            torch.cat([speakers, speakers.flip(2)]),
            num_speakers,
        )
        forward, backward = states.chunk(2)
        return torch.cat([forward, backward.flip(2)], dim=-1)

    def _attend_across_modalities(self, states: torch.Tensor, mask: torch.BoolTensor) -> list[torch.Tensor]:
        """Compute softmax(m1 m2^T) m2 * m1 over the utterances for all pairs of modalities: (C, U, 2 * size) each."""
        compared = []
        for first, second in self.pairs:
            weights = masked_softmax(states[first] @ states[second].transpose(1, 2), mask[second][:, None])
            compared.append(weights @ states[second] * states[first])  # states are zero in padding
        return compared


def check_conversations(
    inputs: dict[str, tuple[torch.Tensor | None, torch.Tensor | None]],
    speaker_ids: torch.Tensor | None,
    utterance_mask: torch.Tensor | None,
):
    """Raise a ValueError for inputs without an axis of utterances, and for differing conversations."""
    given = {INPUT_NAMES[modality]: value for modality, (value, _) in inputs.items()}
    given |= {MASK_NAMES[modality]: mask for modality, (_, mask) in inputs.items()}
    given |= {"speaker_ids": speaker_ids, "utterance_mask": utterance_mask}
    given = {name: value for name, value in given.items() if value is not None}
    dimensions = {"speaker_ids": 2, "utterance_mask": 2, "input_features": 4, "video_features": 4}
    if not any(name in given for name in INPUT_NAMES.values()):
        raise ValueError(f"No input: pass at least one of {', '.join(f'`{name}`' for name in INPUT_NAMES.values())}.")
    first = next(iter(given))
    for name, value in given.items():
        if value.ndim != dimensions.get(name, 3):
            raise ValueError(
                f"`{name}` has shape {tuple(value.shape)}, but this model takes conversations: "
                f"{dimensions.get(name, 3)} axes, of which the first are conversations and utterances."
            )
        if value.shape[:2] != given[first].shape[:2]:
            raise ValueError(
                f"`{name}` has {value.shape[0]} conversation(s) of {value.shape[1]} utterance(s), but `{first}` has "
                f"{given[first].shape[0]} of {given[first].shape[1]}."
            )


@auto_docstring(
    custom_intro="""
    Multilogue-Net with a classification head for every utterance. `problem_type`, `id2label` and `joint_sentiment`
    select the task, as in the other models.
    """
)
class MultilogueNetForSequenceClassification(MultilogueNetPreTrainedModel, BaselineForSequenceClassification):
    _auto_class = "AutoModelForSequenceClassification"

    def __init__(self, config: MultilogueNetConfig):
        super().__init__(config)
        self.dropout = nn.Dropout(config.dropout)
        num_modalities = len(config.modalities)
        self.add_head(MultilogueNetModel(config), num_modalities * num_modalities * 2 * config.emotion_state_size)
        self.post_init()

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
        speaker_ids: torch.LongTensor | None = None,
        utterance_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaselineSequenceClassifierOutput:
        r"""
        Example:

        ```python
        >>> import torch
        >>> from modeling_umons import MultilogueNetConfig, MultilogueNetForSequenceClassification

        >>> config = MultilogueNetConfig(modalities=["text", "audio"], num_labels=7)
        >>> model = MultilogueNetForSequenceClassification(config)
        >>> # Two conversations of three utterances each, by two speakers
        >>> words, frames = torch.randint(1, 14000, (2, 3, 8)), torch.randn(2, 3, 20, 80)
        >>> speakers = torch.tensor([[0, 1, 0], [0, 0, 1]])
        >>> outputs = model(input_ids=words, input_features=frames, speaker_ids=speakers)
        >>> list(outputs.logits.shape)
        [2, 3, 7]
        ```
        """
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            input_features=input_features,
            input_features_mask=input_features_mask,
            video_features=video_features,
            video_features_mask=video_features_mask,
            speaker_ids=speaker_ids,
            utterance_mask=utterance_mask,
            **kwargs | {"return_dict": True},
        )
        logits = self.classifier(self.dropout(outputs.pooler_output))
        loss = None
        if labels is not None:
            loss = self.compute_loss(*self._select_known(logits, labels.to(logits.device), utterance_mask))
        return BaselineSequenceClassifierOutput(loss=loss, logits=logits, hidden_states=outputs.hidden_states)

    def _select_known(
        self, logits: torch.Tensor, labels: torch.Tensor, utterance_mask: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the logits (N, num_labels) and the labels of the N labelled utterances."""
        if labels.shape[:2] != logits.shape[:2]:
            raise ValueError(
                f"`labels` has shape {tuple(labels.shape)}, but there are {logits.shape[0]} conversation(s) of "
                f"{logits.shape[1]} utterance(s), each with labels."
            )
        unknown = labels.isnan() if labels.is_floating_point() else labels == -100
        if labels.ndim == 3:
            # CODEPATH: models of sentiment and emotions at once, whose rows may have some unknown labels
            unknown = unknown.all(dim=-1) if self.config.joint_sentiment else unknown.any(dim=-1)
        known = ~unknown
        if utterance_mask is not None:
            known = known & utterance_mask.to(device=known.device, dtype=torch.bool)
        if not known.any():
            raise ValueError("No utterance has a label: leave `labels` out, or pass labels other than -100 and NaN.")
        return logits[known], labels[known]


__all__ = ["MultilogueNetForSequenceClassification", "MultilogueNetModel", "MultilogueNetPreTrainedModel"]
