"""transformers' common tests for models, configurations and pipelines, on ours."""

import unittest

from tests.test_configuration_common import ConfigTester
from tests.test_modeling_common import ModelTesterMixin, floats_tensor, ids_tensor, random_attention_mask
from tests.test_pipeline_mixin import PipelineTesterMixin

from modeling_umons import UmonsConfig, UmonsForSequenceClassification, UmonsModel


class UmonsModelTester:
    """A small model of the given modalities, and random inputs for it, every modality with a length of its own."""

    batch_size = 13
    lengths = {"text": 7, "audio": 11, "video": 5}
    hidden_size = 32
    num_hidden_layers = 2
    num_attention_heads = 4
    num_labels = 3
    is_training = True

    def __init__(self, parent, modalities):
        self.parent = parent
        self.modalities = modalities
        self.seq_length = sum(self.lengths[modality] for modality in modalities)  # of the joint sequence

    def get_config(self):
        return UmonsConfig(
            modalities=self.modalities,
            vocab_size=99,
            word_embedding_size=24,
            hidden_size=self.hidden_size,
            intermediate_size=37,
            num_hidden_layers=self.num_hidden_layers,
            num_attention_heads=self.num_attention_heads,
            max_text_length=9,
            max_audio_length=12,
            max_video_length=8,
            audio_feature_size=16,
            video_feature_size=20,
        )

    def prepare_config_and_inputs_for_common(self):
        config = self.get_config()
        shapes = {modality: (self.batch_size, self.lengths[modality]) for modality in self.modalities}
        inputs = {}
        if "text" in shapes:
            inputs["input_ids"] = ids_tensor(shapes["text"], config.vocab_size - 1) + 1  # 0 is padding
            inputs["attention_mask"] = random_attention_mask(shapes["text"])
        if "audio" in shapes:
            inputs["input_features"] = floats_tensor((*shapes["audio"], config.audio_feature_size))
            inputs["input_features_mask"] = random_attention_mask(shapes["audio"])
        if "video" in shapes:
            inputs["video_features"] = floats_tensor((*shapes["video"], config.video_feature_size))
            inputs["video_features_mask"] = random_attention_mask(shapes["video"])
        return config, inputs


class UmonsModelTest(ModelTesterMixin, PipelineTesterMixin, unittest.TestCase):
    modalities = ("text", "audio", "video")
    all_model_classes = (UmonsModel, UmonsForSequenceClassification)
    pipeline_model_mapping = {"feature-extraction": UmonsModel}

    def setUp(self):
        self.model_tester = UmonsModelTester(self, self.modalities)
        self.config_tester = ConfigTester(self, config_class=UmonsConfig, hidden_size=36)

    def test_config(self):
        self.config_tester.run_common_tests()
