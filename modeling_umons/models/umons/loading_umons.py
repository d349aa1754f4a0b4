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
"""Makes UMONS models, and what its processors need, of pretrained encoders in a folder or on the Hub."""

import torch
from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, PreTrainedModel

from .configuration_umons import UmonsConfig, count_positions
from .encoders_umons import take_encoder


# Of sound a model hears this much by default, which is what Whisper's window holds.
DEFAULT_SOUND_S = 30.0


class FromEncodersMixin:
    """`from_encoders` of UMONS models."""

    @classmethod
    def from_encoders(
        cls, text: str | None = None, audio: str | None = None, video: str | None = None, **config_options
    ):
        r"""
        A model with pretrained encoders in the place of front ends, their weights loaded, the rest as it starts.
        [`UmonsProcessor.from_encoders`] makes the processor for it.

        ```python
        >>> model = UmonsForSequenceClassification.from_encoders(
        ...     text="microsoft/deberta-v3-base", audio="microsoft/wavlm-base-plus", joint_sentiment=True
        ... )
        ```

        Args:
            text (`str`, *optional*): folder or Hub id of an encoder of token ids (BERT, MiniLM, DeBERTa).
            audio (`str`, *optional*): of sound (wav2vec 2.0, HuBERT, WavLM; of Whisper, the encoder).
            video (`str`, *optional*): of clips of pictures (VideoMAE, TimeSformer).
            config_options: of [`UmonsConfig`]. `modalities` are those given here unless it names others as well,
                which then have their usual front end; `max_audio_length` covers half a minute.

        Raises:
            OSError: an encoder cannot be read, or fetched.
            ValueError: one is not of the modality or gives no sequence; options do not fit each other.
        """
        names = {"text": text, "audio": audio, "video": video}
        names = {modality: name for modality, name in names.items() if name is not None}
        config, pretrained = _load_pretrained(names, config_options)
        model = cls(config)
        for modality, encoder in pretrained.items():
            model.base_model.encoders[modality].model.load_state_dict(encoder.state_dict())
        return model.eval()


def fetch(auto_class, name: str, modality: str, **options):
    """What `auto_class` loads from a folder or the Hub, never running code of theirs. Errors say what to do."""
    try:
        return auto_class.from_pretrained(str(name), trust_remote_code=False, **options)
    except OSError as error:
        raise OSError(
            f"The {modality} encoder {str(name)!r} cannot be loaded: {str(error).splitlines()[0]} Give a folder that holds "
            f"it, or fetch it while there is a network, with `hf download {name}`."
        ) from error
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"The {modality} encoder {str(name)!r} is not one of transformers' own models, or misses a part "
            f"({auto_class.__name__}): {str(error).splitlines()[0]}"
        ) from error


def _load_pretrained(names: dict[str, str], options: dict) -> tuple[UmonsConfig, dict[str, PreTrainedModel]]:
    """The configuration of a model with these encoders, by modality, and the encoders with their weights."""
    encoders = {  # in single precision, as the rest of a new model, whatever they are saved in
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
    """Rate in Hz of the sound that an encoder wants, and seconds from one step of what it gives to the next."""
    many = 1_000_000  # so many that what is lost at the edges does not count
    rule = getattr(encoder, "_get_feat_extract_output_lengths", None)
    inputs_per_step = round(many / int(rule(torch.tensor(many, device="cpu")))) if rule else 1
    if hasattr(extractor, "hop_length"):
        inputs_per_s = extractor.sampling_rate / extractor.hop_length
    elif hasattr(extractor, "num_mel_bins"):  # Kaldi's frames of 10 ms, some at once
        inputs_per_s = 100 / getattr(extractor, "stride", 1)
    else:
        inputs_per_s = extractor.sampling_rate
    return extractor.sampling_rate, inputs_per_step / inputs_per_s


def default_length(encoder: PreTrainedModel, frame_duration: float) -> int:
    """`max_audio_length` unless another is asked for: the steps of half a minute, or what the encoder has positions for."""
    steps = round(DEFAULT_SOUND_S / frame_duration)
    return min(steps, count_positions(encoder.config, "audio") or steps)


def build_without_weights(name: str, modality: str) -> PreTrainedModel:
    """The encoder as its configuration describes it, without memory for weights."""
    config = fetch(AutoConfig, name, modality)
    with torch.device("meta"):
        return take_encoder(AutoModel.from_config(config, trust_remote_code=False), modality)
