"""transformers' common tests for processors, on ours."""

import unittest

from tests.test_processing_common import ProcessorTesterMixin

from modeling_umons import UmonsFeatureExtractor, UmonsProcessor, UmonsVideoProcessor, build_tokenizer


class UmonsProcessorTest(ProcessorTesterMixin, unittest.TestCase):
    processor_class = UmonsProcessor

    @classmethod
    def _setup_tokenizer(cls):
        return build_tokenizer(["lower", "newer", "upper", "older", "longer", "string"])

    @classmethod
    def _setup_feature_extractor(cls):
        return UmonsFeatureExtractor()

    @classmethod
    def _setup_video_processor(cls):
        return UmonsVideoProcessor()
