"""The pipeline: every form of input, every option and every kind of model, on clips made here."""

import io
import itertools
import json
import re

import av
import numpy as np
import pytest
import torch
from transformers import (
    Wav2Vec2Config,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForCTC,
    pipeline,
)

from modeling_umons import (
    EMOTIONS,
    MultimodalEmotionPipeline,
    UmonsConfig,
    UmonsFeatureExtractor,
    UmonsForSequenceClassification,
    UmonsProcessor,
    UmonsVideoProcessor,
    build_tokenizer,
)


TASK = "multimodal-emotion-recognition"
RATE = 22050
SIZES = {
    "word_embedding_size": 12,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "initializer_factor": 3.0,  # so that inputs show in the answers
}
WORDS = ["so", "very", "glad", "dont", "well", "known"]


def make_model(**options) -> UmonsForSequenceClassification:
    torch.manual_seed(0)
    return UmonsForSequenceClassification(UmonsConfig(vocab_size=2 + len(WORDS), **SIZES, **options)).eval()


def make_processor() -> UmonsProcessor:
    return UmonsProcessor(build_tokenizer(WORDS), UmonsFeatureExtractor(), UmonsVideoProcessor())


def make_pipeline(**options) -> MultimodalEmotionPipeline:
    return pipeline(TASK, model=make_model(**options), processor=make_processor())


def tone(seconds: float, rate: int = RATE, hertz: float = 220.0) -> np.ndarray:
    """A voice of a kind: harmonics that fade in and out three times a second; float32 (samples,)."""
    time = np.arange(round(seconds * rate)) / rate
    harmonics = sum(np.sin(2 * np.pi * hertz * k * time) / k for k in (1, 2, 3))
    return (0.2 * harmonics * (1 + np.sin(6 * np.pi * time))).astype(np.float32)


def write_media(sound: np.ndarray | None, pictures: float = 0.0, container: str = "matroska") -> bytes:
    """A file of lossless 16-bit sound and of `pictures` seconds of video, or of one of the two."""
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        audio = None if sound is None else output.add_stream("pcm_s16le", rate=RATE, layout="mono")
        video = output.add_stream("mpeg4", rate=10, width=64, height=64, pix_fmt="yuv420p") if pictures else None
        for i in range(round(10 * pictures)):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 5 * i % 256, np.uint8), format="rgb24")
            output.mux(video.encode(frame))
        if video is not None:
            output.mux(video.encode(None))
        if audio is not None:
            pcm = np.round(sound * 32767).astype(np.int16)[None]
            frame = av.AudioFrame.from_ndarray(pcm, format="s16", layout="mono")
            frame.sample_rate = RATE
            output.mux(audio.encode(frame))
            output.mux(audio.encode(None))
    return file.getvalue()


@pytest.fixture(scope="module")
def recognize() -> MultimodalEmotionPipeline:
    return make_pipeline(joint_sentiment=True)


@pytest.fixture(scope="module")
def sound() -> np.ndarray:
    """Two and a half seconds, exactly as a 16-bit file holds them."""
    return (np.round(tone(2.5) * 32767).astype(np.int16) / np.float32(32768)).astype(np.float32)


@pytest.fixture(scope="module")
def clip() -> bytes:
    return write_media(tone(2.5), pictures=2.5)


@pytest.fixture(scope="module")
def wav() -> bytes:
    return write_media(tone(2.5), container="wav")


@pytest.fixture(scope="module")
def silent_clip() -> bytes:
    return write_media(None, pictures=1.5)


def close(result, expected, tolerance=1e-5):
    """Whether two results are the same but for rounding, emotions by name."""
    assert result.keys() == expected.keys()
    for name, value in expected.items():
        if name in ("emotions", "labels"):
            scores = {entry["label"]: entry["score"] for entry in value}
            assert {entry["label"]: entry["score"] for entry in result[name]} == pytest.approx(scores, abs=tolerance)
        elif isinstance(value, float):
            assert result[name] == pytest.approx(value, abs=tolerance)
        else:
            assert result[name] == value
    return True


