"""Common tests of transformers for models, configurations and pipelines."""

import tempfile
import unittest

import pytest
import torch
from tests.test_configuration_common import ConfigTester
from tests.test_modeling_common import ModelTesterMixin, floats_tensor, ids_tensor, random_attention_mask
from tests.test_pipeline_mixin import PipelineTesterMixin
from transformers import AutoModel, AutoModelForSequenceClassification, pipeline

from modeling_umons import UmonsConfig, UmonsForSequenceClassification, UmonsModel, build_tokenizer


class UmonsModelTester:
    """Small model of the given modalities, with random inputs of different lengths."""

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


class UmonsModelTesterMixin(ModelTesterMixin):
    modalities: tuple[str, ...]
    all_model_classes = (UmonsModel, UmonsForSequenceClassification)
    additional_model_inputs = ["input_features", "input_features_mask", "video_features", "video_features_mask"]

    def setUp(self):
        self.model_tester = UmonsModelTester(self, self.modalities)

    def test_attention_outputs(self):
        """Expects attentions of each modality with its own length; the common test expects one sequence."""
        for model_class in self.all_model_classes:
            config, inputs = self.model_tester.prepare_config_and_inputs_for_common()
            model = model_class._from_config(config, attn_implementation="eager").eval()
            with torch.no_grad():
                self.check_attentions(model(**inputs, output_attentions=True), inputs)

            # Requested in the configuration, and with hidden states.
            config.output_attentions = True
            model = model_class._from_config(config, attn_implementation="eager").eval()
            with torch.no_grad():
                outputs = model(**inputs)
                self.check_attentions(outputs, inputs)
                more_outputs = model(**inputs, output_hidden_states=True)
            self.check_attentions(more_outputs, inputs)
            assert set(more_outputs) - set(outputs) == {"hidden_states"}
            order = ["hidden_states", "attentions", "cross_attentions"]
            assert [name for name in more_outputs if name in order] == order

    # The common test expects features of `hidden_size`; those of the tower have their own size.
    skip_test_video_features_output_shape = True

    def _video_features_prepare_config_and_inputs(self):
        """Return a model with a video tower; the other tests have none, to save time."""
        if len(self.modalities) < 3:
            self.skipTest("The tower, which is large, is tested with all modalities.")
        config, _ = self.model_tester.prepare_config_and_inputs_for_common()
        config = type(config)(**{**config.to_dict(), "video_tower": {}, "video_feature_size": 512})
        return config, {"pixel_values_videos": floats_tensor((2, 2, 4, 3, 16, 16))}

    @unittest.skip("The tower is torchvision's network, kept whole: it gives its last features, and has no attention.")
    def test_get_video_features_attentions(self): ...

    @unittest.skip("The tower is torchvision's network, kept whole: it gives its last features only.")
    def test_get_video_features_hidden_states(self): ...

    # As for video: features have the size of the encoder.
    skip_test_audio_features_output_shape = True

    def _audio_features_prepare_config_and_inputs(self):
        """Skip models without an audio encoder; `test_encoders` tests the others."""
        config, inputs = super()._audio_features_prepare_config_and_inputs()
        if config.audio_encoder is None:
            self.skipTest("A model without an audio encoder is given features.")
        return config, inputs

    @unittest.skip("The encoder is called for its sequence; its attention can be had from the encoder itself.")
    def test_get_audio_features_attentions(self): ...

    @unittest.skip("The encoder is called for its sequence; its layers can be had from the encoder itself.")
    def test_get_audio_features_hidden_states(self): ...

    def check_attentions(self, outputs, inputs):
        """Check shapes, sums and masked weights of the attentions of each modality of each block."""
        names = {"text": "attention_mask", "audio": "input_features_mask", "video": "video_features_mask"}
        masks = [inputs[names[modality]].bool() for modality in self.modalities]
        guide = masks[0]
        expected = {
            "attentions": [(mask, mask) for mask in masks],
            "cross_attentions": [(m, guide) for m in masks[1:]],
        }
        for name, pairs in expected.items():
            pairs = pairs * self.model_tester.num_hidden_layers
            attentions = outputs.get(name, ())
            assert len(attentions) == len(pairs)
            for attention, (queries, keys) in zip(attentions, pairs, strict=True):
                batch_size, length = queries.shape
                heads = self.model_tester.num_attention_heads
                assert attention.shape == (batch_size, heads, length, keys.shape[1])
                torch.testing.assert_close(attention.sum(dim=-1), torch.ones(batch_size, heads, length))
                # Rows without the modality attend to their padding, without effect on the logits.
                is_masked = ~keys & keys.any(dim=1, keepdim=True)
                assert attention.masked_select(is_masked[:, None, None]).abs().sum().item() == 0.0


