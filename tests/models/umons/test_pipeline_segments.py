"""The pipeline on segments of a file, and the words that a transcriber or the caller gives them."""

import io
import itertools
import json
import logging

import av
import numpy as np
import pytest
import torch
from small_pipelines import FIXTURES, RATE, TASK, Transcriber, close, make_pipeline, tone, write_media
from transformers import Wav2Vec2Config, Wav2Vec2CTCTokenizer, Wav2Vec2FeatureExtractor, Wav2Vec2ForCTC, pipeline

from modeling_umons.models.umons.media_umons import iter_windows, read_clip, resample


recognize, sound, clip, wav, silent_clip = FIXTURES


@pytest.mark.parametrize("form", ["file", "waveform"])
@pytest.mark.parametrize(
    ("seconds", "chunk_length_s", "expected"),
    [
        (2.5, 1.0, [(0, 1), (1, 2), (2, 2.5)]),
        (2.0, 1.0, [(0, 1), (1, 2)]),
        (2.004, 1.0, [(0, 1), (1, 2)]),  # 4 ms are no segment
        (2.19, 1.0, [(0, 1), (1, 2)]),  # nor is less than a frame
        (2.21, 1.0, [(0, 1), (1, 2), (2, 2.21)]),
        (0.05, 1.0, [(0, 0.05)]),  # unless there is nothing else
        (0.35, 0.1, [(0, 0.1), (0.1, 0.2), (0.2, 0.3)]),  # segments shorter than a frame, if wanted
        (2.0, 7.0, [(0, 2)]),
    ],
)
def test_segments_are_contiguous_and_cover_the_file(recognize, form, seconds, chunk_length_s, expected):
    given = {"audio": tone(seconds), "sampling_rate": RATE}
    if form == "file":
        given = write_media(tone(seconds), container="wav")
    results = recognize(given, chunk_length_s=chunk_length_s)
    assert [time for r in results for time in r["timestamp"]] == pytest.approx(
        [time for pair in expected for time in pair], abs=2e-3
    )
    assert all(before["timestamp"][1] == after["timestamp"][0] for before, after in itertools.pairwise(results))
    assert all(result["modalities"] == ["audio"] for result in results)


def test_segment_equals_its_audio_alone(recognize, clip, sound):
    results = recognize([clip, {"text": "so glad"}][:1], chunk_length_s=1.0, batch_size=3)[0]
    for result, first in zip(results, (0, RATE, 2 * RATE), strict=True):
        alone = recognize({"audio": sound[first : first + RATE], "sampling_rate": RATE})
        assert close({k: result[k] for k in alone}, alone, tolerance=1e-4)


def test_return_timestamps_uses_the_models_maximum_length(recognize):
    results = recognize({"audio": tone(30), "sampling_rate": RATE}, return_timestamps=True)
    assert [r["timestamp"] for r in results] == [(0.0, 11.973), (11.973, 23.946), (23.946, 30.0)]
    assert "text" not in results[0]
    assert isinstance(recognize({"audio": tone(1), "sampling_rate": RATE}, return_timestamps=False), dict)


def test_gap_in_file_has_no_prediction(recognize):
    """Audio, a gap of three seconds, audio."""
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as output:
        stream = output.add_stream("pcm_s16le", rate=RATE, layout="mono")
        for start in (0, 4 * RATE):
            pcm = np.round(tone(1) * 32767).astype(np.int16)[None]
            frame = av.AudioFrame.from_ndarray(pcm, format="s16", layout="mono")
            frame.sample_rate, frame.pts = RATE, start
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    for batch_size in (1, 4):
        results = recognize(file.getvalue(), chunk_length_s=1.0, batch_size=batch_size, return_attention=True)
        assert [r["modalities"] for r in results] == [["audio"], [], [], [], ["audio"]]
        assert set(results[2]) == {"modalities", "timestamp", "warnings", "attention"}
        assert results[2]["attention"] == {}


