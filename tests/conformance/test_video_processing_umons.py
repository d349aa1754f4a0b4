"""transformers' common tests for video processors, on ours; fetched for the installed release as package `tests`."""

import unittest

from tests.test_video_processing_common import VideoProcessingTestMixin, prepare_video_inputs

from modeling_umons.models.umons.video_processing_umons import UmonsVideoProcessor


class UmonsVideoProcessingTester:
    """Clips of one frame, so that the common tests' axis of frames is the axis of clips."""

    num_channels, num_frames, batch_size = 3, 6, 5

    def prepare_video_inputs(self, equal_resolution=False, return_tensors="pil"):
        return prepare_video_inputs(
            self.batch_size,
            self.num_frames,
            self.num_channels,
            30,
            80,
            equal_resolution=equal_resolution,
            return_tensors=return_tensors,
        )

    def expected_output_video_shape(self, videos):
        return [self.num_frames, 1, 3, 18, 20]


class UmonsVideoProcessingTest(VideoProcessingTestMixin, unittest.TestCase):
    fast_video_processing_class = UmonsVideoProcessor
    test_cast_dtype = True

    def setUp(self):
        super().setUp()
        self.video_processor_tester = UmonsVideoProcessingTester()

    @property
    def video_processor_dict(self):
        return {"size": {"height": 18, "width": 20}, "clip_length": 1, "clip_stride": 1, "do_sample_frames": False}

    def test_video_processor_from_dict_with_kwargs(self):
        """The common test wants a `shortest_edge` and a crop; ours resizes the whole frame."""
        video_processor = UmonsVideoProcessor.from_dict(self.video_processor_dict)
        assert video_processor.size == {"height": 18, "width": 20}
        assert video_processor.clip_length == 1

        video_processor = UmonsVideoProcessor.from_dict(self.video_processor_dict, size=42, clip_length=8)
        assert video_processor.size == {"height": 42, "width": 42}
        assert video_processor.clip_length == 8

    def test_call_numpy_4_channels(self):
        """The common test looks for the channels on the axis that holds our clips' frames."""
        self.video_processor_tester.num_channels = 4
        video_processor = UmonsVideoProcessor(**self.video_processor_dict)
        video_inputs = self.video_processor_tester.prepare_video_inputs(return_tensors="pil")
        options = {
            "return_tensors": "pt",
            "input_data_format": "channels_last",
            "image_mean": 0.0,
            "image_std": 1.0,
        }
        for videos in (video_inputs[0], video_inputs):
            pixels = video_processor(videos, **options)[self.input_name]
            num_videos = len(video_inputs) if videos is video_inputs else 1
            expected = self.video_processor_tester.expected_output_video_shape(videos)
            self.assert_expected_videos_shape(pixels, expected, num_videos)
