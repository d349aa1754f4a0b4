# Copyright 2026 The modeling_umons authors.
# SPDX-License-Identifier: MIT
"""Requests of strangers: what is read, what is refused, and what is answered."""

import base64
import json
import time

import pytest
from transformers import pipeline

from modeling_umons.serving import fetch as fetch_umons
from modeling_umons.serving import request_handling as requests_umons
from modeling_umons.serving.fetch import fetch_media
from modeling_umons.serving.request_handling import (
    Job,
    Limits,
    RequestError,
    advance,
    answer,
    from_query,
    parse_json,
    read_request,
)


@pytest.fixture(scope="module")
def recognize(root):
    return pipeline("multimodal-emotion-recognition", model=str(root / "hub" / "umons-mini"))


@pytest.fixture(scope="module")
def clip(root) -> bytes:
    return (root / "hub" / "sample" / "clips" / "000.mp4").read_bytes()


def refusal(data, status: int = 400, limits: Limits = Limits()) -> str:  # noqa: B008
    with pytest.raises(RequestError) as caught:
        read_request(data, limits)
    assert caught.value.status == status
    return str(caught.value)


# ---- reading ----


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"inputs": ', "no JSON"),
        (b"\xff\xfe{}", "no JSON in UTF-8"),
        (b'{"inputs": NaN}', "NaN, which is no JSON"),
        (b'{"parameters": {"chunk_length_s": -Infinity}}', "-Infinity, which is no JSON"),
        (b"[" * 40_000, "nested too deeply"),
        (b'{"a":' * 40_000, "nested too deeply"),
        (b"1" * 10_000, "no JSON"),
        (b"", "no JSON"),
    ],
    ids=["cut", "utf16", "nan", "infinity", "lists", "objects", "digits", "empty"],
)
def test_no_json(body, words):
    with pytest.raises(RequestError, match=words) as caught:
        parse_json(body)
    assert caught.value.status == 400
    assert len(str(caught.value)) < 300


def test_json_of_too_many_parts_is_not_even_read(monkeypatch):
    monkeypatch.setattr(json, "loads", lambda *args, **options: pytest.fail("it was read"))
    for part in (b"{},", b"[],", b'"",', b"["):
        with pytest.raises(RequestError, match="more than 50000 objects") as caught:
            parse_json(bytearray(b'{"inputs": [' + part * 60_000))
        assert caught.value.status == 413


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ([], '"inputs"'),
        ({"text": "so glad"}, '"inputs"'),
        ({"inputs": {"text": "so"}, "options": {}}, "A request has no 'options'"),
        ({"inputs": None}, "not null"),
        ({"inputs": 3}, "not a number"),
        ({"inputs": [["a"]]}, "not a list"),
        ({"inputs": {}}, "nothing in an input"),
        ({"inputs": {"text": None}}, "nothing in an input"),
        ({"inputs": []}, "0 inputs"),
        ({"inputs": {"words": "so"}}, "An input has no 'words'"),
        ({"inputs": {"text": ["so"]}}, "not a list"),
        ({"inputs": {"text": "\ud800"}}, "surrogate"),
        ({"inputs": "what a wonderful day"}, "no http(s) URL"),
        ({"inputs": "/etc/passwd"}, "no http(s) URL"),
        ({"inputs": "file:///etc/passwd"}, "no http(s) URL"),
        ({"inputs": {"audio": "file:///etc/passwd"}}, "neither base64 nor an http(s) URL"),
        ({"inputs": {"audio": "ftp://example.com/a.wav"}}, "neither base64 nor an http(s) URL"),
        ({"inputs": {"audio": "concat:a.wav|b.wav"}}, "neither base64 nor an http(s) URL"),
        ({"inputs": {"audio": "data:text/html;base64,AAAA"}}, "not of sound or video"),
        ({"inputs": {"audio": "data:audio/wav,abc"}}, "not of sound or video"),
        ({"inputs": {"audio": ""}}, "`audio` is empty"),
        ({"inputs": {"video": [1, 2]}}, "not a list"),
        ({"inputs": {"text": "so"}, "parameters": []}, "`parameters` is an object"),
        ({"inputs": {"text": "so"}, "parameters": {"transcriber": "x"}}, "`parameters` has no 'transcriber'"),
        ({"inputs": {"text": "so"}, "parameters": {"top_k": 0}}, "`top_k` is 0"),
        ({"inputs": {"text": "so"}, "parameters": {"top_k": True}}, "`top_k` is True"),
        ({"inputs": {"text": "so"}, "parameters": {"return_attention": "yes"}}, "true or false"),
        ({"inputs": b"x", "parameters": {"chunk_length_s": float("inf")}}, "`chunk_length_s` is inf"),
        ({"inputs": b"x", "parameters": {"chunk_length_s": float("nan")}}, "`chunk_length_s` is nan"),
        ({"inputs": b"x", "parameters": {"chunk_length_s": 1e9}}, "120 at most"),
        ({"inputs": b"x", "parameters": {"chunk_length_s": -1}}, "more than 0"),
        ({"inputs": {"text": "so"}, "parameters": {"chunk_length_s": 2}}, "cannot be cut into segments"),
    ],
    ids=lambda value: None if isinstance(value, str) else "data",
)
def test_a_wrong_request_is_refused_in_words(data, words):
    assert words in refusal(data)


