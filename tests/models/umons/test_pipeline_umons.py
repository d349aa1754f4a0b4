"""The pipeline: forms of input, options and kinds of model, on generated clips."""

import io
import json
import re
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import MappingProxyType

import av
import numpy as np
import pytest
import torch
from small_pipelines import FIXTURES, RATE, TASK, Transcriber, close, make_model, make_pipeline, tone, write_media
from transformers import pipeline
from transformers.modeling_outputs import SequenceClassifierOutput

from modeling_umons import EMOTIONS, MultimodalEmotionPipeline, UmonsForSequenceClassification


recognize, sound, clip, wav, silent_clip = FIXTURES


# --- inputs


def test_joint_model_returns_sentiment_and_emotions(recognize):
    result = recognize({"text": "so very glad"})
    assert list(result) == ["sentiment", "label", "confidence", "emotions", "modalities", "warnings"]
    assert isinstance(result["sentiment"], float)
    assert {entry["label"] for entry in result["emotions"]} == set(EMOTIONS)
    scores = [entry["score"] for entry in result["emotions"]]
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 for score in scores)
    assert result["modalities"] == ["text"]


def test_forms_of_audio_agree(recognize, tmp_path, clip, wav, sound):
    (tmp_path / "clip.mkv").write_bytes(clip)
    (tmp_path / "sound.wav").write_bytes(wav)
    path = tmp_path / "clip.mkv"
    expected = recognize({"audio": sound, "sampling_rate": RATE})
    assert expected["modalities"] == ["audio"]
    stereo = np.stack([sound, sound])
    read_before = io.BytesIO(clip)
    read_before.read()
    for given in (
        read_before,
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
        {"array": sound, "sampling_rate": RATE},  # an item of a column alone
        {"raw": sound, "sampling_rate": RATE},
        {"path": str(path), "bytes": None},
        {"path": None, "bytes": clip},
        io.BytesIO(clip),
        bytearray(clip),
        MappingProxyType({"audio": memoryview(wav), "text": float("nan"), "video": np.float64("nan")}),
        {"video": io.BytesIO(clip)},
        {"audio": {"path": tmp_path / "sound.wav"}},
        {"audio": sound, "sampling_rate": np.array(RATE)},
        {"audio": sound, "sampling_rate": torch.tensor(RATE)},
    ):
        assert close(recognize(given), expected, tolerance=1e-4), given


def test_datasets_decoder(recognize, sound):
    """`datasets.Audio` decodes to an object with this interface."""

    class Decoder:
        def get_all_samples(self):
            raise NotImplementedError

        def __getitem__(self, name):
            return {"array": sound, "sampling_rate": RATE}[name]

    expected = recognize({"audio": sound, "sampling_rate": RATE})
    assert close(recognize({"audio": Decoder()}), expected)
    assert close(recognize(Decoder()), expected)


def test_datasets_decoder_reads_its_file(recognize, clip, tmp_path):
    """Records whether audio and video are decoded, for any file."""

    class VideoDecoder:
        def get_frame_at(self, index):
            raise NotImplementedError

    decoder = VideoDecoder()
    with pytest.raises(ValueError, match="a video decoder without a file"):
        recognize({"video": decoder})
    (tmp_path / "clip.mkv").write_bytes(clip)
    for encoded in ({"path": str(tmp_path / "clip.mkv"), "bytes": None}, {"path": "elsewhere.mkv", "bytes": clip}):
        decoder._hf_encoded = encoded
        assert recognize({"video": decoder}) == recognize(decoder) == recognize(clip)


