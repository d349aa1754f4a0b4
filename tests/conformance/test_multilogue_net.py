"""Common tests of transformers for models and configurations, run on Multilogue-Net."""

import copy
import tempfile
import unittest
import warnings

import pytest
import torch
from tests.test_configuration_common import ConfigTester
from tests.test_modeling_common import ModelTesterMixin, floats_tensor, ids_tensor, random_attention_mask
from transformers import AutoModel, AutoModelForSequenceClassification
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES

from modeling_umons import MultilogueNetConfig, MultilogueNetForSequenceClassification, MultilogueNetModel


class MultilogueNetModelTester:
    """Small model of the given modalities and random conversations."""

    batch_size = 13  # conversations
    seq_length = 4  # utterances
    lengths = {"text": 7, "audio": 6, "video": 5}
    utterance_size = 12
    num_hidden_layers = 1  # hidden states: utterances before and after their context
    is_training = True

    def __init__(self, parent, modalities):
        self.parent = parent
        self.modalities = modalities
        self.hidden_size = len(modalities) * self.utterance_size  # of the first hidden states

    def get_config(self):
        return MultilogueNetConfig(
            modalities=self.modalities,
            vocab_size=99,
            word_embedding_size=24,
            utterance_size=self.utterance_size,
            global_state_size=10,
            party_state_size=9,
            emotion_state_size=8,
            max_text_length=9,
            max_audio_length=12,
            max_video_length=8,
            audio_feature_size=16,
            video_feature_size=20,
        )

    def prepare_config_and_inputs_for_common(self):
        config, shape = self.get_config(), (self.batch_size, self.seq_length)
        inputs = {"speaker_ids": ids_tensor(shape, 3)}
        for modality in self.modalities:
            steps = (*shape, self.lengths[modality])
            mask = random_attention_mask((self.batch_size * self.seq_length, steps[-1])).reshape(steps)
            if modality == "text":
                inputs["input_ids"] = ids_tensor(steps, config.vocab_size - 1) + 1  # 0 is padding
                inputs["attention_mask"] = mask
            elif modality == "audio":
                inputs["input_features"] = floats_tensor((*steps, config.audio_feature_size))
                inputs["input_features_mask"] = mask
            else:
                inputs["video_features"] = floats_tensor((*steps, config.video_feature_size))
                inputs["video_features_mask"] = mask
        return config, inputs


class MultilogueNetModelTesterMixin(ModelTesterMixin):
    modalities: tuple[str, ...]
    all_model_classes = (MultilogueNetModel, MultilogueNetForSequenceClassification)
    additional_model_inputs = [
        "input_features", "input_features_mask", "video_features", "video_features_mask", "speaker_ids",
    ]  # fmt: skip
    has_attentions = False  # attention is part of the recurrence

    def setUp(self):
        self.model_tester = MultilogueNetModelTester(self, self.modalities)

    def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
        """Adds labels of utterances; those of the common tests are labels of rows."""
        inputs = copy.deepcopy(inputs_dict)
        if return_labels and model_class.__name__ in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES.values():
            inputs["labels"] = torch.zeros(
                self.model_tester.batch_size, self.model_tester.seq_length, dtype=torch.long
            )
        return inputs

    def test_problem_types(self):
        """Uses labels of utterances; the common test repeats those of rows."""
        shape = (self.model_tester.batch_size, self.model_tester.seq_length)
        kinds = {
            "multi_label_classification": (2, torch.zeros(*shape, 2)),
            "single_label_classification": (1, torch.zeros(shape, dtype=torch.long)),
            "regression": (1, torch.zeros(shape)),
        }
        for problem_type, (num_labels, labels) in kinds.items():
            config, inputs = self.model_tester.prepare_config_and_inputs_for_common()
            config.problem_type, config.num_labels = problem_type, num_labels
            model = MultilogueNetForSequenceClassification(config).train()
            with warnings.catch_warnings(record=True) as caught:
                model(**inputs, labels=labels).loss.backward()
            assert not [warning for warning in caught if "Using a target size" in str(warning.message)]
            assert model.classifier.weight.grad is not None

    def test_load_with_mismatched_shapes(self):
        """Uses conversations; the common test expects inputs and logits with two axes."""
        config, inputs = self.model_tester.prepare_config_and_inputs_for_common()
        change = {"vocab_size": 10} if "text" in self.modalities else {"audio_feature_size": 10}
        with tempfile.TemporaryDirectory() as folder:
            MultilogueNetForSequenceClassification(config).save_pretrained(folder)
            with pytest.raises(RuntimeError, match="ignore_mismatched_sizes"):
                AutoModelForSequenceClassification.from_pretrained(folder, num_labels=42)
            with pytest.raises(RuntimeError, match="ignore_mismatched_sizes"):
                AutoModel.from_pretrained(folder, **change)
            options = {"num_labels": 42, "ignore_mismatched_sizes": True, **change}
            model = AutoModelForSequenceClassification.from_pretrained(folder, **options)
        if "text" in self.modalities:
            inputs["input_ids"] = inputs["input_ids"] % 9 + 1
        else:
            inputs["input_features"] = inputs["input_features"][..., :10]
        logits = model(**inputs).logits
        assert logits.shape == (self.model_tester.batch_size, self.model_tester.seq_length, 42)


class MultilogueNetModelTest(MultilogueNetModelTesterMixin, unittest.TestCase):
    modalities = ("text", "audio", "video")

    def test_config(self):
        ConfigTester(
            self, config_class=MultilogueNetConfig, has_text_modality=False, common_properties=["utterance_size"]
        ).run_common_tests()


class MultilogueNetTextModelTest(MultilogueNetModelTesterMixin, unittest.TestCase):
    modalities = ("text",)


class MultilogueNetAudioVideoModelTest(MultilogueNetModelTesterMixin, unittest.TestCase):
    modalities = ("audio", "video")
    test_resize_embeddings = False  # there are no word embeddings

    def test_model_get_set_embeddings(self):
        """Expects no word embeddings, as the model has no text."""
        for model_class in self.all_model_classes:
            assert model_class(self.model_tester.get_config()).get_input_embeddings() is None