def test_limits_of_a_request(clip):
    small = Limits(max_media_bytes=1000, max_inputs=2, max_text_length=10)
    assert "11 characters" in refusal({"inputs": {"text": "x" * 11}}, 413, small)
    assert "3 inputs" in refusal({"inputs": [{"text": "x"}] * 3}, 413, small)
    assert "too large" in refusal({"inputs": {"audio": base64.b64encode(clip).decode()}}, 413, small)
    assert "too large" in refusal({"inputs": clip}, 413, small)
    half = base64.b64encode(clip[:600]).decode()
    assert len(read_request({"inputs": {"audio": half}}, small).inputs[0]["audio"]) == 600
    assert "too large" in refusal({"inputs": [{"audio": half}, {"audio": half}]}, 413, small)  # of all together
    assert "too large" in refusal({"inputs": {"audio": half, "video": half}}, 413, small)


def test_forms_of_media(clip):
    text = base64.encodebytes(clip).decode()  # in lines, as the command base64 writes them
    plain = text.replace("\n", "")
    for value in (
        clip,
        bytearray(clip),
        text,
        plain,
        f"data:video/mp4;base64,{plain}",
        f"data:AUDIO/x;base64,{plain}",
    ):
        request = read_request({"inputs": {"video": value}})
        assert request.inputs == [{"video": clip}]
        assert not request.has_urls
    assert read_request({"inputs": clip}).inputs == [{"video": clip}]
    request = read_request({"inputs": ["HTTPS://example.com/a.mp4", {"text": "so", "audio": clip}]})
    assert request.inputs == [{"video": "HTTPS://example.com/a.mp4"}, {"text": "so", "audio": clip}]
    assert request.has_urls
    assert request.is_list
    assert request.media_bytes == len(clip)


def test_a_text_is_no_url_to_fetch():
    request = read_request({"inputs": {"text": "http://127.0.0.1/"}})
    assert not request.has_urls
    fetch_media(request, Limits(), lambda address, port: pytest.fail("nothing is to be fetched"))
    assert request.inputs == [{"text": "http://127.0.0.1/"}]


def test_options_in_a_query(clip):
    query = {"text": "so", "top_k": "2", "return_attention": "True"}
    request = read_request(from_query(query, clip))
    assert request.inputs == [{"text": "so", "video": clip}]
    assert request.parameters == {"top_k": 2, "return_attention": True}
    assert read_request(from_query({"chunk_length_s": "1.5"}, clip)).parameters == {"chunk_length_s": 1.5}
    for query in ({"top_k": "many"}, {"chunk_length_s": "nan"}, {"return_timestamps": "yes"}, {"model": "x"}):
        with pytest.raises(RequestError):
            read_request(from_query(query, clip))


# ---- answers ----