def test_dataset_columns(recognize, clip, wav):
    from datasets import Audio, Dataset, Video
    from transformers.pipelines.pt_utils import KeyDataset

    rows = {"sound": [{"bytes": wav, "path": None}] * 3, "clip": [{"bytes": clip, "path": None}] * 3}
    data = Dataset.from_dict({**rows, "text": ["so", "very", "glad"]})
    data = data.cast_column("sound", Audio(decode=False)).cast_column("clip", Video(decode=False))
    for column, given in (("sound", wav), ("clip", clip)):
        results = list(recognize(KeyDataset(data, column), batch_size=2))
        assert len(results) == 3
        assert all(close(result, recognize(given)) for result in results)
    results = list(recognize(({"text": row["text"], "audio": row["sound"]} for row in data), batch_size=2))
    expected = [recognize({"text": text, "audio": wav}) for text in data["text"]]
    assert all(close(*pair) for pair in zip(results, expected, strict=True))

    data = data.rename_columns({"sound": "audio"}).remove_columns("clip")
    for rows in (data, data.to_iterable_dataset(), tuple(data), (data.with_format("numpy")[i] for i in range(3))):
        assert all(close(*pair) for pair in zip(recognize(rows, batch_size=2), expected, strict=True))
    assert [close(result, recognize(wav)) for result in recognize(data["audio"])] == [True] * 3
    predicted = data.map(lambda row: recognize(row))  # a lazy row
    assert predicted["sentiment"][:] == pytest.approx([result["sentiment"] for result in expected])


def test_url(recognize, clip, tmp_path):
    (tmp_path / "clip.mkv").write_bytes(clip)

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=tmp_path)) as server:
        Thread(target=server.serve_forever).start()
        address = f"http://127.0.0.1:{server.server_port}"
        try:
            assert close(recognize(f"{address}/clip.mkv"), recognize(clip))
            with pytest.raises(OSError, match=f"{address}/missing.mkv could not be opened"):
                recognize({"audio": f"{address}/missing.mkv"})
        finally:
            server.shutdown()


def test_audio_at_another_rate_is_resampled(recognize):
    """With its own rate, audio keeps its duration and about its prediction."""
    options = {"return_timestamps": True, "return_attention": True}
    (expected,) = recognize({"audio": tone(2.5), "sampling_rate": RATE}, **options)
    (right,) = recognize({"audio": tone(2.5, 16000), "sampling_rate": 16000}, **options)
    (wrong,) = recognize({"audio": tone(2.5, 16000), "sampling_rate": RATE}, **options)
    assert right["timestamp"] == expected["timestamp"] == (0.0, 2.5)
    assert [len(r["attention"]["audio"]) for r in (expected, right, wrong)] == [13, 13, 10]
    errors = [abs(r["sentiment"] - expected["sentiment"]) for r in (right, wrong)]
    assert errors[0] < errors[1] / 2


@pytest.mark.parametrize("options", [{}, {"chunk_length_s": 0.8}])
def test_file_equals_its_array(recognize, options):
    stereo = np.stack([tone(2.5, 48000), tone(2.5, 48000, hertz=300.0)])
    pcm = np.round(stereo * 32767).astype(np.int16)
    file = io.BytesIO()
    with av.open(file, "w", format="wav") as container:
        stream = container.add_stream("pcm_s16le", rate=48000, layout="stereo")
        frame = av.AudioFrame.from_ndarray(pcm.T.reshape(1, -1).copy(), format="s16", layout="stereo")
        frame.sample_rate = 48000
        container.mux([*stream.encode(frame), *stream.encode(None)])
    from_file = recognize(file.getvalue(), **options)
    from_array = recognize({"audio": pcm, "sampling_rate": 48000}, **options)
    pairs = zip(from_file, from_array, strict=True) if options else [(from_file, from_array)]
    assert all(close(*pair, tolerance=1e-4) for pair in pairs)


def test_text_and_audio(recognize, clip, wav):
    both = recognize({"text": "so very glad", "video": clip})
    assert both["modalities"] == ["text", "audio"]
    assert close(both, recognize({"text": "so very glad", "audio": wav}))
    alone = [recognize({"text": "so very glad"}), recognize(clip)]
    assert all(abs(both["sentiment"] - one["sentiment"]) > 1e-3 for one in alone)


def test_audio_overrides_that_of_the_video(recognize, clip):
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
    assert recognize([]) == list(recognize(one for one in ())) == []


def test_batches_equal_single_inputs(recognize, clip, silent_clip):
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