# --- inputs


def test_the_answer_of_a_joint_model(recognize):
    result = recognize({"text": "so very glad"})
    assert list(result) == ["sentiment", "emotions", "modalities"]
    assert isinstance(result["sentiment"], float)
    assert {entry["label"] for entry in result["emotions"]} == set(EMOTIONS)
    scores = [entry["score"] for entry in result["emotions"]]
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 for score in scores)
    assert result["modalities"] == ["text"]


def test_every_form_of_sound_gives_one_answer(recognize, tmp_path, clip, wav, sound):
    (tmp_path / "clip.mkv").write_bytes(clip)
    (tmp_path / "sound.wav").write_bytes(wav)
    path = tmp_path / "clip.mkv"
    expected = recognize({"audio": sound, "sampling_rate": RATE})
    assert expected["modalities"] == ["audio"]
    stereo = np.stack([sound, sound])
    for given in (
        str(path),
        path,
        clip,
        wav,
        {"video": str(path)},
        {"video": path},
        {"video": clip},
        {"video": {"path": str(path), "bytes": None}},
        {"audio": str(tmp_path / "sound.wav")},
        {"audio": tmp_path / "sound.wav"},
        {"audio": wav},
        {"audio": sound.tolist(), "sampling_rate": RATE},
        {"audio": torch.from_numpy(sound), "sampling_rate": RATE},
        {"audio": np.round(sound * 32768).astype(np.int16), "sampling_rate": RATE},
        {"audio": stereo, "sampling_rate": RATE},
        {"audio": stereo.T, "sampling_rate": RATE},
        {"audio": {"array": sound, "sampling_rate": RATE, "path": None}},
        {"audio": {"raw": sound, "sampling_rate": RATE}},
        {"audio": {"path": None, "bytes": wav}},
        {"audio": {"path": str(tmp_path / "sound.wav"), "bytes": None}},
        {"text": None, "audio": wav, "video": None},
    ):
        assert close(recognize(given), expected, tolerance=1e-4), given


def test_a_decoder_of_datasets(recognize, sound):
    """`datasets.Audio` decodes to an object with this interface."""

    class Decoder:
        def get_all_samples(self):
            raise NotImplementedError

        def __getitem__(self, name):
            return {"array": sound, "sampling_rate": RATE}[name]

    assert close(recognize({"audio": Decoder()}), recognize({"audio": sound, "sampling_rate": RATE}))


def test_sound_at_another_rate_is_resampled(recognize):
    """Taken at its own rate it lasts as long as it did; what is heard of it hardly changes."""
    options = {"return_timestamps": True, "return_attention": True}
    (expected,) = recognize({"audio": tone(2.5), "sampling_rate": RATE}, **options)
    (right,) = recognize({"audio": tone(2.5, 16000), "sampling_rate": 16000}, **options)
    (wrong,) = recognize({"audio": tone(2.5, 16000), "sampling_rate": RATE}, **options)
    assert right["timestamp"] == expected["timestamp"] == (0.0, 2.5)
    assert [len(r["attention"]["audio"]) for r in (expected, right, wrong)] == [13, 13, 10]
    errors = [abs(r["sentiment"] - expected["sentiment"]) for r in (right, wrong)]
    assert errors[0] < errors[1] / 2


def test_words_and_sound_together(recognize, clip, wav):
    both = recognize({"text": "so very glad", "video": clip})
    assert both["modalities"] == ["text", "audio"]
    assert close(both, recognize({"text": "so very glad", "audio": wav}))
    alone = [recognize({"text": "so very glad"}), recognize(clip)]
    assert all(abs(both["sentiment"] - one["sentiment"]) > 1e-3 for one in alone)


def test_sound_given_apart_is_taken_instead_of_the_clips_own(recognize, clip):
    other = tone(2.0, hertz=500.0)
    result = recognize({"video": clip, "audio": other, "sampling_rate": RATE})
    assert close(result, recognize({"audio": other, "sampling_rate": RATE}))
    assert abs(result["sentiment"] - recognize(clip)["sentiment"]) > 1e-3


