"""Common tests of transformers for models with pretrained encoders of text, and of text and audio."""

import tempfile
import unittest

import pytest
import torch
from small_encoders import AUDIO, TEXT
from tests.test_modeling_common import floats_tensor
from transformers import AutoModel, AutoModelForSequenceClassification

from modeling_umons import UmonsConfig, UmonsForSequenceClassification

from .test_modeling_umons import UmonsModelTester, UmonsModelTesterMixin


class EncoderModelTester(UmonsModelTester):
    """Small model with an encoder for each modality."""

    num_samples = 250  # eleven steps of the encoder, as in `lengths`

    def __init__(self, parent, text, audio=None):
        super().__init__(parent, ["text", "audio"] if audio else ["text"])
        self.text, self.audio = text, audio

    def get_config(self):
        encoders = {"text_encoder": TEXT[self.text]()}
        encoders["text_encoder"].vocab_size = 99
        if self.audio:
            encoders["audio_encoder"] = AUDIO[self.audio]()
        options = {**super().get_config().to_diff_dict(), **encoders, "audio_feature_size": 16}
        return UmonsConfig(**{key: value for key, value in options.items() if key != "vocab_size"})

    def prepare_config_and_inputs_for_common(self):
        config, inputs = super().prepare_config_and_inputs_for_common()
        if self.audio:
            del inputs["input_features"], inputs["input_features_mask"]
            inputs["input_values"] = floats_tensor((self.batch_size, self.num_samples))
            # Without padding: steps that are padding in the whole batch are cut.
            inputs["input_values_mask"] = torch.ones(self.batch_size, self.num_samples, dtype=torch.long)
        return config, inputs


class EncoderModelTesterMixin(UmonsModelTesterMixin):
    text: str
    audio: str | None = None
    additional_model_inputs = ["input_values", "input_values_mask"]

    def setUp(self):
        self.model_tester = EncoderModelTester(self, self.text, self.audio)
        self.modalities = self.model_tester.modalities

    def check_attentions(self, outputs, inputs):
        if "input_values" in inputs:
            steps = self.model_tester.lengths["audio"]
            mask = torch.ones(self.model_tester.batch_size, steps, dtype=torch.long)
            inputs = {**inputs, "input_features_mask": mask}
        super().check_attentions(outputs, inputs)

    def test_load_with_mismatched_shapes(self):
        """The common test changes the vocabulary, which an encoder determines; here the labels change."""
        config, inputs = self.model_tester.prepare_config_and_inputs_for_common()
        folder = self.enterContext(tempfile.TemporaryDirectory())
        UmonsForSequenceClassification(config).save_pretrained(folder)
        with pytest.raises(RuntimeError, match="ignore_mismatched_sizes"):
            AutoModelForSequenceClassification.from_pretrained(folder, num_labels=42)
        assert AutoModel.from_pretrained(folder)(**inputs).pooler_output.isfinite().all()
        options = {"num_labels": 42, "ignore_mismatched_sizes": True}
        model = AutoModelForSequenceClassification.from_pretrained(folder, **options)
        assert model(**inputs).logits.shape == (self.model_tester.batch_size, 42)


class UmonsTextEncoderModelTest(EncoderModelTesterMixin, unittest.TestCase):
    text = "bert"


class UmonsTextAudioEncoderModelTest(EncoderModelTesterMixin, unittest.TestCase):
    text = "distilbert"
    audio = "wav2vec2"

    @unittest.skip(
        "wav2vec 2.0 has weights that its own `_init_weights` does not set; the test ignores models of its age."
    )
    def test_can_init_all_missing_weights(self): ...

    @unittest.skip("As above: where they are never made, they are NaN, which our models refuse.")
    def test_all_tensors_are_parameter_or_buffer(self): ...
