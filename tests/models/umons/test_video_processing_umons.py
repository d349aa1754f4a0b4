import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models.video import R2Plus1D_18_Weights

from modeling_umons.models.umons.video_processing_umons import UmonsVideoProcessor


def random_video(num_frames: int, height: int = 24, width: int = 32) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (num_frames, height, width, 3), dtype=np.uint8)


def counting_video(num_frames: int) -> np.ndarray:
    """Frame k is grey of value k."""
    return np.broadcast_to(np.arange(num_frames, dtype=np.uint8)[:, None, None, None], (num_frames, 8, 8, 3)).copy()


def frame_numbers(pixel_values: torch.Tensor) -> list[list[int]]:
    return pixel_values[0, :, :, 0, 0, 0].round().int().tolist()


@pytest.fixture
def plain() -> UmonsVideoProcessor:
    """Leaves the values as they are, so that frames can be recognised."""
    return UmonsVideoProcessor(do_rescale=False, do_normalize=False, size=8)


@pytest.mark.parametrize(
    ("num_frames", "num_clips"), [(1, 1), (15, 1), (16, 1), (23, 1), (24, 2), (480, 59), (2000, 60)]
)
def test_number_of_clips(num_frames, num_clips):
    output = UmonsVideoProcessor(size=4)(counting_video(num_frames), return_tensors="pt")
    assert output["pixel_values_videos"].shape == (1, num_clips, 16, 3, 4, 4)
    assert output["video_features_mask"].tolist() == [[1] * num_clips]


def test_clips_contain_their_frames(plain):
    output = plain(counting_video(25), return_tensors="pt")
    assert frame_numbers(output["pixel_values_videos"]) == [list(range(16)), list(range(8, 24))]


def test_short_video_repeats_its_last_frame(plain):
    output = plain(counting_video(3), return_tensors="pt")
    assert frame_numbers(output["pixel_values_videos"]) == [[0, 1, *[2] * 14]]


def test_defaults_match_the_kinetics_weights():
    output = UmonsVideoProcessor()(random_video(16), return_tensors="pt")
    pixels = output["pixel_values_videos"]
    assert pixels.shape == (1, 1, 16, 3, 112, 112)
    assert pixels.dtype == torch.float32
    assert output["video_features_mask"].dtype == torch.int64
    reference = R2Plus1D_18_Weights.KINETICS400_V1.transforms(crop_size=(112, 112), resize_size=(112, 112))
    expected = reference(torch.from_numpy(random_video(16)).permute(0, 3, 1, 2)).movedim(0, 1)
    one_grey_level = 1 / 255 / 0.216  # the two round to 8 bits at different places
    torch.testing.assert_close(pixels[0, 0], expected, atol=one_grey_level, rtol=0)


def test_batch_is_padded_with_zeros():
    videos = [random_video(40), random_video(16, 50, 20)]
    output = UmonsVideoProcessor(size=16)(videos, return_tensors="pt")
    assert output["pixel_values_videos"].shape == (2, 4, 16, 3, 16, 16)
    assert output["video_features_mask"].tolist() == [[1, 1, 1, 1], [1, 0, 0, 0]]
    assert (output["pixel_values_videos"][1, 1:] == 0).all()


def test_arrays_tensors_and_images_agree():
    processor, video = UmonsVideoProcessor(size=16), random_video(16)
    expected = processor([video], return_tensors="pt")["pixel_values_videos"]
    for same in (
        torch.from_numpy(video).permute(0, 3, 1, 2),
        [Image.fromarray(frame) for frame in video],
        list(video),
    ):
        assert torch.equal(processor(same, return_tensors="pt")["pixel_values_videos"], expected)
    in_numpy = processor([video], return_tensors="np")["pixel_values_videos"]
    assert isinstance(in_numpy, np.ndarray)