def test_lists_and_generators(recognize, clip):
    inputs = [{"text": "so glad"}, clip, {"text": "well", "video": clip}]
    expected = [recognize(one) for one in inputs]
    assert recognize(inputs) == expected
    stream = recognize(one for one in inputs)
    assert next(iter(stream)) == expected[0]
    assert list(recognize(one for one in inputs)) == expected
    assert recognize(inputs[:1]) == expected[:1]


def test_batches_give_what_single_inputs_give(recognize, clip, silent_clip):
    inputs = [
        {"text": "so very very glad"},
        clip,
        {"text": "well", "audio": tone(0.3), "sampling_rate": RATE},
        {"text": "glad", "video": silent_clip},
        {"audio": tone(7.0, 16000), "sampling_rate": 16000},
    ]
    one_by_one = recognize(inputs, batch_size=1, return_attention=True)
    for batch_size in (2, 5):
        batched = recognize(inputs, batch_size=batch_size, return_attention=True)
        assert len(batched) == len(inputs)
        for result, expected in zip(batched, one_by_one, strict=True):
            attention, expected_attention = result.pop("attention"), dict(expected["attention"])
            assert close(result, {k: v for k, v in expected.items() if k != "attention"})
            for modality, weights in expected_attention.items():
                assert [w["weight"] for w in attention[modality]] == pytest.approx(
                    [w["weight"] for w in weights], abs=1e-5
                )


def test_long_inputs_are_cut(recognize):
    assert close(recognize({"text": "so " * 60 + "glad " * 500}), recognize({"text": "so " * 60}))
    long = recognize({"audio": tone(30), "sampling_rate": RATE}, return_attention=True)
    assert len(long["attention"]["audio"]) == 60


# --- pictures


@pytest.fixture(scope="module")
def watch():
    """A pipeline whose model has a video tower."""
    return make_pipeline(modalities=["text", "audio", "video"], video_tower={}, joint_sentiment=True)


def test_pictures_count_in_a_model_with_a_tower(watch, clip, silent_clip):
    seen = watch({"text": "so glad", "video": clip}, return_attention=True)
    assert seen["modalities"] == ["text", "audio", "video"]
    assert sum(entry["weight"] for entry in seen["attention"]["video"]) == pytest.approx(1, abs=1e-5)
    times = [entry["time"] for entry in seen["attention"]["video"]]
    assert times == pytest.approx([8 / 15 * (1 + k) for k in range(len(times))], abs=1e-3)
    assert watch(silent_clip)["modalities"] == ["video"]
    heard = watch({"text": "so glad", "audio": clip})
    assert heard["modalities"] == ["text", "audio"]
    assert seen["sentiment"] != pytest.approx(heard["sentiment"], abs=1e-4)
    json.dumps(seen)


def test_frames_are_pictures_too(watch):
    frames = np.random.default_rng(0).integers(0, 256, (20, 90, 120, 3), dtype=np.uint8)
    result = watch({"video": frames})
    assert result["modalities"] == ["video"]
    assert close(result, watch({"video": list(frames)}))
    assert watch({"video": frames, "audio": tone(1), "sampling_rate": RATE})["modalities"] == ["audio", "video"]
    segments = watch({"video": frames}, segment_s=1.0, batch_size=2)
    assert [s["timestamp"] for s in segments] == [(0.0, 1.0), (1.0, pytest.approx(1.333))]
    with pytest.raises(ValueError, match=r"`video` has shape \(20, 90, 120\)"):
        watch({"video": frames[..., 0]})


def test_sound_and_pictures_from_two_files_are_cut_alike(watch, clip, silent_clip):
    segments = watch({"audio": clip, "video": silent_clip}, segment_s=1.0, batch_size=2)
    assert segments[0]["modalities"] == ["audio", "video"]


# --- clips without sound


