"""Segments of given times, and units of recordings: windows, sentences, words and turns."""

import itertools
import logging

import numpy as np
import pytest
from small_pipelines import FIXTURES, RATE, close, make_pipeline, tone, write_media

from modeling_umons.models.umons.units_umons import (
    attach_words,
    find_speaker,
    iter_sentences,
    iter_words,
    turns_of,
)


recognize, sound, clip, wav, silent_clip = FIXTURES

LONG = tone(26.0)
TIMES = [(0.0, 1.5), (1.25, 12.4), (9.9, 10.1), (13.0, 13.7), (19.3, 25.0)]  # with overlaps, gaps and windows across
WORDS = [
    {"word": "so", "timestamp": (0.1, 0.4)},
    {"word": "very", "timestamp": (1.0, 1.6)},
    {"word": "glad", "timestamp": (13.1, 13.5)},
]


def utterance(start, end, *words):
    """An utterance with words that are equally long."""
    step = (end - start) / max(1, len(words))
    timed = [{"word": word, "timestamp": (start + i * step, start + (i + 1) * step)} for i, word in enumerate(words)]
    return {"timestamp": (start, end), "words": timed, "text": " ".join(words), "warnings": []}


def texts(units):
    return [unit["text"] for unit in units]


@pytest.mark.parametrize("form", ["file", "waveform"])
def test_segment_of_given_times_equals_its_cut(recognize, form):
    waveform = np.round(LONG * 32767).astype(np.int16)
    given = {"audio": waveform, "sampling_rate": RATE}
    if form == "file":
        given = {"video": write_media(LONG, container="wav")}
    results = recognize({**given, "words": WORDS, "segments": TIMES})
    assert [result["timestamp"] for result in results] == TIMES
    assert [result["text"] for result in results] == ["so very", "very", "", "glad", ""]
    streamed = recognize.stream({**given, "words": WORDS, "segments": TIMES}, batch_size=2)
    assert all(close(one, other) for one, other in zip(streamed, results, strict=True))
    for (start, end), result in zip(TIMES, results, strict=True):
        cut = {"audio": waveform[round(start * RATE) : round(end * RATE)], "sampling_rate": RATE}
        alone = recognize({**cut, "text": result["text"]} if result["text"] else cut)
        assert close({name: result[name] for name in alone}, alone)


def test_segment_keeps_its_text_and_speaker(recognize, clip):
    segments = [{"timestamp": (0, 1), "text": "so glad", "speaker": "A"}, {"timestamp": [1, 9], "words": WORDS[1:2]}]
    first, second = recognize({"video": clip, "segments": segments})
    assert (first["text"], first["speaker"], first["timestamp"]) == ("so glad", "A", (0.0, 1.0))
    assert (second["text"], second["timestamp"]) == ("very", (1.0, 2.5))
    speakers = [{"speaker": "B", "timestamp": (0, 2)}]
    turn, *_ = recognize({"video": clip, "speakers": speakers, "words": WORDS}, granularity="turn")
    assert (turn["speaker"], turn["text"], turn["timestamp"]) == ("B", "so very", (0.0, 2.0))


@pytest.mark.parametrize(
    ("segments", "message"),
    [
        ([(1, 2), (0.5, 1)], r"Segment 1 begins at 0\.5 s, before the previous one"),
        ([(0, 1), (3, 4)], r"Segment 1, 3 to 4 s, is after the end of the file, 2\.5 s"),
        ([(2, 1)], r"`segments` contains \(2, 1\): a segment must be \(start, end\)"),
        ([{"text": "so"}], "`segments` contains"),
        ([(0, float("nan"))], "`segments` contains"),
    ],
)
def test_invalid_segments_raise(recognize, clip, segments, message):
    with pytest.raises(ValueError, match=message):
        recognize({"video": clip, "segments": segments})


def test_short_segment_has_no_audio(recognize, clip):
    (result,) = recognize({"video": clip, "segments": [(1.0, 1.02)]})
    assert result["modalities"] == []
    assert [warning["code"] for warning in result["warnings"]] == ["short_audio"]


def test_hop_overlaps_windows(recognize, clip):
    results = recognize({"video": clip, "words": WORDS[:2]}, chunk_length_s=1.0, hop_length_s=0.5)
    assert [result["timestamp"] for result in results] == [(0, 1), (0.5, 1.5), (1, 2), (1.5, 2.5), (2, 2.5)]
    assert [result["text"] for result in results] == ["so", "very", "very", "", ""]
    waveform = {"audio": LONG, "sampling_rate": RATE}
    plain = recognize(waveform, chunk_length_s=4.0)
    hopped = recognize(waveform, chunk_length_s=4.0, hop_length_s=4.0, granularity="window")
    assert [result["sentiment"] for result in hopped] == pytest.approx([result["sentiment"] for result in plain])
    text_only = make_pipeline(modalities=["text"], joint_sentiment=True)
    results = text_only({"words": WORDS}, chunk_length_s=8.0, hop_length_s=4.0)
    assert [result["text"] for result in results] == ["so very", "", "glad", "glad"]


