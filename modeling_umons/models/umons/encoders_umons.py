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
"""Pretrained encoders of UMONS models: any encoder of transformers for text, audio or video clips."""

import inspect

import torch
from torch import nn
from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, PreTrainedModel
from transformers.masking_utils import create_bidirectional_mask

from .configuration_umons import UmonsConfig, count_positions


# Main inputs of encoders by modality.
ENCODER_INPUTS = {
    "text": ("input_ids",),
    "audio": ("input_values", "input_features"),
    "video": ("pixel_values", "pixel_values_videos"),
}
# Clips per call of a video network, to bound its memory: about 200 MB of activations per clip in the video tower.
CLIPS_AT_ONCE = 8
# Default maximum length of audio in seconds, the window of Whisper.
DEFAULT_AUDIO_S = 30.0


class UmonsEncoder(nn.Module):
    """
    Pretrained encoder `model`, with random weights until they are loaded. The output is the last hidden state, or with
    `use_weighted_layer_sum` for `modality` the mean of all hidden states, weighted by the softmax of `layer_weights`.
    """

    def __init__(self, config: UmonsConfig, modality: str):
        super().__init__()
        self.modality = modality
        encoder_config = config.encoder_of(modality)
        self.model = take_encoder(AutoModel.from_config(encoder_config, trust_remote_code=False), modality)
        self.input_name = self.model.main_input_name
        mixes = config.weights_layers(modality)  # the embeddings and the output of each layer
        self.layer_weights = nn.Parameter(torch.zeros(encoder_config.num_hidden_layers + 1)) if mixes else None
        self.has_mask = "attention_mask" in inspect.signature(self.model.forward).parameters

    def encode(self, values: torch.Tensor, mask: torch.BoolTensor | None = None) -> torch.Tensor:
        """Return the output (B, T, size) of the encoder for its input and the boolean mask (B, T_in) of padding."""
        layers = self.run_layers(values, mask)
        if self.layer_weights is None:
            return layers[-1]
        return sum(weight * layer for weight, layer in zip(self.layer_weights.softmax(dim=0), layers, strict=True))

    def run_layers(self, values: torch.Tensor, mask: torch.BoolTensor | None) -> list[torch.Tensor]:
        """Return the hidden states (B, T, size): with `layer_weights` those of all layers, otherwise the last one."""
        mixes = self.layer_weights is not None
        inputs = {self.input_name: values, "output_hidden_states": mixes, "return_dict": True}
        if values.is_floating_point():
            inputs[self.input_name] = values.to(self.model.dtype)
        if mask is not None and self.has_mask:
            inputs["attention_mask"] = mask.long()
        outputs = self.model(**inputs)
        states = getattr(outputs, "last_hidden_state", None)
        # `last_hidden_state` replaces the last of `hidden_states`: some encoders normalise it.
        layers = [*((getattr(outputs, "hidden_states", None) or ())[:-1]), states] if mixes else [states]
        expected = len(self.layer_weights) if mixes else 1
        if (
            states is None
            or states.ndim != 3
            or len(layers) != expected
            or any(x.shape != states.shape for x in layers)
        ):
            raise ValueError(
                f"{type(self.model).__name__} does not return a sequence (batch, time, size)"
                f"{f' for each of {expected} layers' if mixes else ''}: it cannot be the {self.modality} encoder"
                f"{' with `use_weighted_layer_sum`' if mixes else ''}."
            )
        return layers


class UmonsTextEncoder(UmonsEncoder):
    """Text encoder: token ids and mask (B, T) -> (B, T, size)."""

    def forward(self, input_ids: torch.LongTensor, mask: torch.BoolTensor) -> torch.Tensor:
        return self.encode(input_ids, _unmask_empty_rows(mask))


