"""Live predictions equal those of the whole recording, in whatever chunks it arrives."""

import itertools
import tracemalloc

import numpy as np
import pytest
from small_pipelines import FIXTURES, RATE, WORDS, close, make_pipeline, tone

from modeling_umons.models.umons.live_umons import LiveStream
from modeling_umons.models.umons.media_umons import Resampler, resample


recognize, sound, *_ = FIXTURES
OPTIONS = {"hop_length_s": 0.3, "chunk_length_s": 1.0}


def push_all(stream, samples, size: int) -> list[dict]:
    """Push samples in chunks of `size`, flush, and return the events."""
    events = []
    for first in range(0, len(samples), size):
        events += stream.push(samples[first : first + size])
    return events + stream.flush()


def assert_same(events: list[dict], others: list[dict]):
    assert len(events) == len(others)
    assert all(close(*pair) for pair in zip(events, others, strict=True))


def without(event: dict, *names: str) -> dict:
    return {name: value for name, value in event.items() if name not in names}


@pytest.mark.parametrize("rate", [RATE, 8_000, 16_000, 44_100, 48_000])
@pytest.mark.parametrize("dtype", ["float32", "int16"])
def test_final_events_equal_segments(recognize, rate, dtype):
    samples = tone(2.5, rate)
    samples = samples if dtype == "float32" else np.round(samples * 32767).astype(np.int16)
    events = push_all(recognize.live(rate, **OPTIONS), samples, rate // 50)
    finals = [without(event, "is_final") for event in events if event["is_final"]]
    assert_same(finals, recognize({"audio": samples, "sampling_rate": rate}, chunk_length_s=1.0))
    assert [event["timestamp"] for event in finals] == [(0, 1), (1, 2), (2, 2.5)]


@pytest.mark.parametrize("size", [1, 160, 7_001, 10**6])
def test_chunk_size_changes_nothing(recognize, size):
    samples = tone(1.4, 16_000)
    expected = push_all(recognize.live(16_000, **OPTIONS), samples, 1_000)
    assert_same(push_all(recognize.live(16_000, **OPTIONS), samples, size), expected)


def test_every_event_equals_the_prediction_of_its_samples(recognize, sound):
    events = push_all(recognize.live(**OPTIONS), sound, 441)
    ends = [event["timestamp"][1] for event in events]
    assert ends == [0.3, 0.6, 1.0, 1.3, 1.6, 2.0, 2.3, 2.5]
    assert [event["timestamp"][1] for event in events if event["is_final"]] == [1.0, 2.0, 2.5]
    for event in events[:-1]:
        start, end = event["timestamp"]
        assert start == pytest.approx(max(0.0, end - 1.0))
        samples = sound[round(start * RATE) : round(end * RATE)]
        expected = recognize({"audio": samples, "sampling_rate": RATE})
        assert close(without(event, "timestamp", "is_final"), expected)


def test_default_window_is_the_maximum_of_the_model(recognize):
    stream = recognize.live()
    assert stream.chunk_length_s == recognize.processor.max_duration
    events = push_all(stream, tone(12.6), RATE)
    assert [event["timestamp"][1] for event in events[-4:]] == [11.5, 11.973, 12.473, 12.6]
    assert [event["is_final"] for event in events[-4:]] == [False, True, False, True]


def test_short_remainder_is_dropped_as_of_files(recognize):
    samples = tone(1.05)
    events = push_all(recognize.live(**OPTIONS), samples, 500)
    assert [event["timestamp"] for event in events if event["is_final"]] == [(0, 1)]
    assert len(recognize({"audio": samples, "sampling_rate": RATE}, chunk_length_s=1.0)) == 1
    assert [event["timestamp"] for event in push_all(recognize.live(**OPTIONS), samples[:2000], 500)] == [(0, 0.091)]


def test_stereo_and_silence(recognize):
    stream = recognize.live(**OPTIONS)
    (event,) = stream.push(np.zeros((2, round(0.3 * RATE)), np.int16))
    assert event["modalities"] == []
    assert [warning["code"] for warning in event["warnings"]] == ["silent"]
    assert recognize.live().flush() == []


def test_warnings_name_a_low_sampling_rate(recognize):
    (event,) = recognize.live(4_000, **OPTIONS).push(tone(0.4, 4_000))
    assert "sampling_rate" in [warning["code"] for warning in event["warnings"]]


def test_bad_chunk_raises_and_is_left_out(recognize, sound):
    stream = recognize.live(**OPTIONS)
    stream.push(sound[:5_000])
    for wrong, message in (([np.nan] * 10, "NaN"), (["a"], "type"), ([3e4, 1.0], "up to 30000")):
        with pytest.raises(ValueError, match=message):
            stream.push(np.asarray(wrong))
    assert stream.push(np.zeros(0)) == []
    assert_same(stream.push(sound[5_000:]) + stream.flush(), push_all(recognize.live(**OPTIONS), sound, len(sound)))
    with pytest.raises(ValueError, match="flushed"):
        stream.push(sound)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hop_length_s": 0}, "`hop_length_s` is 0"),
        ({"hop_length_s": 3, "chunk_length_s": 2}, "`hop_length_s` is 3"),
        ({"chunk_length_s": float("nan")}, "`chunk_length_s` is nan"),
        ({"chunk_length_s": 1e6}, "`chunk_length_s` is 1000000.0"),
        ({"sampling_rate": "16k"}, "`sampling_rate` is '16k'"),
        ({"sampling_rate": float("inf")}, "`sampling_rate` is inf"),
        ({"sampling_rate": 10}, "sampling_rate=10 is not between 1000"),
        ({"top_k": 0}, "`top_k` is 0"),
        ({"colour": 1}, "colour"),
    ],
)
def test_wrong_option_raises(recognize, options, message):
    with pytest.raises(ValueError, match=message):
        recognize.live(**options)