def test_long_text_is_the_mean_of_its_parts(recognize):
    result = recognize({"text": "so " * 60 + "glad " * 60})
    parts = recognize([{"text": "so " * 60}, {"text": "glad " * 60}])
    assert result["sentiment"] == pytest.approx((parts[0]["sentiment"] + parts[1]["sentiment"]) / 2, abs=1e-5)
    scores, *of_parts = ({e["label"]: e["score"] for e in r["emotions"]} for r in (result, *parts))
    for name in EMOTIONS:
        assert scores[name] == pytest.approx(np.mean([part[name] for part in of_parts]), abs=1e-5)
    (warning,) = result["warnings"]
    assert warning["code"] == "pooled"
    assert "at once (60 tokens of text): the scores are means over 2 parts" in warning["message"]


def test_parts_are_weighted_by_their_length(recognize):
    """Sixty-one words are cut in two parts of about the same length, and none is lost."""
    words = [f"{word} " for word in ("so", "very", "glad")] * 21
    seen = []
    original = recognize._process_text
    recognize._process_text = lambda text: seen.append(text) or original(text)
    try:
        recognize({"text": "".join(words)})
    finally:
        del recognize._process_text
    assert [len(text.split()) for text in seen] == [32, 31]
    assert " ".join(seen).split() == "".join(words).split()


def test_long_audio_is_the_mean_of_its_parts(recognize):
    sound = tone(30) * np.linspace(0.1, 1, 30 * RATE, dtype=np.float32)
    result = recognize({"audio": sound, "sampling_rate": RATE, "text": "so glad"}, return_attention=True)
    thirds = [recognize({"audio": p, "sampling_rate": RATE, "text": "so glad"}) for p in np.split(sound, 3)]
    assert result["sentiment"] == pytest.approx(np.mean([third["sentiment"] for third in thirds]), abs=1e-4)
    times = [entry["time"] for entry in result["attention"]["audio"]]
    assert times == sorted(times)
    assert times[-1] > 29
    for weights in result["attention"].values():
        assert sum(entry["weight"] for entry in weights) == pytest.approx(1, abs=1e-4)


def test_file_longer_than_two_minutes_is_read_to_its_end(recognize):
    quiet_then_loud = np.concatenate([tone(121) * 0.01, tone(20)])
    whole = recognize({"audio": quiet_then_loud, "sampling_rate": RATE})
    file = recognize(write_media(quiet_then_loud, container="wav"))
    start = recognize({"audio": quiet_then_loud[: 120 * RATE], "sampling_rate": RATE})
    assert whole["sentiment"] == pytest.approx(file["sentiment"], abs=1e-2)
    assert abs(whole["sentiment"] - start["sentiment"]) > 1e-3
    assert "means over 13 parts" in whole["warnings"][0]["message"]  # ten of the first two minutes, two of 21 s


def test_truncated_input_is_named(recognize):
    given = {"text": "so " * 60 + "glad " * 500}
    result = recognize(given, overflow="truncate")
    assert {**result, "warnings": []} == recognize({"text": "so " * 60})
    assert result["warnings"] == [
        {
            "code": "text_cut",
            "message": "The text has 560 tokens, and the model processes 60 at once: the rest was not used.",
        }
    ]
    long = recognize({"audio": tone(30), "sampling_rate": RATE}, return_attention=True, overflow="truncate")
    assert len(long["attention"]["audio"]) == 60
    assert "audio_cut" in [warning["code"] for warning in long["warnings"]]
    with pytest.raises(ValueError, match=r"The text has 560 tokens.*overflow='segment'"):
        recognize(given, overflow="error")
    with pytest.raises(ValueError, match="`overflow` is 'drop'"):
        recognize(given, overflow="drop")


def test_words_of_a_long_file_stay_at_their_time(recognize):
    words = [{"word": "so", "timestamp": (1.0, 2.0)}, {"word": "glad", "timestamp": (25.0, 26.0)}]
    sound = tone(30)
    result = recognize({"audio": sound, "sampling_rate": RATE, "words": words})
    thirds = [
        recognize({"audio": part, "sampling_rate": RATE, **text})
        for part, text in zip(np.split(sound, 3), ({"text": "so"}, {}, {"text": "glad"}), strict=True)
    ]
    assert result["sentiment"] == pytest.approx(np.mean([third["sentiment"] for third in thirds]), abs=1e-4)
    assert result["text"] == "so glad"
    assert result["words"] == words