class UmonsAudioEncoder(UmonsEncoder):
    """
    Audio encoder: waveforms or spectrograms and their mask (B, T_in) -> (B, T, size) and its mask (B, T).

    Padding is masked as far as the encoder masks it. Encoders that first normalise features over time (wav2vec 2.0 and
    HuBERT with `feat_extract_norm="group"`, as in their base models) process rows of each length separately, without
    padding, but not in compiled and exported graphs. With `average_audio` the output has one step (T = 1).
    """

    def __init__(self, config: UmonsConfig, modality: str):
        super().__init__(config, modality)
        self.averages = config.average_audio

    def forward(
        self, values: torch.FloatTensor, mask: torch.BoolTensor | None
    ) -> tuple[torch.FloatTensor, torch.BoolTensor]:
        states, mask = self.encode_steps(values, mask)
        if not self.averages:
            return states, mask
        weights = mask.to(states.dtype)
        total = (weights[..., None] * states).sum(dim=1, keepdim=True)
        return total / weights.sum(dim=1).clamp(min=1)[:, None, None], mask.any(dim=1, keepdim=True)

    def encode_steps(
        self, values: torch.FloatTensor, mask: torch.BoolTensor | None
    ) -> tuple[torch.FloatTensor, torch.BoolTensor]:
        """Return the output of all steps of the encoder, and its mask."""
        rule = getattr(self.model, "_get_feat_extract_output_lengths", None)
        can_count = rule is not None and not torch.compiler.is_compiling()  # the rule creates tensors
        if can_count and values.ndim == 2 and rule(values.shape[1]) < 1:
            raise ValueError(
                f"`input_values` has {values.shape[1]} samples, too few for one step of the audio encoder: pad "
                "the audio."
            )
        if mask is None:  # only rows of zeros are padding
            is_there = (values != 0).flatten(1).any(dim=1)
            states = self.encode(values)
            return states, is_there[:, None].expand(states.shape[:2])
        is_there = mask.any(dim=1, keepdim=True)
        mask = _unmask_empty_rows(mask)
        is_group_normalised = getattr(self.model.config, "feat_extract_norm", None) == "group"
        if is_group_normalised and can_count and not mask.is_meta and not mask.all():
            states = self._encode_by_length(values, mask)
        else:
            states = self.encode(values, mask)
        lengths = self.count_steps(mask.sum(dim=1), mask.shape[1], states.shape[1]).clamp(min=1)
        steps = torch.arange(states.shape[1], device=lengths.device)
        mask = (steps < lengths[:, None]) & is_there
        return states, mask

    def _encode_by_length(self, values: torch.FloatTensor, mask: torch.BoolTensor) -> torch.FloatTensor:
        """Encode the rows of each length without padding. The output (B, T, size) is zero after the end of a row."""
        lengths = mask.sum(dim=1)
        is_masked = self.training and getattr(self.model.config, "apply_spec_augment", False)
        num_samples = self._count_samples(self.model.config.mask_time_length if is_masked else 1)
        outputs = {}
        for length in lengths.unique().tolist():
            alone = values[lengths == length][mask[lengths == length]].view(-1, length)
            outputs[length] = self.encode(nn.functional.pad(alone, (0, max(0, num_samples - length))))
        longest = max(outputs.values(), key=lambda states: states.shape[1])
        states = longest.new_zeros(len(values), *longest.shape[1:])
        for length, some in outputs.items():
            states[lengths == length, : some.shape[1]] = some
        return states

    def _count_samples(self, num_steps: int) -> int:
        """Return the minimum number of samples for an output of `num_steps`, by the encoder's convolutions."""
        config = self.model.config
        for kernel, stride in zip(reversed(config.conv_kernel), reversed(config.conv_stride), strict=True):
            num_steps = (num_steps - 1) * stride + kernel
        return num_steps

    def count_steps(self, lengths: torch.LongTensor, total: int, total_steps: int) -> torch.LongTensor:
        """Return the steps for input `lengths`: by the encoder's own rule, or in proportion to `total_steps`."""
        rule = getattr(self.model, "_get_feat_extract_output_lengths", None)
        return rule(lengths) if rule else (lengths * total_steps + total - 1) // total


