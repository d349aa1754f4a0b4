"""Common tests of transformers for models and configurations, run on TFN, MFN and Graph-MFN."""

import tempfile
import unittest

import pytest
import torch
from tests.test_configuration_common import ConfigTester
from tests.test_modeling_common import ModelTesterMixin, floats_tensor, ids_tensor, random_attention_mask
from transformers import AutoModel, AutoModelForSequenceClassification

import modeling_umons


LENGTHS = {"text": 7, "audio": 6, "video": 5}
FRAME_NETWORKS = {"text_hidden_size": 6, "audio_hidden_size": 4, "video_hidden_size": 5}
MEMORY = {
    "memory_size": 8, "proposal_hidden_size": 7, "retain_gate_hidden_size": 6, "update_gate_hidden_size": 5,
    "output_hidden_size": 9,
}  # fmt: skip


class BaselineTester:
    """Small model and random inputs."""

    batch_size = 13
    num_labels = 3
    is_training = True
    # Attributes that the common tests read.
    hidden_size, num_hidden_layers, num_attention_heads, seq_length = 6, 1, 1, max(LENGTHS.values())

    def __init__(self, config_class, modalities, sizes):
        self.config_class, self.modalities, self.sizes = config_class, modalities, sizes

    def get_config(self):
        return self.config_class(
            modalities=self.modalities,
            vocab_size=99,
            word_embedding_size=12,
            max_text_length=9,
            max_audio_length=12,
            max_video_length=8,
            audio_feature_size=16,
            video_feature_size=10,
            **self.sizes,
        )

    def prepare_config_and_inputs_for_common(self):
        config = self.get_config()
        shapes = {modality: (self.batch_size, LENGTHS[modality]) for modality in self.modalities}
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


class BaselineTesterMixin(ModelTesterMixin):
    name: str
    sizes: dict[str, int]
    modalities = ("text", "audio", "video")
    additional_model_inputs = ["input_features", "input_features_mask", "video_features", "video_features_mask"]
    has_attentions = False

    @property
    def all_model_classes(self):
        return tuple(
            getattr(modeling_umons, f"{self.name}{suffix}") for suffix in ("Model", "ForSequenceClassification")
        )

    def setUp(self):
        config_class = getattr(modeling_umons, f"{self.name}Config")
        self.model_tester = BaselineTester(config_class, self.modalities, self.sizes)

    def hidden_shapes(self) -> list[tuple[int, ...]]:
        raise NotImplementedError

    def test_hidden_states_output(self):
        """Overrides the common test, which expects a stack of layers."""
        for model_class in self.all_model_classes:
            config, inputs = self.model_tester.prepare_config_and_inputs_for_common()
            model = model_class(config).eval()
            with torch.no_grad():
                by_argument = model(**inputs, output_hidden_states=True).hidden_states
                config.output_hidden_states = True
                by_configuration = model_class(config).eval()(**inputs).hidden_states
            for states in (by_argument, by_configuration):
                assert [tuple(state.shape) for state in states] == self.hidden_shapes()


class TextlessMixin:
    """Overrides of common tests that expect text."""

    modalities = ("audio", "video")
    test_resize_embeddings = False  # there are no word embeddings

    def test_model_get_set_embeddings(self):
        for model_class in self.all_model_classes:
            assert model_class(self.model_tester.get_config()).get_input_embeddings() is None

    def test_load_with_mismatched_shapes(self):
        """Changes the size of audio frames; the common test changes that of the vocabulary."""
        config, inputs = self.model_tester.prepare_config_and_inputs_for_common()
        with tempfile.TemporaryDirectory() as folder:
            self.all_model_classes[1](config).save_pretrained(folder)
            with pytest.raises(RuntimeError, match="ignore_mismatched_sizes"):
                AutoModelForSequenceClassification.from_pretrained(folder, num_labels=42)
            with pytest.raises(RuntimeError, match="ignore_mismatched_sizes"):
                AutoModel.from_pretrained(folder, audio_feature_size=9)
            options = {"num_labels": 42, "audio_feature_size": 9, "ignore_mismatched_sizes": True}
            model = AutoModelForSequenceClassification.from_pretrained(folder, **options)
        inputs["input_features"] = inputs["input_features"][..., :9]
        assert model(**inputs).logits.shape == (self.model_tester.batch_size, 42)


class TfnMixin(BaselineTesterMixin):
    name = "Tfn"
    sizes = {**FRAME_NETWORKS, "text_output_size": 7, "fusion_hidden_size": 8}

    def hidden_shapes(self):
        sizes = {"text": 7, "audio": 4, "video": 5}
        return [(self.model_tester.batch_size, sizes[modality]) for modality in self.modalities]


class MultMixin(BaselineTesterMixin):
    name = "Mult"
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}

    def hidden_shapes(self):
        size = 8 * (len(self.modalities) - 1)
        return [(self.model_tester.batch_size, LENGTHS[modality], size) for modality in self.modalities]


class MemoryFusionMixin(BaselineTesterMixin):
    def hidden_shapes(self):
        size = sum(FRAME_NETWORKS[f"{modality}_hidden_size"] for modality in self.modalities) + 8
        return [(self.model_tester.batch_size, max(LENGTHS[modality] for modality in self.modalities), size)]


class MfnMixin(MemoryFusionMixin):
    name = "Mfn"
    sizes = {**FRAME_NETWORKS, **MEMORY, "attention_hidden_size": 6}


class GraphMfnMixin(MemoryFusionMixin):
    name = "GraphMfn"
    sizes = {**FRAME_NETWORKS, **MEMORY, "vertex_size": 6}


class ConfigurationMixin:
    size_name = "text_hidden_size"

    def test_config(self):
        config_class = self.model_tester.config_class
        properties = [self.size_name, "audio_feature_size", "vocab_size"]
        tester = ConfigTester(self, config_class=config_class, common_properties=properties, **{self.size_name: 48})
        tester.run_common_tests()


class TfnModelTest(ConfigurationMixin, TfnMixin, unittest.TestCase): ...


class TfnAudioVideoModelTest(TextlessMixin, TfnMixin, unittest.TestCase): ...


class MfnModelTest(ConfigurationMixin, MfnMixin, unittest.TestCase): ...


class GraphMfnModelTest(ConfigurationMixin, GraphMfnMixin, unittest.TestCase): ...


class MultModelTest(ConfigurationMixin, MultMixin, unittest.TestCase):
    size_name = "hidden_size"


class MultAudioVideoModelTest(TextlessMixin, MultMixin, unittest.TestCase): ...


class GraphMfnAudioVideoModelTest(TextlessMixin, GraphMfnMixin, unittest.TestCase): ...
