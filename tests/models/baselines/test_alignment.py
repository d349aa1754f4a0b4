"""Alignment of all modalities with the steps of the guide."""

import numpy as np
import pytest
import torch
from reference_baselines import FULL_LENGTHS, frames_of_words, make_batch, make_model
from small_pipelines import RATE, make_processor, tone
from transformers import pipeline

from modeling_umons import (
    GraphMfnForSequenceClassification,
    MfnConfig,
    MfnForSequenceClassification,
    MfnModel,
    build_tokenizer,
)
from modeling_umons.data.collator import UtteranceCollator
from modeling_umons.data.schema import make_features, to_table
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
    assert not compute_word_weights(make_mask(["000"]), torch.tensor([[[0.0, 9.0]]]), torch.zeros(1, 3)).any()


def test_compute_word_weights_uses_frames_with_middle_in_word():
    # The second row begins with padding and has three frames.
    mask, middles = make_mask(["1111", "0111"]), torch.tensor([[0.5, 1.5, 2.5, 3.5], [9.0, 0.5, 1.5, 2.5]])
    times = [[0.5, 2.5], [2.5, 2.6], [1.6, 2.2], [3.9, 9.0]]
    weights = compute_word_weights(mask, torch.tensor([times, times]), middles)
    # [start, end): the first two frames; the third; 1.5 is nearest to 1.9; the last frame for words after it.
    assert weights[0].tolist() == [[0.5, 0.5, 0, 0], [0, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 1]]
    assert weights[1].tolist() == [[0, 0.5, 0.5, 0], [0, 0, 0, 1], [0, 0, 1, 0], [0, 0, 0, 1]]


def test_align_modalities_mixes_known_and_unknown_times():
    config = MfnConfig(modalities=["text", "audio"])
    mask = {
        "text": make_mask(["1110", "0111", "1110", "0000", "1100"]),
        "audio": make_mask(["1" * 8, "1" * 5 + "000", "1" * 8, "11000000", "1" * 8]),
    }
    sequences = {m: torch.randn(*value.shape, 2) for m, value in mask.items()}
    nan = torch.nan
    times = torch.tensor(
        [
            [[0.0, 0.3], [0.3, 0.31], [0.5, 5.0], [nan, nan]],
            [[9.0, 9.0], [0.0, 0.5], [nan, nan], [0.4, 0.7]],  # begins with padding
            [[nan, nan]] * 4,
            [[nan, nan]] * 4,  # no words: the guide is the audio
            [[0.0, 0.3], [0.3, 0.6], [nan, nan], [nan, nan]],
        ]
    )
    middles = torch.tensor([0.05, 0.2, 0.45, 0.6, 0.8, 1.1, 1.2, 1.4]).repeat(5, 1)
    middles[4] = nan
    lengths = get_guide_lengths(mask)
    assert lengths.tolist() == [3, 3, 3, 2, 2]
    given = {"text": times, "audio": middles}
    aligned = align_modalities(config, sequences, mask, lengths, 4, given)
    adaptive = align_modalities(MfnConfig(alignment="adaptive"), sequences, mask, lengths, 4, given)
    for row in range(2):
        is_frame = mask["audio"][row]
        words = times[row][mask["text"][row]]
        expected = frames_of_words(sequences["audio"][row][is_frame], words, middles[row][is_frame].tolist())
        torch.testing.assert_close(aligned["audio"][row, :3], expected, atol=1e-6, rtol=0)
        assert not torch.allclose(aligned["audio"][row], adaptive["audio"][row])
    torch.testing.assert_close(aligned["audio"][2:], adaptive["audio"][2:])
    torch.testing.assert_close(aligned["text"][1, :3], sequences["text"][1, 1:])
    torch.testing.assert_close(aligned["audio"][3, :2], sequences["audio"][3, :2])
    assert not aligned["audio"][:3, 3:].any()
    assert not aligned["audio"][3, 2:].any()


def test_invalid_times_raise():
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
    with pytest.raises(ValueError, match=r"`audio_times` has shape \(3, 2\), but `input_features` requires \(3, 11\)"):
        model(**batch, audio_times=torch.zeros(3, 2))