class UmonsWhisperEncoder(UmonsAudioEncoder):
    """
    Encoder of Whisper (Radford et al., 2023) for clips of any length up to its window of 30 seconds, with a mask.

    In transformers the encoder requires the padded window, and its layers attend to the silence. Here the positions
    are those of the clip, and padding is masked in convolutions and attention: a row has the same output in any batch.
    """

    def encode_steps(
        self, values: torch.FloatTensor, mask: torch.BoolTensor | None
    ) -> tuple[torch.FloatTensor, torch.BoolTensor]:
        if mask is not None and not torch.compiler.is_compiling() and not mask.is_meta:
            longest = max(1, int(mask.sum(dim=1).max()))  # frames that are padding in all rows are cut
            values, mask = values[..., :longest], mask[:, :longest]
        return super().encode_steps(values, mask)

    def run_layers(self, values: torch.Tensor, mask: torch.BoolTensor | None) -> list[torch.Tensor]:
        model, limit = self.model, 2 * self.model.max_source_positions  # the second convolution has a stride of 2
        if not torch.compiler.is_compiling() and values.shape[2] > limit:
            raise ValueError(
                f"`input_features` has {values.shape[2]} frames, but the audio encoder has positions for {limit}: cut "
                "the audio."
            )
        values = values.to(model.dtype)
        if mask is not None:  # as the zeros that the convolutions append to a row without padding
            values = values * mask[:, None]
        states = nn.functional.gelu(model.conv1(values))
        if mask is not None:
            states, mask = states * mask[:, None], mask[:, ::2]
        states = nn.functional.gelu(model.conv2(states)).transpose(1, 2)
        states = states + model.embed_positions.weight[: states.shape[1]]
        states = nn.functional.dropout(states, model.dropout, self.training)
        attention_mask = create_bidirectional_mask(model.config, states, mask)
        layers = [states]
        for layer in model.layers:
            if not (self.training and torch.rand(()) < model.layerdrop):
                states = layer(states, attention_mask)
            layers.append(states)
        layers[-1] = model.layer_norm(states)
        return layers


class UmonsVideoEncoder(UmonsEncoder):
    """Video encoder: clips (n, frames, 3, height, width) -> (n, size), the mean over the sequence of each clip."""

    @property
    def dtype(self) -> torch.dtype:
        return self.model.dtype

    def forward(self, clips: torch.FloatTensor) -> torch.FloatTensor:
        return torch.cat([self.encode(some).mean(dim=1) for some in clips.split(CLIPS_AT_ONCE)])


class UmonsEncoders(nn.ModuleDict):
    """Encoders of a configuration, by modality."""

    def __init__(self, config: UmonsConfig):
        kinds = {"text": UmonsTextEncoder, "audio": UmonsAudioEncoder, "video": UmonsVideoEncoder}
        if config.audio_encoder is not None and config.audio_encoder.model_type == "whisper":
            kinds["audio"] = UmonsWhisperEncoder
        names = [modality for modality in config.modalities if config.encoder_of(modality) is not None]
        super().__init__({modality: kinds[modality](config, modality) for modality in names})


def take_encoder(model: PreTrainedModel, modality: str) -> PreTrainedModel:
    """Return the encoder of a model, without decoder and pooler, which are not used."""
    encoder = model.get_encoder() if model.config.is_encoder_decoder else model
    takes_clips = modality != "video" or any(hasattr(model.config, key) for key in ("num_frames", "frames_per_clip"))
    if encoder.main_input_name not in ENCODER_INPUTS[modality] or not takes_clips:
        takes = f"`{encoder.main_input_name}`" if takes_clips else "single images"
        names = " or ".join(f"`{name}`" for name in ENCODER_INPUTS[modality])
        raise ValueError(
            f"The {modality} encoder is a {type(encoder).__name__}, which takes {takes}: an encoder of {modality} "
            f"takes {names}{' of clips' if modality == 'video' else ''}."
        )
    if getattr(encoder, "pooler", None) is not None:
        encoder.pooler = None
    return encoder


def _unmask_empty_rows(mask: torch.BoolTensor) -> torch.BoolTensor:
    """Return the mask with rows without any input set to `True`, so that no softmax is empty."""
    return mask | ~mask.any(dim=1, keepdim=True)