def test_text_with_segments_raises(recognize, clip):
    for options in ({"chunk_length_s": 1.0}, {"return_timestamps": True}):
        with pytest.raises(ValueError, match=r"`text` cannot be cut into segments.*transcriber="):
            recognize({"text": "so glad", "video": clip}, **options)
        with pytest.raises(ValueError, match="no audio to cut into segments"):
            recognize({}, **options)


def test_transcriber_sets_text(recognize, clip, sound):
    transcriber = Transcriber("so very glad")
    result = recognize(clip, transcriber=transcriber)
    assert result.pop("text") == "so very glad"
    assert close(result, recognize({"text": "so very glad", "video": clip}))
    (heard,) = transcriber.heard
    assert heard["sampling_rate"] == RATE
    assert heard["raw"] == pytest.approx(sound, abs=1e-4)


def test_audio_is_resampled_for_the_transcriber(recognize, clip):
    transcriber = Transcriber("so glad")
    transcriber.feature_extractor = Wav2Vec2FeatureExtractor(sampling_rate=16000)
    assert recognize(clip, transcriber=transcriber)["text"] == "so glad"
    (heard,) = transcriber.heard
    assert heard["sampling_rate"] == 16000
    np.testing.assert_array_equal(heard["raw"], resample(read_clip(clip, video=False).audio, RATE, 16000))


def test_speech_pipeline_returns_words_with_times(recognize, clip, tmp_path):
    """A pipeline of transformers with a tiny random model."""
    (tmp_path / "vocab.json").write_text(json.dumps({"<pad>": 0, "|": 1, "s": 2, "o": 3, "<unk>": 4}))
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    convolutions = {"conv_dim": (8, 8), "conv_kernel": (10, 8), "conv_stride": (20, 16), "num_feat_extract_layers": 2}
    config = Wav2Vec2Config(
        vocab_size=5, num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2, **sizes, **convolutions
    )
    transcriber = pipeline(
        "automatic-speech-recognition",
        model=Wav2Vec2ForCTC(config).eval(),
        tokenizer=Wav2Vec2CTCTokenizer(str(tmp_path / "vocab.json")),
        feature_extractor=Wav2Vec2FeatureExtractor(),
    )
    result = recognize(clip, transcriber=transcriber)
    assert result["text"] == " ".join(word["word"] for word in result["words"])
    for word in result["words"]:
        start, end = word["timestamp"]
        assert 0 <= start <= end <= 4
    for segment in recognize(clip, transcriber=transcriber, chunk_length_s=1.0):
        for word in segment["words"]:
            assert segment["timestamp"][0] <= sum(word["timestamp"]) / 2 <= segment["timestamp"][1]
    json.dumps(result)


def test_transcriber_without_times_sets_text(recognize, clip):
    class Plain(Transcriber):
        def __call__(self, sound, return_timestamps=None):
            if return_timestamps is not None:
                raise ValueError("no time stamps here")
            return super().__call__(sound)

    result = recognize(clip, transcriber=Plain("so very glad"))
    assert result["text"] == "so very glad"
    assert "words" not in result


def test_transcriber_is_not_called_with_text(recognize, clip):
    transcriber = Transcriber()
    assert recognize({"text": "so glad", "video": clip}, transcriber=transcriber)["modalities"] == ["text", "audio"]
    assert transcriber.heard == []


def test_transcriber_without_times_processes_each_segment(recognize, clip):
    """Without times, the words of thirty seconds could not be assigned to segments."""
    transcriber = Transcriber("all of it", "so glad", "", "well")
    results = recognize(clip, transcriber=transcriber, chunk_length_s=1.0)
    assert [len(heard["raw"]) for heard in transcriber.heard] == [2.5 * RATE, RATE, RATE, RATE / 2]
    assert [r["text"] for r in results] == ["so glad", "", "well"]
    assert [r["modalities"] for r in results] == [["text", "audio"], ["audio"], ["text", "audio"]]