@pytest.mark.parametrize("model_class", [MfnForSequenceClassification, GraphMfnForSequenceClassification])
def test_csd_averaged_per_word_gives_each_word_its_frame(model_class):
    """Rows of csd files with one frame per word; a word has no id, and another has two."""
    spoken = [("so", 20.0, 20.1), ("...", 20.1, 21.7), ("well-known", 21.7, 21.9), ("glad", 21.9, 30.0)]
    words = [{"word": word, "start": start, "end": end} for word, start, end in spoken]
    frames = np.arange(1, 21, dtype=np.float32).reshape(4, 5)
    row = {"text": "so ... well-known glad", "words": words, "start": 20.0, "audio_features": frames}
    row["audio_times"] = [(start + end) / 2 for _, start, end in spoken]
    table = to_table([{"segment_id": "a", **row}], make_features(audio_size=5))
    tokenizer = build_tokenizer(["so", "well", "known", "glad"])
    batch = UtteranceCollator(["text", "audio"], tokenizer, audio_size=5, reads_word_times=True)(table)
    assert batch["input_ids"].tolist() == [[2, 3, 4, 5]]
    times = {"text": batch["word_times"], "audio": batch["audio_times"]}
    masks = {"text": batch["attention_mask"].bool(), "audio": batch["input_features_mask"].bool()}
    sequences = {"audio": batch["input_features"]}
    config = model_class.config_class(modalities=["text", "audio"])
    aligned = align_modalities(config, sequences, masks, get_guide_lengths(masks), 4, times)
    np.testing.assert_array_equal(aligned["audio"][0].numpy(), frames[[0, 2, 2, 3]])


@pytest.mark.parametrize("batch_size", [1, 2])
def test_pipeline_aligns_as_training(batch_size):
    """Silence before the sound is trimmed, and the second segment begins at 1.5 s of the file."""
    processor = make_processor()
    torch.manual_seed(0)
    config = MfnConfig(vocab_size=8, word_embedding_size=12, initializer_factor=3.0, num_labels=3)
    model = MfnForSequenceClassification(config).eval()
    sound = np.concatenate([np.zeros(RATE // 2, np.float32), tone(2.5)])
    spoken = [("so", 0.6, 0.7), ("glad", 1.1, 1.3), ("well", 1.6, 1.7), ("known", 2.0, 2.9)]
    inputs = {
        "audio": sound, "sampling_rate": RATE, "words": [{"word": w, "timestamp": (s, e)} for w, s, e in spoken],
    }  # fmt: skip
    recognize = pipeline("multimodal-emotion-recognition", model=model, processor=processor)
    results = recognize(inputs, chunk_length_s=1.5, batch_size=batch_size)

    rows = []
    for start, words in ((0.0, spoken[:2]), (1.5, spoken[2:])):
        piece = sound[round(start * RATE) : round((start + 1.5) * RATE)]
        frames, times = processor.feature_extractor.extract_with_times(piece, RATE)
        words = [{"word": word, "start": s, "end": e} for word, s, e in words]
        row = {"segment_id": str(start), "start": start, "words": words, "audio_features": frames}
        rows.append({**row, "text": " ".join(word["word"] for word in words), "audio_times": start + times})
    collate = UtteranceCollator(["text", "audio"], processor.tokenizer, reads_word_times=True)
    batch = collate(to_table(rows, make_features()))
    assert batch["audio_times"][0, 0] == pytest.approx(0.5, abs=0.1)
    with torch.no_grad():
        expected = model(**batch).logits.softmax(dim=1)
        adaptive = model(**{name: value for name, value in batch.items() if "times" not in name}).logits.softmax(dim=1)
    for result, scores, others in zip(results, expected.tolist(), adaptive.tolist(), strict=True):
        found = {entry["label"]: entry["score"] for entry in result["labels"]}
        assert [found[f"LABEL_{i}"] for i in range(3)] == pytest.approx(scores, abs=1e-5)
        assert scores != pytest.approx(others, abs=1e-3)
