"""transformers' common tests for feature extractors, on ours; fetched for the installed release as package `tests`."""

import random
import unittest

import numpy as np
from tests.test_sequence_feature_extraction_common import SequenceFeatureExtractionTestMixin

from modeling_umons.models.umons.feature_extraction_umons import UmonsFeatureExtractor


class UmonsFeatureExtractionTester:
    """Settings, and what `pad` gets: (num_frames, feature_size), seven lengths from 40 to 100."""

    batch_size = 7
    min_seq_length, max_seq_length = 40, 101
    seq_length_diff = (max_seq_length - min_seq_length) // (batch_size - 1)
    feature_size = 16
    padding_value = 0.0  # the common tests take it for granted

    def prepare_feat_extract_dict(self):
        return {
            "feature_size": self.feature_size,
            "sampling_rate": 16000,
            "padding_value": self.padding_value,
            "n_fft": 512,
            "hop_length": 160,
            "win_length": 400,
            "preemphasis": 0.9,
            "trim_db": 40.0,
            "frame_stride": 4,
            "max_length": 50,
        }

    def prepare_inputs_for_common(self, equal_length=False, numpify=False):
        lengths = range(self.min_seq_length, self.max_seq_length, self.seq_length_diff)
        if equal_length:
            lengths = [self.max_seq_length] * self.batch_size
        inputs = [[[random.random() for _ in range(self.feature_size)] for _ in range(n)] for n in lengths]
        return [np.asarray(frames) for frames in inputs] if numpify else inputs


class UmonsFeatureExtractionTest(SequenceFeatureExtractionTestMixin, unittest.TestCase):
    feature_extraction_class = UmonsFeatureExtractor

    def setUp(self):
        self.feat_extract_tester = UmonsFeatureExtractionTester()