def test_transcriber_sets_text_of_text_model(clip):
    recognize = make_pipeline(modalities=["text"], joint_sentiment=True)
    assert close(
        recognize(clip, transcriber=Transcriber("so glad")), recognize({"text": "so glad"}) | {"text": "so glad"}
    )
    results = recognize(clip, transcriber=Transcriber("all of it", "so glad", " . ", "well"), chunk_length_s=1.0)
    assert [r["modalities"] for r in results] == [["text"], [], ["text"]]
    assert "sentiment" not in results[1]
    with pytest.raises(ValueError, match=r"no word in its text, ' \. '"):
        recognize(clip, transcriber=Transcriber(" . "))


def test_transcriber_gets_mono_floats(recognize):
    transcriber = Transcriber("so glad")
    stereo = np.stack([np.round(tone(1) * 32768)] * 2).astype(np.int16)
    recognize({"audio": stereo, "sampling_rate": RATE}, transcriber=transcriber)
    assert transcriber.heard[0]["raw"].shape == (RATE,)
    assert transcriber.heard[0]["raw"] == pytest.approx(tone(1), abs=1e-4)


class Timed:
    """Fake speech recogniser with times: one word in each second."""

    def __init__(self):
        self.heard = []

    def __call__(self, sound, return_timestamps):
        assert return_timestamps == "word"
        self.heard.append(sound["raw"])
        seconds = round(len(sound["raw"]) / sound["sampling_rate"])
        times = [(np.float32(k + 0.6), np.float32(k + 1.2)) for k in range(seconds)]
        chunks = [{"text": f" w{k}", "timestamp": time} for k, time in enumerate(times)]
        return {"text": "".join(chunk["text"] for chunk in chunks), "chunks": chunks}


def test_word_whose_middle_is_a_boundary_belongs_to_the_later_segment(recognize):
    words = [{"word": "so", "timestamp": (0.75, 1.25)}, {"word": "glad", "timestamp": (1.25, 1.5)}]
    inputs = {"words": words, "audio": tone(2.0), "sampling_rate": RATE}
    first, second = recognize(inputs, chunk_length_s=1.0)
    assert first["modalities"] == ["audio"]
    assert second["modalities"] == ["text", "audio"]
    alone = recognize({**inputs, "words": words[:1]}, chunk_length_s=1.0)
    assert [result["modalities"] for result in alone] == [["audio"], ["text", "audio"]]


def test_transcriber_with_times_processes_thirty_seconds(recognize):
    """A word across a boundary belongs to the segment of its midpoint."""
    transcriber = Timed()
    results = recognize(
        {"audio": tone(64), "sampling_rate": RATE}, transcriber=transcriber, chunk_length_s=4.0, batch_size=3
    )
    assert [len(raw) / RATE for raw in transcriber.heard] == [28, 28, 8]
    assert [r["text"] for r in results[:3]] == ["w0 w1 w2 w3", "w4 w5 w6 w7", "w8 w9 w10 w11"]
    assert results[7]["text"] == "w0 w1 w2 w3"  # of the second half minute
    assert results[7]["words"][0] == {"word": "w0", "timestamp": (pytest.approx(28.6), pytest.approx(29.2))}
    assert [word["word"] for word in results[-1]["words"]] == ["w4", "w5", "w6", "w7"]
    json.dumps(results, allow_nan=False)
    # The returned words are valid input.
    words = [word for result in results for word in result["words"]]
    again = recognize({"audio": tone(64), "sampling_rate": RATE, "words": words}, chunk_length_s=4.0)
    assert [(r["text"], r["words"]) for r in again] == [(r["text"], r["words"]) for r in results]
    assert [r["sentiment"] for r in again] == pytest.approx([r["sentiment"] for r in results], abs=1e-5)