def test_requests_that_share_a_batch_are_answered_as_alone(recognize, clip):
    requests = [
        read_request({"inputs": {"text": "what a wonderful day"}, "parameters": {"top_k": 1}}),
        read_request({"inputs": clip, "parameters": {"chunk_length_s": 1}}),
        read_request({"inputs": [{"text": "so sad"}, b"no clip at all" * 9, {"audio": clip, "text": "so"}]}),
        read_request({"inputs": b"nothing" * 20}),
        read_request({"inputs": {"text": "..."}}),
        read_request({"inputs": {"video": clip}, "parameters": {"return_attention": True}}),
    ]
    together = answer(recognize, requests, batch_size=4)
    for request, found in zip(requests, together, strict=True):
        (alone,) = answer(recognize, [request], batch_size=1)
        assert str(alone) == str(found) or json.loads(json.dumps(found), parse_float=lambda x: round(float(x), 4)) == (
            json.loads(json.dumps(alone), parse_float=lambda x: round(float(x), 4))
        )
    assert len(together[0]["emotions"]) == 1
    assert len(together[1]) == 3
    assert together[1][0]["timestamp"] == (0.0, 1.0)
    assert "could not be opened" in together[2][1]["error"]
    assert together[2][2]["modalities"] == ["text", "audio"]
    assert (together[3].status, together[4].status) == (422, 422)
    assert "no word in its text" in str(together[4])
    assert together[0]["sentiment"] == pytest.approx(
        recognize({"text": "what a wonderful day"})["sentiment"], abs=1e-5
    )


def test_long_clips_are_read_no_further_than_the_limit(recognize, clip):
    request = read_request({"inputs": clip, "parameters": {"chunk_length_s": 0.2}})
    (found,) = answer(recognize, [request], Limits(max_media_s=2.0))
    assert (found.status, "longer than 2 s" in str(found)) == (413, True)
    (found,) = answer(recognize, [request], Limits(max_segments=5))
    assert (found.status, "More than 5 segments" in str(found)) == (413, True)
    request.deadline = time.monotonic() - 1
    (found,) = answer(recognize, [request])
    assert found.status == 504


def test_the_seconds_of_all_media_of_a_request_count(recognize, clip):
    for parameters in ({}, {"chunk_length_s": 1}):
        request = read_request({"inputs": [clip] * 4, "parameters": parameters})
        (found,) = answer(recognize, [request], Limits(max_media_s=6.0))  # a clip has 2.74
        assert ["error" in one for one in found] == [False, False, True, True]
        assert "longer than 6 s together" in found[2]["error"]
        (found,) = answer(recognize, [request], Limits(max_media_s=11.0))
        assert not any("error" in one for one in found)


def test_small_requests_do_not_wait_for_a_large_one(recognize, clip):
    """And large ones have open files only as many as a batch has room."""
    large = [
        Job(recognize, read_request({"inputs": [clip] * 8, "parameters": {"chunk_length_s": 0.5}})) for _ in range(3)
    ]
    assert advance(large, batch_size=2) == 2
    assert sum(job.spent_s > 0 for job in large) == 2
    small = [Job(recognize, read_request({"inputs": inputs})) for inputs in ({"text": "so glad"}, clip)]
    assert advance(large + small, batch_size=2) == 2
    assert all(job.is_done for job in small)
    assert not any(job.is_done for job in large)
    assert small[0].result["modalities"] == ["text"]
    assert advance(large, batch_size=8, seconds=0) == 1  # the time of a round is up after one segment
    while not all(job.is_done for job in large):
        assert advance(large, batch_size=8) > 0
    assert [len(found) for found in large[0].result] == [6] * 8


def test_an_input_that_breaks_the_model_breaks_alone(recognize, monkeypatch, caplog):
    """Whatever fails inside: the words for the client hold nothing of it."""
    real = recognize.forward

    def forward(model_inputs, **options):
        if "break" in str(model_inputs["text"]):
            raise RuntimeError("/secret/place is broken")
        return real(model_inputs, **options)

    monkeypatch.setattr(recognize, "forward", forward)
    requests = [read_request({"inputs": {"text": text}}) for text in ("so glad", "break", "so sad")]
    first, second, third = answer(recognize, requests)
    assert first["modalities"] == third["modalities"] == ["text"]
    assert second.status == 500
    assert "secret" not in str(second)

    def preprocess(*args, **options):
        raise FileNotFoundError(2, "No such file", "/secret/place")
        yield

    monkeypatch.setattr(recognize, "preprocess", preprocess)
    (found,) = answer(recognize, requests[:1])
    assert found.status == 500
    assert "secret" not in str(found)


def test_the_modules_stand_alone(root):
    """A handler imports it as a plain sibling."""
    for module in (fetch_umons, requests_umons):
        name = module.__name__.rpartition(".")[2] + ".py"
        assert (root / "hub" / "endpoint" / name).resolve() == root / "modeling_umons" / name
        source = (root / "modeling_umons" / name).read_text(encoding="utf-8")
        assert "from ." not in source
        assert "import modeling_umons" not in source