class FromEncodersMixin:
    """Mixin with `from_encoders` of the UMONS models."""

    @classmethod
    def from_encoders(
        cls, text: str | None = None, audio: str | None = None, video: str | None = None, **config_options
    ):
        r"""
        Create a model with pretrained encoders. Their weights are loaded, the rest of the model is initialized.
        [`UmonsProcessor.from_encoders`] creates the processor.

        ```python
        >>> model = UmonsForSequenceClassification.from_encoders(
        ...     text="microsoft/deberta-v3-base", audio="microsoft/wavlm-base-plus", joint_sentiment=True
        ... )
        ```

        Args:
            text (`str`, *optional*): folder or Hub id of a text encoder (BERT, MiniLM, DeBERTa).
            audio (`str`, *optional*): folder or Hub id of an audio encoder (wav2vec 2.0, HuBERT, WavLM, Whisper).
            video (`str`, *optional*): folder or Hub id of a video encoder (VideoMAE, TimeSformer).
            config_options: options of [`UmonsConfig`]. `modalities` defaults to those of the encoders; others have
                their usual front end. `max_audio_length` defaults to 30 seconds.

        Raises:
            OSError: an encoder cannot be read or downloaded.
            ValueError: an encoder is not of its modality, or options do not fit each other.
        """
        names = {"text": text, "audio": audio, "video": video}
        names = {modality: name for modality, name in names.items() if name is not None}
        config, pretrained = _load_pretrained(names, config_options)
        model = cls(config)
        for modality, encoder in pretrained.items():
            model.base_model.encoders[modality].model.load_state_dict(encoder.state_dict())
        return model.eval()


def fetch(auto_class, name: str, modality: str, **options):
    """Load a part of an encoder from a folder or the Hub, without remote code."""
    try:
        return auto_class.from_pretrained(str(name), trust_remote_code=False, **options)
    except OSError as error:
        raise OSError(
            f"The {modality} encoder {str(name)!r} cannot be loaded: {str(error).splitlines()[0]} Pass a folder that "
            f"has it, or download it with `hf download {name}`."
        ) from error
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"The {modality} encoder {str(name)!r} is not one of transformers' own models, or has no "
            f"{auto_class.__name__}: {str(error).splitlines()[0]}"
        ) from error


def _load_pretrained(names: dict[str, str], options: dict) -> tuple[UmonsConfig, dict[str, PreTrainedModel]]:
    """Return the configuration of a model with these encoders, and the encoders with their weights, by modality."""
    encoders = {  # in single precision, as the rest of a new model
        modality: take_encoder(fetch(AutoModel, name, modality, dtype=torch.float32), modality)
        for modality, name in names.items()
    }
    options = {"modalities": list(encoders), **options}
    if "audio" in encoders:
        rate, frame_duration = describe_sound(encoders["audio"], fetch(AutoFeatureExtractor, names["audio"], "audio"))
        length = default_length(encoders["audio"], frame_duration)
        options = {"audio_sampling_rate": rate, "max_audio_length": length, **options}
    options.update({f"{modality}_encoder": encoder.config for modality, encoder in encoders.items()})
    return UmonsConfig(**options), encoders


def describe_sound(encoder: PreTrainedModel, extractor) -> tuple[int, float]:
    """Return the sampling rate of an audio encoder in Hz, and the seconds between two steps of its output."""
    many = 1_000_000  # the edges are negligible
    rule = getattr(encoder, "_get_feat_extract_output_lengths", None)
    inputs_per_step = round(many / int(rule(torch.tensor(many, device="cpu")))) if rule else 1
    if hasattr(extractor, "hop_length"):
        inputs_per_s = extractor.sampling_rate / extractor.hop_length
    elif hasattr(extractor, "num_mel_bins"):  # Kaldi's frames of 10 ms, stacked by `stride`
        inputs_per_s = 100 / getattr(extractor, "stride", 1)
    else:
        inputs_per_s = extractor.sampling_rate
    return extractor.sampling_rate, inputs_per_step / inputs_per_s


def default_length(encoder: PreTrainedModel, frame_duration: float) -> int:
    """Return the default `max_audio_length`: 30 seconds, or the number of positions of the encoder if that is less."""
    steps = round(DEFAULT_AUDIO_S / frame_duration)
    return min(steps, count_positions(encoder.config, "audio") or steps)


def build_without_weights(name: str, modality: str) -> PreTrainedModel:
    """Create an encoder on the meta device, without memory for weights."""
    config = fetch(AutoConfig, name, modality)
    with torch.device("meta"):
        return take_encoder(AutoModel.from_config(config, trust_remote_code=False), modality)