def test_words_across_scripts_and_without_times(recognize):
    """A word without times follows the previous one; scripts without spaces keep their spelling."""

    def transcriber(sound, return_timestamps):
        words = [("很", (0.1, 0.4)), ("好", (1.2, None)), ("。", (None, None))]
        return {"text": "很好。", "chunks": [{"text": text, "timestamp": times} for text, times in words]}

    given = {"audio": tone(3), "sampling_rate": RATE}
    results = recognize(given, transcriber=transcriber, chunk_length_s=1.0)
    assert [r["text"] for r in results] == ["很", "好。", ""]
    assert results[1]["words"][1] == {"word": "。", "timestamp": (None, None)}


WORDS = [
    {"word": "so", "timestamp": (0.1, 0.4)},
    {"word": "very", "timestamp": [0.5, 1.2]},
    {"word": "glad", "timestamp": (1.9, 2.3)},
]


def test_words_are_assigned_to_segments(recognize, clip):
    transcriber = Timed()
    results = recognize(
        {"video": clip, "words": WORDS, "text": "ignored"}, chunk_length_s=1.0, transcriber=transcriber
    )
    assert [r["text"] for r in results] == ["so very", "", "glad"]
    assert [r["modalities"] for r in results] == [["text", "audio"], ["audio"], ["text", "audio"]]
    assert [len(r.get("words", ())) for r in results] == [2, 0, 1]
    assert transcriber.heard == []
    whole = recognize({"video": clip, "words": WORDS}, transcriber=transcriber)
    assert whole["text"] == "so very glad"
    assert whole["sentiment"] == pytest.approx(recognize({"video": clip, "text": "so very glad"})["sentiment"])
    assert recognize({"video": clip, "words": []}, chunk_length_s=1.0)[0]["text"] == ""


def test_words_without_media_are_cut_by_their_times(recognize):
    results = recognize({"words": [*WORDS, {"word": "well", "timestamp": (9e5, None)}]}, chunk_length_s=1.0)
    assert [r["text"] for r in results] == ["so very", "glad", "well"]
    assert [r["timestamp"] for r in results] == [(0.0, 1.0), (2.0, 3.0), (9e5, 9e5 + 1)]
    assert [r["modalities"] for r in results] == [["text"]] * 3
    assert recognize({"words": WORDS})["text"] == "so very glad"
    assert (
        make_pipeline(modalities=["text"], joint_sentiment=True)({"words": WORDS}, chunk_length_s=1.0)[1]["text"]
        == "glad"
    )


def test_word_without_times_follows_the_word_before_it(recognize):
    words = [{"word": word, "timestamp": (i, i + 0.5)} for i, word in enumerate(["so", "very", "glad", "well"])]
    words[0]["timestamp"] = words[2]["timestamp"] = (None, None)
    sound = {"audio": tone(4.0), "sampling_rate": RATE}
    results = recognize({**sound, "words": words}, chunk_length_s=1.0)
    assert [r["text"] for r in results] == ["", "so very glad", "", "well"]


def test_words_after_the_end_are_logged(recognize, clip, caplog, monkeypatch):
    """Such as time stamps in milliseconds."""
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    monkeypatch.setattr(logging.getLogger("modeling_umons"), "propagate", True)
    late = [{"word": "so", "timestamp": (500.0, 600.0)}]
    assert recognize({"video": clip, "words": late}, chunk_length_s=1.0)[2]["text"] == ""
    assert "1 of the 1 words are dropped" in caplog.text
    assert "Is it in seconds?" in caplog.text


def test_silence_has_no_prediction(recognize):
    """In segments and in whole inputs; it is not transcribed either."""
    quiet = np.full(RATE, 1e-5, dtype=np.float32)
    sound = {"audio": np.concatenate([tone(1), quiet, np.zeros(RATE, np.float32), tone(1)]), "sampling_rate": RATE}
    transcriber = Transcriber("all", "so", "glad")
    results = recognize(sound, chunk_length_s=1.0, transcriber=transcriber)
    assert [r["modalities"] for r in results] == [["text", "audio"], [], [], ["text", "audio"]]
    assert "sentiment" not in results[1]
    assert len(transcriber.heard) == 3
    silence = {"audio": quiet, "sampling_rate": RATE}
    for options in ({}, {"transcriber": transcriber}):
        with pytest.raises(ValueError, match="has nothing for a model of text and audio, its audio is silent: "):
            recognize(silence, **options)
    assert len(transcriber.heard) == 3
    result = recognize({**silence, "text": "so glad"})
    assert [warning["code"] for warning in result["warnings"]] == ["silent"]
    assert {**result, "warnings": []} == recognize({"text": "so glad"})
    assert [result["modalities"] for result in recognize(silence, chunk_length_s=0.5)] == [[], []]