def test_invalid_granularity_raises(recognize, clip):
    for options, message in (
        ({"granularity": "phrase"}, "`granularity` is 'phrase': pass one of 'window', 'utterance'"),
        ({"hop_length_s": 0}, "`hop_length_s` is 0: pass a positive"),
        ({"granularity": "word"}, r"requires words: pass `transcriber` \(`--transcriber`\), or `words`"),
        ({"granularity": "turn"}, "requires `speakers`"),
    ):
        with pytest.raises(ValueError, match=message):
            recognize(clip, **options)
    with pytest.raises(ValueError, match="`speakers` contains"):
        recognize({"video": clip, "speakers": [(0, 1)]}, granularity="turn")
    with pytest.raises(ValueError, match="There is no audio and no word with its time"):
        recognize({"text": "so glad"}, granularity="utterance")


def test_utterances_of_words_without_audio(recognize):
    results = recognize({"words": WORDS}, granularity="utterance")
    assert [(result["timestamp"], result["text"]) for result in results] == [
        ((0.1, 0.4), "so"), ((1.0, 1.6), "very"), ((13.1, 13.5), "glad"),
    ]  # fmt: skip


def test_sentences_end_with_marks_and_long_pauses():
    units = [
        utterance(0, 4, "I", "met", "Dr.", "No.", "Was", "it"),
        utterance(5, 6, "nice?"),
        utterance(6.5, 7),  # laughter
        utterance(8, 9, "Well"),
        utterance(12, 13, "yes."),
    ]
    found = list(iter_sentences(units))
    assert texts(found) == ["I met Dr. No.", "Was it nice?", "", "Well", "yes."]
    assert found[1]["timestamp"] == (pytest.approx(8 / 3), 6)
    assert found[2]["timestamp"] == (6.5, 7)


def test_word_context_is_in_its_utterance():
    long = utterance(10, 20, *"abcdefghij")
    found = list(iter_words([utterance(0, 2, "so", "glad"), long, utterance(21, 22)]))
    assert texts(found) == ["so", "glad", *"abcdefghij", ""]
    assert [unit["context"]["timestamp"] for unit in found[:2]] == [(0, 2), (0, 2)]
    assert [unit["context"]["text"] for unit in found[:2]] == ["so glad", "so glad"]
    assert found[2]["context"]["timestamp"] == (10, 13)
    assert found[6]["context"] == {"timestamp": (13, 16), "text": "d e f", "words": long["words"][3:6]}
    assert found[11]["context"]["timestamp"] == (17, 20)


def test_word_prediction_is_of_its_context(recognize):
    words = [{"word": word, "timestamp": (i, i + 0.9)} for i, word in enumerate(["so", "very", "glad", "well"])]
    results = recognize({"words": words}, granularity="word")
    assert [(result["text"], result["context"]["text"]) for result in results] == [
        ("so", "so very glad"), ("very", "so very glad"), ("glad", "very glad well"), ("well", "very glad well"),
    ]  # fmt: skip
    for word, result in zip(words, results, strict=True):
        assert (result["words"], result["timestamp"]) == ([word], word["timestamp"])
        alone = recognize({"text": result["context"]["text"]})
        assert close({name: result[name] for name in alone}, alone)


def test_turns_have_the_words_of_their_time():
    speakers = [{"speaker": "B", "timestamp": (2, 4)}, {"speaker": "A", "timestamp": (0, 2.5)}]
    found = list(attach_words(turns_of(speakers), iter([utterance(0, 4, *"abcdefgh")])))
    assert [(unit["speaker"], unit["text"]) for unit in found] == [("A", "a b c d e"), ("B", "e f g h")]
    assert find_speaker((2, 5), speakers) == "B"
    assert find_speaker((5, 6), speakers) is None


def test_word_whose_middle_is_a_boundary_belongs_to_the_later_unit(recognize):
    turns = [{"speaker": "A", "timestamp": (0, 2.25)}, {"speaker": "B", "timestamp": (2.25, 4)}]
    found = list(attach_words(turns_of(turns), iter([utterance(0, 4, *"abcdefgh")])))
    assert texts(found) == ["a b c d", "e f g h"]
    words = [{"word": "so", "timestamp": (0.75, 1.25)}]
    segments = recognize({"audio": LONG, "sampling_rate": RATE, "words": words, "segments": [(0, 1), (1, 2)]})
    assert [result["text"] for result in segments] == ["", "so"]


def test_words_between_turns_are_logged(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    monkeypatch.setattr(logging.getLogger("modeling_umons"), "propagate", True)
    speakers = [{"speaker": "A", "timestamp": (0, 1)}, {"speaker": "A", "timestamp": (2, 4)}]
    found = list(attach_words(turns_of(speakers), iter([utterance(0, 4, *"abcdefgh")])))
    assert texts(found) == ["a b", "e f g h"]
    assert "2 words are in no segment, and are dropped: 'c d'" in caplog.text


def test_units_need_word_times():
    untimed = {"timestamp": (0, 1), "words": [], "text": "so glad", "warnings": []}
    for cut in (iter_sentences, iter_words, lambda units: attach_words(itertools.repeat(untimed, 1), iter(units))):
        with pytest.raises(ValueError, match="the times of words"):
            list(cut([untimed]))