def test_model_without_audio_raises():
    with pytest.raises(ValueError, match="has no audio"):
        make_pipeline(modalities=["text"]).live()


def test_only_latest_leaves_out_obsolete_events(recognize, sound):
    stream = recognize.live(**OPTIONS, only_latest=True)
    events = stream.push(sound)
    assert [(event["timestamp"][1], event["is_final"]) for event in events] == [(1.0, True), (2.0, True), (2.3, False)]


def test_failed_prediction_does_not_end_the_stream(recognize, sound):
    stream = recognize.live(**OPTIONS, strict=True)
    with pytest.raises(ValueError, match="silent"):
        stream.push(np.zeros(round(0.3 * RATE), np.float32))
    assert recognize.live(**OPTIONS, strict=True, on_error="return").push(sound[: RATE // 2] * 0)[0]["error"]


def test_failed_prediction_keeps_the_rest_of_its_chunk(recognize, sound):
    outcomes = iter([ValueError("broken"), *[[{"warnings": []}]] * 10])

    def predict(inputs):
        if isinstance(outcome := next(outcomes), ValueError):
            raise outcome
        return outcome

    stream = LiveStream(recognize, predict=predict, **OPTIONS)
    with pytest.raises(ValueError, match="broken"):
        stream.push(sound)
    events = stream.push(np.zeros(1, np.float32)) + stream.flush()
    assert [event["timestamp"] for event in events if event["is_final"]] == [(0, 1), (1, 2), (2, 2.5)]


def test_memory_is_bounded(recognize):
    """Push a simulated hour, of which the second half allocates nothing that stays."""
    stream = LiveStream(recognize, 16_000, predict=lambda inputs: [{"warnings": []}])
    chunk = (tone(20.0, 16_000) * 32767).astype(np.int16)
    tracemalloc.start()
    try:
        for minute in range(60):
            for _ in range(3):
                stream.push(chunk)
            if minute == 29:
                before, _ = tracemalloc.get_traced_memory()
                tracemalloc.reset_peak()
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert stream.duration == 3_600
    assert after - before < 200_000
    assert peak - before < 10e6


def test_resampler_equals_resampling_at_once():
    samples = tone(1.0, 44_100)
    resampler = Resampler(44_100, 16_000)
    parts = [resampler.push(samples[i : i + 333]) for i in range(0, len(samples), 333)]
    np.testing.assert_allclose(
        np.concatenate([*parts, resampler.flush()]), resample(samples, 44_100, 16_000), atol=1e-6
    )


# --- words


class SlowSpeaker:
    """A transcriber of a recording with one word each 0.4 s; the last word is heard wrong until it is over."""

    def __init__(self, words: list[str]):
        self.words, self.times = words, []

    def __call__(self, audio, return_timestamps):
        samples, rate = audio["raw"], audio["sampling_rate"]
        marks = np.flatnonzero(samples > 0.9)  # a click begins each word, its number is the height
        self.times.append(len(samples) / rate)
        chunks = []
        for mark in marks:
            start, number = mark / rate, round((float(samples[mark]) - 0.9) * 1000)
            is_over = len(samples) / rate >= start + 0.35
            text = self.words[number] if is_over else f"noise{len(self.times)}"
            chunks.append({"text": f" {text}", "timestamp": (start, start + 0.35)})
        return {"text": "".join(chunk["text"] for chunk in chunks), "chunks": chunks}


@pytest.fixture(scope="module")
def reader():
    return make_pipeline(joint_sentiment=True, modalities=["text", "audio"])


def speak(number: int) -> np.ndarray:
    samples = tone(0.4 * number) * 0.5
    for index in range(number):
        samples[round(0.4 * index * RATE) + 1] = 0.9001 + index / 1000
    return samples


def test_words_settle(reader):
    said = (WORDS * 4)[:20]
    transcriber = SlowSpeaker(said)
    stream = reader.live(hop_length_s=0.3, chunk_length_s=2.0, transcriber=transcriber)
    events = push_all(stream, speak(20), 2_000)
    assert "noise" in " ".join(event["text"] for event in events if not event["is_final"])
    finals = [event for event in events if event["is_final"]]
    assert " ".join(event["text"] for event in finals).split() == said
    times = [word["timestamp"][0] for event in finals for word in event["words"]]
    np.testing.assert_allclose(times, 0.4 * np.arange(20), atol=0.01)
    assert all(event["modalities"] == ["text", "audio"] for event in finals)


class UnsteadySpeaker(SlowSpeaker):
    """The times of words differ by up to 60 ms between transcriptions, as those of Whisper."""

    def __call__(self, audio, return_timestamps):
        output = super().__call__(audio, return_timestamps)
        for chunk in output["chunks"]:
            start, end = chunk["timestamp"]
            chunk["timestamp"] = (start + 0.03 * (len(self.times) % 3), end)
        return output


def test_settled_words_are_not_repeated(reader):
    said = (WORDS * 4)[:20]
    stream = reader.live(hop_length_s=0.3, chunk_length_s=2.0, transcriber=UnsteadySpeaker(said))
    events = push_all(stream, speak(20), 2_000)
    assert " ".join(event["text"] for event in events if event["is_final"]).split() == said
    for event in events:
        texts = [word["word"] for word in event["words"]]
        assert all(one != other for one, other in itertools.pairwise(texts))


def test_transcribed_audio_is_bounded(reader):
    transcriber = SlowSpeaker((WORDS * 10)[:60])
    push_all(reader.live(hop_length_s=0.5, chunk_length_s=2.0, transcriber=transcriber), speak(60), RATE)
    assert max(transcriber.times) < 9.5
    pauses = SlowSpeaker(WORDS)
    stream = reader.live(hop_length_s=0.5, chunk_length_s=2.0, transcriber=pauses)
    push_all(stream, tone(20.0) * 0.5, RATE)
    assert max(pauses.times) < 9.5
    assert stream.words.first > 10 * RATE


def test_transcriber_without_times_raises(reader, sound):
    stream = reader.live(**OPTIONS, transcriber=lambda audio, **options: {"text": "so glad"})
    with pytest.raises(ValueError, match="no times of words"):
        stream.push(sound)