@pytest.mark.parametrize("form", ["path", "bytes"])
def test_a_clip_without_sound_goes_on_with_its_text(recognize, tmp_path, silent_clip, form):
    (tmp_path / "silent.mkv").write_bytes(silent_clip)
    source = str(tmp_path / "silent.mkv") if form == "path" else silent_clip
    for name in ("video", "audio"):
        result = recognize({"text": "so glad", name: source})
        assert result["modalities"] == ["text"]
        assert close(result, recognize({"text": "so glad"}))


def test_a_clip_without_sound_and_without_text_is_an_error(recognize, silent_clip):
    for given in (silent_clip, {"video": silent_clip}):
        with pytest.raises(OSError, match="holds no sound"):
            recognize(given)
    with pytest.raises(OSError, match="holds no sound"):  # a model that cannot read the text
        make_pipeline(modalities=["audio"], joint_sentiment=True)({"text": "so glad", "video": silent_clip})


def test_text_does_not_excuse_an_unreadable_file(recognize, tmp_path, clip):
    (tmp_path / "broken.mkv").write_bytes(b"no clip at all" * 50)
    for source in (tmp_path / "broken.mkv", str(tmp_path / "missing.mkv"), tmp_path, clip[:40]):
        with pytest.raises(OSError, match=re.escape(str(source)) if not isinstance(source, bytes) else "40 bytes"):
            recognize({"text": "so glad", "video": source})


# --- wrong inputs


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("what a wonderful day", r"'what a wonderful day' is neither a file nor a URL.*\{'text': \.\.\.\}"),
        ("what a day " * 1000, r"neither a file nor a URL.*\{'text': \.\.\.\}"),
        ("", r"'' is neither a file nor a URL"),
        ({}, r"nothing in this input for a model of text and audio: pass \{'text': \.\.\.\}"),
        ({"text": ""}, r"no word in its text, '': pass"),
        ({"text": " ... "}, r"no word in its text, ' \.\.\. '"),
        ({"text": None}, "nothing in this input"),
        ({"text": 3}, "`text` must be a string, not int"),
        ({"text": ["so", "glad"]}, "`text` must be a string, not list"),
        ({"sampling_rate": 22050}, "nothing in this input"),
        ({"audio": np.zeros(100)}, "`sampling_rate` is None: give it in Hz"),
        ({"audio": np.zeros(100), "sampling_rate": 0}, "`sampling_rate` is 0: give it in Hz"),
        ({"audio": np.zeros(0), "sampling_rate": 22050}, "is empty"),
        ({"audio": np.full(100, np.nan), "sampling_rate": 22050}, "NaN"),
        ({"audio": {"path": None, "bytes": None}}, r"`audio` is a dict of \['bytes', 'path'\]"),
        ({"audio": {"array": np.zeros(100)}}, "`sampling_rate` is None"),
        ({"words": "so glad"}, r"no \['words'\]: pass any of text, audio, sampling_rate, video"),
        (3.5, "not float"),
    ],
)
def test_wrong_inputs_are_value_errors_in_words(recognize, given, message):
    with pytest.raises(ValueError, match=message):
        recognize(given)


def test_unreadable_files_are_os_errors_that_name_them(recognize, tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no clip at all" * 50)
    for given in (str(broken), broken, {"audio": broken}):
        with pytest.raises(OSError, match=r"broken\.mp4 could not be opened as a clip or sound file"):
            recognize(given)
    with pytest.raises(OSError, match=f"{tmp_path} is a folder: pass a clip or sound file in it"):
        recognize(str(tmp_path))
    with pytest.raises(OSError, match=r"missing\.mp4: there is no such file"):
        recognize({"video": str(tmp_path / "missing.mp4")})
    with pytest.raises(OSError, match=r"missing\.mp4: there is no such file"):
        recognize(tmp_path / "missing.mp4")
    with pytest.raises(OSError, match="<4 bytes> could not be opened"):
        recognize(b"clip")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top_k": 0}, "`top_k` is 0"),
        ({"segment_s": 0}, "`segment_s` is 0"),
        ({"segment_s": -1.0}, "`segment_s` is -1.0"),
        ({"topk": 1}, r"\['topk'\]"),
    ],
)
def test_wrong_options(recognize, options, message):
    with pytest.raises(ValueError, match=message):
        recognize({"text": "so glad"}, **options)