def test_silent_file_is_named(recognize, tmp_path):
    (tmp_path / "quiet.wav").write_bytes(write_media(np.zeros(RATE, np.float32), container="wav"))
    with pytest.raises(ValueError, match=r"quiet\.wav has nothing for a model of text and audio, its audio is silent"):
        recognize(str(tmp_path / "quiet.wav"))


def test_on_error_returns_the_error_in_its_place(recognize, clip, tmp_path):
    broken = tmp_path / "broken.mkv"
    broken.write_bytes(b"no clip")
    inputs = [clip, str(broken), {"text": 3}, {"text": "so glad", "audio": clip}]
    with pytest.raises(ValueError, match="`text` must be a string"):
        recognize(inputs[2], on_error="raise")
    for batch_size in (1, 3):
        results = recognize(inputs, batch_size=batch_size, on_error="return")
        assert [list(result) for result in results[1:3]] == [["error"], ["error"]]
        assert "broken.mkv could not be opened" in results[1]["error"]
        assert results[2]["error"] == "`text` must be a string, not int."
        assert close(results[0], recognize(clip))
        assert close(results[3], recognize(inputs[3]))


def test_on_error_in_segments(recognize, clip, monkeypatch):
    """A file that is damaged after its beginning."""

    def break_after_two(*args, **options):
        yield from itertools.islice(iter_windows(*args, **options), 2)
        raise OSError("the file is damaged")

    monkeypatch.setattr(recognize, "read_windows", break_after_two)
    options = {"chunk_length_s": 1.0, "on_error": "return"}
    assert recognize([clip, {"text": 3}], **options)[0] == {"error": "the file is damaged"}
    first, last = recognize.stream(clip, **options)
    assert first["modalities"] == ["audio"]
    assert last == {"error": "the file is damaged"}


def test_stream_equals_list(recognize, clip):
    expected = recognize(clip, chunk_length_s=0.5)
    assert list(recognize.stream(clip, chunk_length_s=0.5)) == expected
    batched = list(recognize.stream(clip, chunk_length_s=0.5, batch_size=3, top_k=1))
    assert [r["timestamp"] for r in batched] == [r["timestamp"] for r in expected]
    assert all(len(r["emotions"]) == 1 for r in batched)
    assert list(recognize.stream(clip)) == recognize(clip, return_timestamps=True)
    chosen = pipeline(TASK, model=recognize.model, processor=recognize.processor, chunk_length_s=0.5, top_k=2)
    assert [len(r["emotions"]) for r in chosen.stream(clip)] == [2] * 5
    for wrong in (-1, 0):
        with pytest.raises(ValueError, match=f"`chunk_length_s` is {wrong}"):
            next(recognize.stream(clip, chunk_length_s=wrong))


def test_stream_decodes_lazily(recognize, monkeypatch):
    """Decodes only a few windows of a ten-minute file before the first results."""
    read = []

    def count(*arguments, **options):
        for window in iter_windows(*arguments, **options):
            read.append(window.start)
            yield window

    monkeypatch.setattr(recognize, "read_windows", count)
    stream = recognize.stream(write_media(np.tile(tone(10), 60), container="wav"), chunk_length_s=5.0)
    assert [next(stream)["timestamp"][0] for _ in range(3)] == [0, 5, 10]
    stream.close()
    assert read == [0, 5, 10, 15]