def test_text_without_spaces_is_cut(recognize):
    assert recognize({"text": "so" * 5000})["modalities"] == ["text"]
    parts = recognize._split_text("so glad " * 5000)
    assert len(parts) == 167
    assert max(len(part.split()) for part in parts) <= 60


def test_strict_makes_warnings_errors(recognize):
    for given in ({"text": "so " * 61}, {"text": "\N{POUTING FACE}"}, {"text": "xqz qzx"}):
        with pytest.raises(ValueError, match=r"parts|emoji|unknown_words"):
            recognize(given, strict=True)
        assert "error" in recognize(given, strict=True, on_error="return")
        assert recognize(given, strict=False)["warnings"]
    assert recognize({"text": "so glad"}, strict=True)["warnings"] == []


# --- video frames


@pytest.fixture(scope="module")
def watch():
    """A pipeline whose model has a video tower."""
    return make_pipeline(modalities=["text", "audio", "video"], video_tower={}, joint_sentiment=True)


def test_video_tower_uses_frames(watch, clip, silent_clip):
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


def test_frames_as_arrays(watch):
    frames = np.random.default_rng(0).integers(0, 256, (20, 90, 120, 3), dtype=np.uint8)
    result = watch({"video": frames})
    assert result["modalities"] == ["video"]
    assert close(result, watch({"video": list(frames)}))
    assert watch({"video": frames, "audio": tone(1), "sampling_rate": RATE})["modalities"] == ["audio", "video"]
    segments = watch({"video": frames}, chunk_length_s=1.0, batch_size=2)
    assert [s["timestamp"] for s in segments] == [(0.0, 1.0), (1.0, pytest.approx(1.333))]
    with pytest.raises(ValueError, match=r"`video` has shape \(20, 90, 120\)"):
        watch({"video": frames[..., 0]})


def test_audio_and_video_of_two_files_share_segments(watch, clip, silent_clip):
    segments = watch({"audio": clip, "video": silent_clip}, chunk_length_s=1.0, batch_size=2)
    assert segments[0]["modalities"] == ["audio", "video"]


# --- videos without audio


@pytest.mark.parametrize("form", ["path", "bytes"])
def test_video_without_audio_uses_text(recognize, tmp_path, silent_clip, form):
    (tmp_path / "silent.mkv").write_bytes(silent_clip)
    source = str(tmp_path / "silent.mkv") if form == "path" else silent_clip
    for name in ("video", "audio"):
        result = recognize({"text": "so glad", name: source})
        assert result["modalities"] == ["text"]
        assert close(result, recognize({"text": "so glad"}))


def test_video_without_audio_and_text_raises(recognize, silent_clip):
    for given in (silent_clip, {"video": silent_clip}):
        with pytest.raises(OSError, match="contains no audio"):
            recognize(given)
    with pytest.raises(OSError, match="contains no audio"):  # a model that cannot read the text
        make_pipeline(modalities=["audio"], joint_sentiment=True)({"text": "so glad", "video": silent_clip})


def test_unreadable_file_with_text_raises(recognize, tmp_path, clip):
    (tmp_path / "broken.mkv").write_bytes(b"no clip at all" * 50)
    for source in (tmp_path / "broken.mkv", str(tmp_path / "missing.mkv"), tmp_path, clip[:40]):
        with pytest.raises(OSError, match=re.escape(str(source)) if not isinstance(source, bytes) else "40 bytes"):
            recognize({"text": "so glad", "video": source})