@pytest.mark.parametrize(
    ("num_frames", "fps", "expected"),
    [
        (16, 15.0, list(range(16))),
        (32, 30.0, list(range(0, 32, 2))),
        (8, 7.5, [0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 7]),
    ],
)
def test_frames_are_sampled_at_a_known_rate(plain, num_frames, fps, expected):
    metadata = {"total_num_frames": num_frames, "fps": fps}
    output = plain([counting_video(num_frames)], video_metadata=[metadata], return_tensors="pt")
    assert frame_numbers(output["pixel_values_videos"])[0] == expected


def test_options_of_a_call(plain):
    output = plain(counting_video(10), clip_length=4, clip_stride=2, max_clips=3, return_tensors="pt")
    assert frame_numbers(output["pixel_values_videos"]) == [[0, 1, 2, 3], [2, 3, 4, 5], [4, 5, 6, 7]]
    metadata = [{"total_num_frames": 10, "fps": 30.0}]
    output = plain([counting_video(10)], video_metadata=metadata, frame_rate=10.0, clip_length=3, return_tensors="pt")
    assert frame_numbers(output["pixel_values_videos"]) == [[0, 3, 6]]


def test_save_and_load(tmp_path):
    processor = UmonsVideoProcessor(clip_length=8, frame_rate=10.0, max_clips=5, size={"height": 64, "width": 80})
    processor.save_pretrained(tmp_path)
    loaded = UmonsVideoProcessor.from_pretrained(tmp_path)
    assert loaded.to_dict() == processor.to_dict()
    assert (loaded.clip_length, loaded.frame_rate, loaded.max_clips) == (8, 10.0, 5)
    expected = processor([random_video(20)], return_tensors="pt")["pixel_values_videos"]
    assert torch.equal(loaded([random_video(20)], return_tensors="pt")["pixel_values_videos"], expected)


def test_model_input_names_are_the_outputs():
    output = UmonsVideoProcessor(size=8)(random_video(16), return_tensors="pt")
    assert list(output) == UmonsVideoProcessor.model_input_names == ["pixel_values_videos", "video_features_mask"]


def test_instances_share_nothing():
    first, second = UmonsVideoProcessor(), UmonsVideoProcessor()
    first.size.height = 1
    first.image_mean = [0.0, 0.0, 0.0]
    assert second.size == {"height": 112, "width": 112}
    assert list(second.image_mean) == [0.43216, 0.394666, 0.37645]


@pytest.mark.shared
def test_path_is_decoded(shared):
    path = shared / "data" / "clips" / "grid_bbaf2n.mpg"
    output = UmonsVideoProcessor()(str(path), return_tensors="pt")
    assert output["pixel_values_videos"].shape == (1, 4, 16, 3, 112, 112)  # 3 s: 45 frames
    two = UmonsVideoProcessor()([str(path), str(path)], return_tensors="pt")
    assert torch.equal(two["pixel_values_videos"][1:], output["pixel_values_videos"])


@pytest.mark.parametrize(
    ("videos", "message"),
    [
        ([], "has no frames"),
        ([[]], "has no frames"),
        (np.zeros((0, 8, 8, 3), np.uint8), "has no frames"),
        ([counting_video(4), np.zeros((0, 8, 8, 3), np.uint8)], "has no frames"),
        (np.full((4, 8, 8, 3), np.nan, np.float32), "Video 0 has NaN or infinite"),
        ([np.zeros((4, 8, 8, 3), np.float32), np.full((4, 8, 8, 3), np.inf, np.float32)], "Video 1 has NaN"),
    ],
)
def test_invalid_videos_raise(videos, message):
    with pytest.raises(ValueError, match=message):
        UmonsVideoProcessor()(videos, return_tensors="pt")


@pytest.mark.parametrize("option", ["clip_length", "clip_stride", "max_clips"])
def test_invalid_options_raise(option):
    with pytest.raises(ValueError, match=f"{option}=0 must be at least 1"):
        UmonsVideoProcessor()(counting_video(4), **{option: 0}, return_tensors="pt")


def test_missing_path_raises(tmp_path):
    with pytest.raises(OSError, match=r"nothing\.mp4: there is no such file"):
        UmonsVideoProcessor()(str(tmp_path / "nothing.mp4"), return_tensors="pt")
