"""Alignment of all modalities with the steps of the guide."""

import pytest
import torch
from reference_baselines import FULL_LENGTHS, SMALL, frames_of_words, make_batch, make_model

from modeling_umons import MfnConfig, MfnModel, UmonsFeatureExtractor, UmonsVideoProcessor
from modeling_umons.models.baselines.modeling_mfn import (
    align_modalities,
    compute_adaptive_weights,
    compute_word_weights,
    get_guide_lengths,
)


def make_mask(rows: list[str]) -> torch.BoolTensor:
    """Return the mask of rows such as "110": two steps and one step of padding."""
    return torch.tensor([[step == "1" for step in row] for row in rows])


def test_get_guide_lengths_uses_first_modality_of_each_row():
    masks = {
        "text": make_mask(["110", "000", "000"]),
        "audio": make_mask(["1", "1", "0"]),
        "video": make_mask(["0", "1", "1"]),
    }
    assert get_guide_lengths(masks).tolist() == [2, 1, 1]


def test_compute_adaptive_weights_equals_adaptive_avg_pool1d():
    generator = torch.Generator().manual_seed(0)
    lengths = torch.cartesian_prod(torch.arange(1, 10), torch.arange(1, 12))  # frames, steps
    mask = torch.arange(9) < lengths[:, :1]
    # Padding in any place.
    mask = mask.gather(1, torch.rand(mask.shape, generator=generator).argsort(dim=1))
    values = torch.randn(*mask.shape, 3, generator=generator)
    pooled = compute_adaptive_weights(mask, lengths[:, 1], num_steps=13) @ values
    for row, (_, num_steps) in enumerate(lengths.tolist()):
        frames = values[row][mask[row]]
        expected = torch.nn.functional.adaptive_avg_pool1d(frames.T[None], num_steps)[0].T
        torch.testing.assert_close(pooled[row, :num_steps], expected, atol=1e-6, rtol=0)
        assert not pooled[row, num_steps:].any()


def test_weights_of_row_without_frames_are_zero():
    assert not compute_adaptive_weights(make_mask(["000"]), torch.tensor([2]), num_steps=2).any()
    assert not compute_word_weights(make_mask(["000"]), torch.tensor([[[0.0, 9.0]]]), 1.0, 0.0).any()


def test_compute_word_weights_uses_frames_with_middle_in_word():
    # Middles at 0.5, 1.5, 2.5, 3.5. The second row begins with padding and has three frames.
    mask = make_mask(["1111", "0111"])
    times = [[0.5, 2.5], [2.5, 2.6], [1.6, 2.2], [3.9, 9.0]]
    weights = compute_word_weights(mask, torch.tensor([times, times]), frame_duration=1.0, first_middle=0.5)
    # [start, end): the first two frames; the third; 1.5 is nearest to 1.9; the last frame for words after it.
    assert weights[0].tolist() == [[0.5, 0.5, 0, 0], [0, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 1]]
    assert weights[1].tolist() == [[0, 0.5, 0.5, 0], [0, 0, 0, 1], [0, 0, 1, 0], [0, 0, 0, 1]]


@pytest.mark.parametrize("offset", [0.0, 0.31])
def test_align_modalities_mixes_words_with_and_without_times(offset):
    config = MfnConfig(modalities=["text", "audio"], audio_frame_duration=0.2, audio_first_middle=0.05)
    mask = {
        "text": make_mask(["1110", "0111", "1110", "0000"]),
        "audio": make_mask(["1" * 8, "1" * 5 + "000", "1" * 8, "11000000"]),
    }
    sequences = {m: torch.randn(*value.shape, 2) for m, value in mask.items()}
    nan = torch.nan
    times = torch.tensor(
        [
            [[0.0, 0.3], [0.3, 0.31], [0.5, 5.0], [nan, nan]],
            [[9.0, 9.0], [0.0, 0.5], [nan, nan], [0.4, 0.7]],  # begins with padding
            [[nan, nan]] * 4,
            [[nan, nan]] * 4,  # no words: the guide is the audio
        ]
    )
    lengths = get_guide_lengths(mask)
    assert lengths.tolist() == [3, 3, 3, 2]
    offsets = torch.full((4,), offset)
    aligned = align_modalities(config, sequences, mask, lengths, 4, times, offsets)
    adaptive = align_modalities(MfnConfig(alignment="adaptive"), sequences, mask, lengths, 4, times, offsets)
    for row in range(2):
        frames = sequences["audio"][row][mask["audio"][row]]
        expected = frames_of_words(frames, times[row][mask["text"][row]], 0.2, 0.05 + offset)
        torch.testing.assert_close(aligned["audio"][row, :3], expected, atol=1e-6, rtol=0)
        assert not torch.allclose(aligned["audio"][row], adaptive["audio"][row])
    torch.testing.assert_close(aligned["audio"][2:], adaptive["audio"][2:])
    torch.testing.assert_close(aligned["text"][1, :3], sequences["text"][1, 1:])
    torch.testing.assert_close(aligned["audio"][3, :2], sequences["audio"][3, :2])
    assert not aligned["audio"][:3, 3:].any()
    assert not aligned["audio"][3, 2:].any()


def test_config_defaults_equal_those_of_processors():
    config, videos = MfnConfig(), UmonsVideoProcessor()
    assert config.audio_frame_duration == pytest.approx(UmonsFeatureExtractor().frame_duration)
    assert config.video_frame_duration == pytest.approx(videos.clip_stride / videos.frame_rate)
    assert config.video_first_middle == pytest.approx(videos.clip_length / videos.frame_rate / 2)


def test_invalid_word_times_raise():
    model, batch = make_model(MfnModel), make_batch(("text", "audio"), FULL_LENGTHS)
    times = torch.zeros(*batch["input_ids"].shape, 2)
    with pytest.raises(ValueError, match=r"`word_times` has shape \(3, 9\), but `input_ids` requires \(3, 9, 2\)"):
        model(**batch, word_times=times[..., 0])
    with pytest.raises(ValueError, match="words that end before they start"):
        model(**batch, word_times=times + torch.tensor([1.0, 0.5]))
    with pytest.raises(ValueError, match="infinite"):
        model(**batch, word_times=times + torch.tensor([0.0, torch.inf]))
    with pytest.raises(ValueError, match="`word_times` is given without `input_ids`"):
        model(**make_batch(("audio",), lengths={"audio": [3]}), word_times=times)
    with pytest.raises(ValueError, match="audio_frame_duration"):
        MfnConfig(**SMALL, audio_frame_duration=0)
    with pytest.raises(ValueError, match=r"`audio_offsets` has shape \(2,\)"):
        model(**batch, word_times=times, audio_offsets=torch.zeros(2))