# --- invalid inputs


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("what a wonderful day", r"'what a wonderful day' is neither a file nor a URL.*\{'text': \.\.\.\}"),
        ("what a day " * 1000, r"neither a file nor a URL.*\{'text': \.\.\.\}"),
        ("", r"'' is neither a file nor a URL"),
        ({}, "This input has nothing for a model of text and audio: pass a `text` with words or a file with audio"),
        ({"text": ""}, r"no word in its text, '': pass"),
        ({"text": " ... "}, r"no word in its text, ' \.\.\. '"),
        ({"text": None}, "This input has nothing"),
        ({"text": 3}, "`text` must be a string, not int"),
        ({"text": ["so", "glad"]}, "`text` must be a string, not list"),
        ({"sampling_rate": 22050}, "This input has nothing"),
        ({"audio": np.zeros(100)}, "`sampling_rate` is None: pass its rate in Hz"),
        ({"audio": np.zeros(100), "sampling_rate": 0}, "`sampling_rate` is 0: pass its rate in Hz"),
        (
            {"audio": np.zeros(100), "sampling_rate": "22050"},
            "`sampling_rate` is '22050': pass its rate in Hz, a number",
        ),
        ({"audio": np.zeros(100), "sampling_rate": torch.tensor([22050])}, r"`sampling_rate` is tensor\(\[22050\]\)"),
        ({"text": "so glad", "video": 3}, "`video` is a int: pass a path, a URL, bytes, an open file or frames"),
        ({"audio": object(), "sampling_rate": 22050}, "`audio` is a object: .* or a waveform"),
        ({"text": "so glad", "video": io.StringIO("clip")}, "is open as text: open the file with mode 'rb'"),
        ({"audio": np.zeros(100), "sampling_rate": float("inf")}, "`sampling_rate` is inf"),
        ({"audio": np.zeros(100), "sampling_rate": True}, "`sampling_rate` is True"),
        ({"audio": np.zeros(100), "sampling_rate": 22050}, "its audio is silent"),
        ({"text": "so \udcff glad"}, r"`text` has the lone surrogate '\\udcff' at position 3: decode it"),
        ({"words": [{"word": "\ud83d", "timestamp": (0, 1)}]}, r"`words` has the lone surrogate '\\ud83d'"),
        ({"audio": np.zeros(0), "sampling_rate": 22050}, "is empty"),
        ({"audio": np.full(100, np.nan), "sampling_rate": 22050}, "NaN"),
        ({"audio": {"path": None, "bytes": None}}, r"`audio` is a dict of \['bytes', 'path'\]"),
        ({"audio": {"array": np.zeros(100)}}, "`sampling_rate` is None"),
        ({"words": "so glad"}, "`words` contains 'so glad': a word must be"),
        ({"words": 3}, "`words` contains 3: a word must be"),
        ({"words": [{"word": "so"}]}, r"`words` contains \{'word': 'so'\}: a word must be .* with seconds"),
        ({"words": [{"word": "so", "timestamp": (0, float("nan"))}]}, "`words` contains .*nan"),
        ({"words": [{"word": "so", "timestamp": ("0", 1)}]}, "`words` contains"),
        ({"words": [{"word": "so", "timestamp": (-1, 1)}]}, "`words` contains"),
        ({"words": [{"word": "so", "timestamp": (0, 1e12)}]}, "`words` contains .* at most 1e"),
        ({"sentence": "so glad"}, r"no \['sentence'\]: pass any of text, words, audio, sampling_rate, video"),
        (3.5, "not float"),
    ],
)
def test_invalid_inputs_raise(recognize, given, message):
    with pytest.raises(ValueError, match=message):
        recognize(given)


def test_unreadable_files_raise_with_their_name(recognize, tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no clip at all" * 50)
    for given in (str(broken), broken, {"audio": broken}):
        with pytest.raises(OSError, match=r"broken\.mp4 could not be opened as a video or audio file"):
            recognize(given)
    with pytest.raises(OSError, match=f"{tmp_path} is a folder: pass a video or audio file in it"):
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
        ({"top_k": 2.5}, "`top_k` is 2.5: pass a positive integer"),
        ({"top_k": "3"}, "`top_k` is '3'"),
        ({"top_k": True}, "`top_k` is True"),
        ({"chunk_length_s": "5"}, "`chunk_length_s` is '5'"),
        ({"chunk_length_s": True}, "`chunk_length_s` is True"),
        ({"chunk_length_s": 0}, "`chunk_length_s` is 0"),
        ({"chunk_length_s": -1.0}, "`chunk_length_s` is -1.0"),
        ({"chunk_length_s": float("inf")}, "`chunk_length_s` is inf"),
        ({"chunk_length_s": float("nan")}, "`chunk_length_s` is nan"),
        ({"on_error": "skip"}, "`on_error` is 'skip': pass 'raise' or 'return'"),
        ({"topk": 1}, r"\['topk'\]"),
    ],
)
def test_invalid_options_raise(recognize, options, message):
    with pytest.raises(ValueError, match=message):
        recognize({"text": "so glad"}, **options)