class UmonsModelTest(UmonsModelTesterMixin, PipelineTesterMixin, unittest.TestCase):
    modalities = ("text", "audio", "video")
    pipeline_model_mapping = {"feature-extraction": UmonsModel, "text-classification": UmonsForSequenceClassification}

    def test_config(self):
        ConfigTester(self, config_class=UmonsConfig, hidden_size=36).run_common_tests()

    def run_task_tests(self, task, dtype="float32"):
        """Replace the common test, which requires tiny models on the Hub and unpublished files."""
        if task not in self.pipeline_model_mapping:
            super().run_task_tests(task, dtype)  # skips
        model = self.pipeline_model_mapping[task](self.model_tester.get_config()).to(getattr(torch, dtype)).eval()
        tokenizer = build_tokenizer(["so", "very", "glad"])
        pipe = pipeline(task, model=model, tokenizer=tokenizer)
        tolerance = {"float32": 1e-6, "float16": 1e-2}[dtype]
        # Ten inputs in batches of four: the last batch is not full.
        texts = ["So very, very glad!", "Glad", "It is so.", "very", "so so"] * 2
        results = list(pipe((text for text in texts), batch_size=4))

        assert len(results) == len(texts)
        for text, result in zip(texts, results, strict=True):
            with torch.no_grad():
                outputs = model(**tokenizer(text, return_tensors="pt"))
            if task == "feature-extraction":
                num_words = len(text.split())
                found, expected = torch.tensor(result)[0, :num_words], outputs.last_hidden_state[0]
            else:
                scores = outputs.logits[0].softmax(dim=0)
                assert result["label"] == model.config.id2label[scores.argmax().item()]
                found, expected = torch.tensor(result["score"]), scores.max()
            torch.testing.assert_close(found.to(expected.dtype), expected, atol=tolerance, rtol=0)


class UmonsTextModelTest(UmonsModelTesterMixin, unittest.TestCase):
    modalities = ("text",)


class UmonsAudioVideoModelTest(UmonsModelTesterMixin, unittest.TestCase):
    modalities = ("audio", "video")
    test_resize_embeddings = False  # there are no word embeddings

    def test_model_get_set_embeddings(self):
        """The common test requires word embeddings; models without text have none."""
        for model_class in self.all_model_classes:
            assert model_class(self.model_tester.get_config()).get_input_embeddings() is None

    def test_load_with_mismatched_shapes(self):
        """The common test changes the vocabulary; models without text change the size of audio frames."""
        config, inputs = self.model_tester.prepare_config_and_inputs_for_common()
        with tempfile.TemporaryDirectory() as folder:
            UmonsForSequenceClassification(config).save_pretrained(folder)
            with pytest.raises(RuntimeError, match="ignore_mismatched_sizes"):
                AutoModelForSequenceClassification.from_pretrained(folder, num_labels=42)
            with pytest.raises(RuntimeError, match="ignore_mismatched_sizes"):
                AutoModel.from_pretrained(folder, audio_feature_size=10)
            options = {"num_labels": 42, "audio_feature_size": 10, "ignore_mismatched_sizes": True}
            model = AutoModelForSequenceClassification.from_pretrained(folder, **options)
        inputs["input_features"] = inputs["input_features"][..., :10]
        assert model(**inputs).logits.shape == (self.model_tester.batch_size, 42)