# --- options


def test_top_k(recognize):
    everything = recognize({"text": "so glad"})["emotions"]
    assert recognize({"text": "so glad"}, top_k=2)["emotions"] == everything[:2]
    assert recognize({"text": "so glad"}, top_k=100)["emotions"] == everything
    chosen = pipeline(TASK, model=recognize.model, processor=recognize.processor, top_k=1)
    assert chosen({"text": "so glad"})["emotions"] == everything[:1]


@pytest.mark.parametrize("form", ["file", "waveform"])
@pytest.mark.parametrize(
    ("seconds", "segment_s", "expected"),
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
def test_segments_are_contiguous_and_cover_the_file(recognize, form, seconds, segment_s, expected):
    given = {"audio": tone(seconds), "sampling_rate": RATE}
    if form == "file":
        given = write_media(tone(seconds), container="wav")
    results = recognize(given, segment_s=segment_s)
    assert [time for r in results for time in r["timestamp"]] == pytest.approx(
        [time for pair in expected for time in pair], abs=2e-3
    )
    assert all(before["timestamp"][1] == after["timestamp"][0] for before, after in itertools.pairwise(results))
    assert all(result["modalities"] == ["audio"] for result in results)


def test_segments_answer_as_their_sound_alone_would(recognize, clip, sound):
    results = recognize([clip, {"text": "so glad"}][:1], segment_s=1.0, batch_size=3)[0]
    for result, first in zip(results, (0, RATE, 2 * RATE), strict=True):
        alone = recognize({"audio": sound[first : first + RATE], "sampling_rate": RATE})
        assert close({k: result[k] for k in alone}, alone, tolerance=1e-4)


def test_return_timestamps_cuts_as_long_as_the_model_hears(recognize):
    results = recognize({"audio": tone(30), "sampling_rate": RATE}, return_timestamps=True)
    assert [r["timestamp"] for r in results] == [(0.0, 11.973), (11.973, 23.946), (23.946, 30.0)]
    assert "text" not in results[0]
    assert isinstance(recognize({"audio": tone(1), "sampling_rate": RATE}, return_timestamps=False), dict)


def test_a_hole_in_a_file_has_no_answer(recognize):
    """Sound, then nothing for three seconds, then sound."""
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
        results = recognize(file.getvalue(), segment_s=1.0, batch_size=batch_size, return_attention=True)
        assert [r["modalities"] for r in results] == [["audio"], [], [], [], ["audio"]]
        assert set(results[2]) == {"modalities", "timestamp", "attention"}
        assert results[2]["attention"] == {}


def test_text_and_segments_exclude_each_other(recognize, clip):
    for options in ({"segment_s": 1.0}, {"return_timestamps": True}):
        with pytest.raises(ValueError, match=r"`text` cannot be cut into segments.*transcriber="):
            recognize({"text": "so glad", "video": clip}, **options)
        with pytest.raises(ValueError, match="no sound to cut into segments"):
            recognize({}, **options)


class Transcriber:
    """Stands for a speech recogniser: says what it was told to, and remembers what it heard."""

    def __init__(self, *texts: str):
        self.texts, self.heard = list(texts), []

    def __call__(self, sound, **options):
        self.heard.append(sound)
        return {"text": self.texts[len(self.heard) - 1]}


def test_a_transcriber_fills_in_the_text(recognize, clip, sound):
    transcriber = Transcriber("so very glad")
    result = recognize(clip, transcriber=transcriber)
    assert result.pop("text") == "so very glad"
    assert close(result, recognize({"text": "so very glad", "video": clip}))
    (heard,) = transcriber.heard
    assert heard["sampling_rate"] == RATE
    assert heard["raw"] == pytest.approx(sound, abs=1e-4)


def test_a_speech_recogniser_tells_when_the_words_are_spoken(recognize, clip, tmp_path):
    """A real pipeline of a tiny random model, which hears letters where there are none."""
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
    for segment in recognize(clip, transcriber=transcriber, segment_s=1.0):
        for word in segment["words"]:
            assert segment["timestamp"][0] <= word["timestamp"][0] <= segment["timestamp"][1]
    json.dumps(result)


def test_a_transcriber_without_time_stamps_is_heard_too(recognize, clip):
    class Plain(Transcriber):
        def __call__(self, sound, return_timestamps=None):
            if return_timestamps is not None:
                raise ValueError("no time stamps here")
            return super().__call__(sound)

    result = recognize(clip, transcriber=Plain("so very glad"))
    assert result["text"] == "so very glad"
    assert "words" not in result


def test_a_transcriber_is_not_asked_where_text_is_given(recognize, clip):
    transcriber = Transcriber()
    assert recognize({"text": "so glad", "video": clip}, transcriber=transcriber)["modalities"] == ["text", "audio"]
    assert transcriber.heard == []


def test_a_transcriber_hears_segments(recognize, clip):
    results = recognize(clip, transcriber=Transcriber("so glad", "", "well"), segment_s=1.0)
    assert [r["text"] for r in results] == ["so glad", "", "well"]
    assert [r["modalities"] for r in results] == [["text", "audio"], ["audio"], ["text", "audio"]]


def test_a_transcriber_gives_a_model_of_text_its_words(clip):
    recognize = make_pipeline(modalities=["text"], joint_sentiment=True)
    assert close(
        recognize(clip, transcriber=Transcriber("so glad")), recognize({"text": "so glad"}) | {"text": "so glad"}
    )
    results = recognize(clip, transcriber=Transcriber("so glad", " . ", "well"), segment_s=1.0)
    assert [r["modalities"] for r in results] == [["text"], [], ["text"]]
    assert "sentiment" not in results[1]
    with pytest.raises(ValueError, match=r"no word in its text, ' \. '"):
        recognize(clip, transcriber=Transcriber(" . "))


def test_a_transcriber_hears_one_channel_of_floats(recognize):
    transcriber = Transcriber("so glad")
    stereo = np.stack([np.round(tone(1) * 32768)] * 2).astype(np.int16)
    recognize({"audio": stereo, "sampling_rate": RATE}, transcriber=transcriber)
    assert transcriber.heard[0]["raw"].shape == (RATE,)
    assert transcriber.heard[0]["raw"] == pytest.approx(tone(1), abs=1e-4)


def test_attention_over_words_and_times(recognize):
    silence = np.zeros(RATE, dtype=np.float32)
    given = {
        "text": "So VERY glad, don't -- well-known!",
        "audio": np.concatenate([silence, tone(2)]),
        "sampling_rate": RATE,
    }
    attention = recognize(given, return_attention=True)["attention"]
    assert list(attention) == ["text", "audio"]
    # As written; the tokenizer deletes the punctuation inside and around them.
    words = [entry["word"].strip(",!") for entry in attention["text"]]
    assert words == ["So", "VERY", "glad", "don't", "well", "known"]
    times = [entry["time"] for entry in attention["audio"]]
    assert 0.9 < times[0] < 1.0  # silence at the start is trimmed, to a frame
    assert np.diff(times) == pytest.approx(275 * 16 / RATE, abs=2e-3)
    assert 2.7 < times[-1] < 3.0
    for entries in attention.values():
        assert sum(entry["weight"] for entry in entries) == pytest.approx(1, abs=1e-5)


def test_attention_of_segments_counts_from_the_start_of_the_file(recognize, clip):
    results = recognize(clip, segment_s=1.0, return_attention=True)
    assert [r["attention"]["audio"][0]["time"] for r in results] == pytest.approx([0, 1, 2], abs=0.1)
    assert all(list(r["attention"]) == ["audio"] for r in results)


def test_attention_of_a_model_with_legacy_masking():
    """It looks at padding too, up to its full length: what is shown is what it gave to the input."""
    recognize = make_pipeline(joint_sentiment=True, legacy_masking=True)
    attention = recognize({"text": "so very glad"}, return_attention=True)["attention"]
    assert [entry["word"] for entry in attention["text"]] == ["so", "very", "glad"]
    assert 0 < sum(entry["weight"] for entry in attention["text"]) < 1


def test_results_are_json(recognize, clip):
    for result in (
        recognize({"text": "so glad", "video": clip}, return_attention=True),
        recognize([clip, {"text": "well"}]),
        recognize(clip, segment_s=1.0, transcriber=Transcriber("so", "", "glad"), return_attention=True),
    ):
        assert len(json.loads(json.dumps(result, allow_nan=False))) == len(result)


# --- kinds of models


def test_emotion_model(clip):
    recognize = make_pipeline(id2label=dict(enumerate(EMOTIONS)), problem_type="multi_label_classification")
    result = recognize({"text": "so glad", "video": clip})
    assert list(result) == ["emotions", "modalities"]
    assert len(result["emotions"]) == 6


def test_regression_model():
    result = make_pipeline(num_labels=1, problem_type="regression")({"text": "so glad"})
    assert list(result) == ["sentiment", "modalities"]


def test_sentiment_classes_give_their_expected_value():
    names = ("-3", "-2", "-1", "0", "1", "2", "3")
    recognize = make_pipeline(id2label=dict(enumerate(names)), problem_type="single_label_classification")
    result = recognize({"text": "so glad"})
    assert list(result) == ["labels", "sentiment", "modalities"]
    assert sum(entry["score"] for entry in result["labels"]) == pytest.approx(1)
    expected = sum(float(entry["label"]) * entry["score"] for entry in result["labels"])
    assert result["sentiment"] == pytest.approx(expected, abs=1e-6)
    # Of all classes, however few are shown.
    assert recognize({"text": "so glad"}, top_k=1)["sentiment"] == result["sentiment"]


def test_classes_that_are_no_numbers():
    recognize = make_pipeline(id2label={0: "calm", 1: "angry", 2: "2nd"}, problem_type="single_label_classification")
    result = recognize({"text": "so glad"})
    assert list(result) == ["labels", "modalities"]
    assert {entry["label"] for entry in result["labels"]} == {"calm", "angry", "2nd"}


def test_text_model_reads_no_files(clip):
    recognize = make_pipeline(modalities=["text"], joint_sentiment=True)
    assert recognize({"text": "so glad", "video": clip})["modalities"] == ["text"]
    with pytest.raises(ValueError, match=r"for a model of text: pass \{'text': \.\.\.\} with words\.$"):
        recognize(clip)
    with pytest.raises(ValueError, match="no word in its text"):
        recognize({"text": "?"})


def test_audio_model_reads_no_words(clip):
    recognize = make_pipeline(modalities=["audio"], joint_sentiment=True)
    assert close(recognize({"text": "so glad", "video": clip}), recognize(clip))
    with pytest.raises(ValueError, match=r"for a model of audio.*: pass a file with sound\.$"):
        recognize({"text": "so glad"})


def test_a_model_whose_weights_are_broken_does_not_hide_it(recognize):
    model = make_model(joint_sentiment=True)
    model.classifier.weight.data.fill_(torch.nan)
    broken = pipeline(TASK, model=model, processor=recognize.processor)
    assert np.isnan(broken({"text": "so glad"})["sentiment"])


# --- loading


def test_loads_from_a_folder(recognize, tmp_path, clip):
    recognize.model.save_pretrained(tmp_path)
    recognize.processor.save_pretrained(tmp_path)
    loaded = pipeline(TASK, model=str(tmp_path))
    assert type(loaded) is MultimodalEmotionPipeline
    given = {"text": "so very glad", "video": clip}
    assert close(loaded(given), recognize(given))


def test_saved_by_the_pipeline_loads_again(recognize, tmp_path):
    recognize.save_pretrained(tmp_path)
    recognize.processor.save_pretrained(tmp_path)
    assert (tmp_path / "pipeline_umons.py").is_file()
    loaded = pipeline(TASK, model=str(tmp_path))
    assert close(loaded({"text": "so glad"}), recognize({"text": "so glad"}))