# --- options


@pytest.mark.parametrize("kind", [np.float32, np.int64, float])
def test_numpy_numbers_are_accepted(recognize, sound, clip, kind):
    given = {"audio": sound, "sampling_rate": kind(RATE)}
    results = recognize(given, chunk_length_s=kind(1), top_k=np.int64(2))
    assert json.loads(json.dumps(results)) == json.loads(json.dumps(recognize(given, chunk_length_s=1, top_k=2)))
    assert json.dumps(recognize(clip, chunk_length_s=kind(1)))


def test_top_k(recognize):
    everything = recognize({"text": "so glad"})["emotions"]
    assert recognize({"text": "so glad"}, top_k=2)["emotions"] == everything[:2]
    assert recognize({"text": "so glad"}, top_k=100)["emotions"] == everything
    chosen = pipeline(TASK, model=recognize.model, processor=recognize.processor, top_k=1)
    assert chosen({"text": "so glad"})["emotions"] == everything[:1]


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


def test_attention_times_of_segments_start_at_the_file(recognize, clip):
    results = recognize(clip, chunk_length_s=1.0, return_attention=True)
    assert [r["attention"]["audio"][0]["time"] for r in results] == pytest.approx([0, 1, 2], abs=0.1)
    assert all(list(r["attention"]) == ["audio"] for r in results)


def test_attention_of_a_model_with_legacy_masking():
    """Shows the weights of the input only; the model also attends to padding up to its full length."""
    recognize = make_pipeline(joint_sentiment=True, legacy_masking=True)
    attention = recognize({"text": "so very glad"}, return_attention=True)["attention"]
    assert [entry["word"] for entry in attention["text"]] == ["so", "very", "glad"]
    assert 0 < sum(entry["weight"] for entry in attention["text"]) < 1


def test_attention_without_glimpses_raises(recognize):
    """Such as another architecture, whose configuration has no tower and no joint sentiment."""

    class Plain(UmonsForSequenceClassification):
        def forward(self, **inputs):
            assert "output_glimpse_weights" not in inputs or self.is_asked
            return SequenceClassifierOutput(logits=super().forward(**inputs).logits)

    model = Plain(make_model(id2label=dict(enumerate(EMOTIONS)), problem_type="multi_label_classification").config)
    model.config.__dict__.pop("video_tower")
    model.config.__dict__.pop("joint_sentiment")
    model.is_asked = False
    plain = MultimodalEmotionPipeline(model=model.eval(), processor=recognize.processor, task=TASK)
    assert plain.labels == list(EMOTIONS)
    assert len(plain({"text": "so glad"})["emotions"]) == 6
    model.is_asked = True
    with pytest.raises(
        ValueError, match=r"`return_attention=True` requires a model with glimpses, which a Plain does not"
    ):
        plain({"text": "so glad"}, return_attention=True)


def test_results_are_json(recognize, clip):
    for result in (
        recognize({"text": "so glad", "video": clip}, return_attention=True),
        recognize([clip, {"text": "well"}]),
        recognize(clip, chunk_length_s=1.0, transcriber=Transcriber("all", "so", "", "glad"), return_attention=True),
    ):
        assert len(json.loads(json.dumps(result, allow_nan=False))) == len(result)


# --- kinds of models


def test_emotion_model(clip):
    recognize = make_pipeline(id2label=dict(enumerate(EMOTIONS)), problem_type="multi_label_classification")
    result = recognize({"text": "so glad", "video": clip})
    assert list(result) == ["label", "confidence", "emotions", "modalities", "warnings"]
    assert len(result["emotions"]) == 6


def test_single_emotion_has_its_name():
    config = {"num_labels": 1, "id2label": {0: "happy"}, "problem_type": "multi_label_classification"}
    (entry,) = make_pipeline(**config)({"text": "so glad"})["emotions"]
    assert entry["label"] == "happy"
    assert 0 < entry["score"] < 1


def test_regression_model():
    result = make_pipeline(num_labels=1, problem_type="regression")({"text": "so glad"})
    assert list(result) == ["sentiment", "label", "modalities", "warnings"]


def test_sentiment_classes_return_the_expected_value():
    names = ("-3", "-2", "-1", "0", "1", "2", "3")
    recognize = make_pipeline(id2label=dict(enumerate(names)), problem_type="single_label_classification")
    result = recognize({"text": "so glad"})
    assert list(result) == ["label", "confidence", "labels", "sentiment", "modalities", "warnings"]
    assert sum(entry["score"] for entry in result["labels"]) == pytest.approx(1)
    expected = sum(float(entry["label"]) * entry["score"] for entry in result["labels"])
    assert result["sentiment"] == pytest.approx(expected, abs=1e-6)
    # Of all classes, however few are shown.
    assert recognize({"text": "so glad"}, top_k=1)["sentiment"] == result["sentiment"]


def test_classes_that_are_not_numbers():
    recognize = make_pipeline(id2label={0: "calm", 1: "angry", 2: "2nd"}, problem_type="single_label_classification")
    result = recognize({"text": "so glad"})
    assert list(result) == ["label", "confidence", "labels", "modalities", "warnings"]
    assert {entry["label"] for entry in result["labels"]} == {"calm", "angry", "2nd"}


def test_text_model_ignores_files(clip):
    recognize = make_pipeline(modalities=["text"], joint_sentiment=True)
    assert recognize({"text": "so glad", "video": clip})["modalities"] == ["text"]
    with pytest.raises(ValueError, match=r"for a model of text: pass a `text` with words\.$"):
        recognize(clip)
    with pytest.raises(ValueError, match="no word in its text"):
        recognize({"text": "?"})


def test_audio_model_ignores_text(clip):
    recognize = make_pipeline(modalities=["audio"], joint_sentiment=True)
    assert close(recognize({"text": "so glad", "video": clip}), recognize(clip))
    with pytest.raises(ValueError, match=r"for a model of audio.*: pass a file with audio\.$"):
        recognize({"text": "so glad"})


def test_damaged_weights_raise(recognize):
    model = make_model(joint_sentiment=True)
    model.classifier.weight.data.fill_(torch.nan)
    broken = pipeline(TASK, model=model, processor=recognize.processor)
    with pytest.raises(ValueError, match=r"logits are NaN or infinite: its weights are damaged.*torch\.float32"):
        broken({"text": "so glad"})


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


def test_regression_returns_values_with_ranges():
    names = {0: "valence", 1: "arousal"}
    recognize = make_pipeline(
        modalities=["text"], problem_type="regression", id2label=names, label_ranges=[[1.0, 9.0], [0.0, 100.0]]
    )
    result = recognize({"text": "so very glad"})
    ids = recognize.processor.tokenizer(["so very glad"], return_tensors="pt")
    logits = recognize.model(**{name: ids[name] for name in ("input_ids", "attention_mask")}).logits[0].tolist()
    assert [entry["score"] for entry in result["values"]] == pytest.approx(logits, abs=1e-5)
    assert [(entry["label"], entry["range"]) for entry in result["values"]] == [
        ("valence", [1.0, 9.0]), ("arousal", [0.0, 100.0]),
    ]  # fmt: skip
    assert "label" not in result
    one = make_pipeline(modalities=["text"], num_labels=1, id2label={0: "valence"}, problem_type="regression")
    assert [entry.keys() for entry in one({"text": "so"})["values"]] == [{"label", "score"}]
