"""Requests of untrusted clients: validation, limits and predictions."""

import base64
import json
import time
from collections import deque

import pytest
from transformers import pipeline

from modeling_umons.serving.request_handling import (
    Job,
    Limits,
    RequestError,
    parse_fields,
    parse_json,
    predict,
    read_request,
    run_batch,
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


# ---- validation ----


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"inputs": ', "not valid JSON"),
        (b"\xff\xfe{}", "not valid JSON in UTF-8"),
        (b'{"inputs": NaN}', "^NaN is not valid JSON"),
        (b'{"parameters": {"chunk_length_s": -Infinity}}', "^-Infinity is not valid JSON"),
        (b"[" * 40_000, "nested too deeply"),
        (b'{"a":' * 40_000, "nested too deeply"),
        (b"1" * 10_000, "not valid JSON"),
        (b"", "not valid JSON"),
    ],
    ids=["cut", "utf16", "nan", "infinity", "lists", "objects", "digits", "empty"],
)
def test_parse_json_refuses_invalid_json(body, message):
    with pytest.raises(RequestError, match=message) as caught:
        parse_json(body)
    assert caught.value.status == 400
    assert len(str(caught.value)) < 300


def test_parse_json_accepts_byte_order_mark():
    assert parse_json(bytearray(b'\xef\xbb\xbf{"inputs": "a"}')) == {"inputs": "a"}


def test_parse_json_counts_parts_before_parsing(monkeypatch):
    monkeypatch.setattr(json, "loads", lambda *args, **options: pytest.fail("the body was parsed"))
    for part in (b"{},", b"[],", b'"",', b"["):
        with pytest.raises(RequestError, match="more than 50000 objects") as caught:
            parse_json(bytearray(b'{"inputs": [' + part * 60_000))
        assert caught.value.status == 413


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], '"inputs"'),
        ({"text": "so glad"}, '"inputs"'),
        ({"inputs": {"text": "so"}, "options": {}}, "A request has no 'options'"),
        ({"inputs": None}, "not null"),
        ({"inputs": 3}, "not a number"),
        ({"inputs": ["a", ["a"]]}, "Input 1 of the list: An input is a text or an object"),
        ({"inputs": {}}, "An input is empty"),
        ({"inputs": {"text": None}}, "An input is empty"),
        ({"inputs": []}, "0 inputs"),
        ({"inputs": {"words": "so"}}, "An input has no 'words'"),
        ({"inputs": {"speaker": "Ross"}}, "An input is empty"),
        ({"inputs": {"text": "so", "history": "glad"}}, "`history` must be a list, not str"),
        ({"inputs": {"text": "so", "history": [3]}}, "`text` must be a string, not a number"),
        ({"inputs": {"text": "so", "history": [{"words": "so"}]}}, "`history` has no 'words'"),
        ({"inputs": {"text": ["so"]}}, "not a list"),
        ({"inputs": {"text": "\ud800"}}, "surrogate"),
        ({"inputs": "https://example.com/a.mp4"}, "URLs are not fetched"),
        ({"inputs": ["file:///etc/passwd"]}, "URLs are not fetched"),
        ({"inputs": {"video": "HTTP://169.254.169.254/latest"}}, "URLs are not fetched"),
        ({"inputs": {"audio": "ftp://example.com/a.wav"}}, "URLs are not fetched"),
        ({"inputs": {"audio": "/etc/passwd.wav"}}, "not valid base64"),
        ({"inputs": {"audio": "concat:a.wav|b.wav"}}, "not valid base64"),
        ({"inputs": {"audio": "\u00e9\u00e9\u00e9\u00e9"}}, "not valid base64"),
        ({"inputs": {"audio": "data:text/html;base64,AAAA"}}, "not of audio or video"),
        ({"inputs": {"audio": "data:audio/wav,abc"}}, "not of audio or video"),
        ({"inputs": {"audio": ""}}, "`audio` is empty"),
        ({"inputs": {"video": [1, 2]}}, "not a list"),
        ({"inputs": {"text": "so"}, "parameters": []}, "`parameters` must be an object"),
        ({"inputs": {"text": "so"}, "parameters": {"transcriber": "x"}}, "`parameters` has no 'transcriber'"),
        ({"inputs": {"text": "so"}, "parameters": {"return_attention": "yes"}}, "true or false"),
        ({"inputs": b"x", "parameters": {"chunk_length_s": float("inf")}}, "at most 120 seconds"),
        ({"inputs": b"x", "parameters": {"chunk_length_s": 1e9}}, "at most 120 seconds"),
    ],
    ids=lambda value: None if isinstance(value, str) else "data",
)
def test_read_request_refuses_invalid_requests(data, message):
    assert message in refusal(data)


@pytest.mark.parametrize(
    "parameters",
    [{"top_k": 0}, {"top_k": True}, {"top_k": "2"}, {"chunk_length_s": float("nan")}, {"chunk_length_s": -1}],
    ids=str,
)
def test_job_refuses_invalid_option_values(recognize, parameters):
    with pytest.raises(RequestError, match=next(iter(parameters))) as caught:
        Job(recognize, read_request({"inputs": b"x", "parameters": parameters}))
    assert caught.value.status == 400


def test_limits_of_a_request(clip):
    small = Limits(max_media_bytes=1000, max_inputs=2, max_text_length=10)
    assert "11 characters" in refusal({"inputs": "x" * 11}, 413, small)
    assert "3 inputs" in refusal({"inputs": ["x"] * 3}, 413, small)
    assert "larger than 1000 bytes" in refusal({"inputs": {"audio": base64.b64encode(clip).decode()}}, 413, small)
    assert "larger than 1000 bytes" in refusal({"inputs": clip}, 413, small)
    half = base64.b64encode(clip[:600]).decode()
    assert len(read_request({"inputs": {"audio": half}}, small).inputs[0]["audio"]) == 600
    assert "larger than 1000 bytes" in refusal({"inputs": [{"audio": half}, {"audio": half}]}, 413, small)
    assert "larger than 1000 bytes" in refusal({"inputs": {"audio": half, "video": half}}, 413, small)


def test_read_request_accepts_each_form_of_media(clip):
    lines = base64.encodebytes(clip).decode()  # as the command base64 writes them
    plain = lines.replace("\n", "")
    for value in (
        clip,
        bytearray(clip),
        lines,
        plain,
        f"data:video/mp4;base64,{plain}",
        f"data:AUDIO/x;base64,{plain}",
    ):
        assert read_request({"inputs": {"video": value}}).inputs == [{"video": clip}]
    assert read_request({"inputs": clip}).inputs == [{"video": clip}]


def test_a_string_is_a_text():
    assert read_request({"inputs": "so glad"}).inputs == [{"text": "so glad"}]
    request = read_request({"inputs": ["so glad", {"text": "http://127.0.0.1/"}, "/etc/passwd"]})
    assert request.inputs == [{"text": "so glad"}, {"text": "http://127.0.0.1/"}, {"text": "/etc/passwd"}]
    assert request.is_list


def test_history_is_read():
    entry = {"text": "so", "speaker": "Ross", "history": ["glad", {"text": "very", "speaker": "Joey"}]}
    history = [{"text": "glad"}, {"text": "very", "speaker": "Joey"}]
    assert read_request({"inputs": entry}).inputs == [{**entry, "history": history}]
    data = {"inputs": {**entry, "history": ["so"] * 33}}
    assert refusal(data, 413) == "`history` has 33 utterances, more than 32."


def test_parse_fields_reads_options(clip):
    request = read_request(parse_fields({"text": "3", "file": clip, "top_k": "2", "return_attention": "True"}))
    assert request.inputs == [{"text": "3", "video": clip}]
    assert request.parameters == {"top_k": 2, "return_attention": True}
    assert read_request(parse_fields({"audio": clip, "chunk_length_s": "1.5"})).parameters == {"chunk_length_s": 1.5}
    for fields in ({"return_timestamps": "yes"}, {"model": "x"}, {"file": clip}, {"video": "https://x.org/a.mp4"}):
        with pytest.raises(RequestError):
            read_request(parse_fields({"video": clip, **fields}))


# ---- predictions ----


def outcome(recognize, data, limits: Limits = Limits(), **options):  # noqa: B008
    """Return the result of a request, or its RequestError."""
    try:
        return predict(recognize, read_request(data), limits, **options)
    except RequestError as error:
        return error


def rounded(found):
    return json.loads(json.dumps(found), parse_float=lambda number: round(float(number), 4))


def test_requests_in_one_batch_predict_as_alone(recognize, clip):
    requests = [
        {"inputs": "what a wonderful day", "parameters": {"top_k": 1}},
        {"inputs": clip, "parameters": {"chunk_length_s": 1}},
        {"inputs": [{"text": "so sad"}, b"not a clip" * 9, {"audio": clip, "text": "so"}]},
        {"inputs": {"video": clip}, "parameters": {"return_attention": True}},
    ]
    jobs = [Job(recognize, read_request(request)) for request in requests]
    waiting = deque(jobs)
    while waiting:
        run_batch(waiting, batch_size=4)
    for request, job in zip(requests, jobs, strict=True):
        assert rounded(job.result) == rounded(outcome(recognize, request, batch_size=1))
    first, segments, listed, _ = (job.result for job in jobs)
    assert len(first["emotions"]) == 1
    assert first["sentiment"] == pytest.approx(recognize({"text": "what a wonderful day"})["sentiment"], abs=1e-5)
    assert [segment["timestamp"] for segment in segments] == [(0.0, 1.0), (1.0, 2.0), (2.0, 2.74)]
    assert "could not be opened" in listed[1]["error"]
    assert listed[2]["modalities"] == ["text", "audio"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"inputs": b"nothing" * 20}, "could not be opened"),
        ({"inputs": "..."}, "word"),
        ({"inputs": {"text": "so"}, "parameters": {"chunk_length_s": 2}}, "cannot be cut into segments"),
    ],
    ids=["media", "text", "segments_of_text"],
)
def test_inputs_that_the_pipeline_refuses_are_422(recognize, data, message):
    found = outcome(recognize, data)
    assert found.status == 422
    assert message in str(found)


def test_long_clips_are_read_up_to_the_limit(recognize, clip):
    data = {"inputs": clip, "parameters": {"chunk_length_s": 0.2}}
    found = outcome(recognize, data, Limits(max_media_s=2.0))
    assert (found.status, "longer than 2 s" in str(found)) == (413, True)
    found = outcome(recognize, data, Limits(max_segments=5))
    assert (found.status, "More than 5 segments" in str(found)) == (413, True)


def test_a_job_stops_at_its_deadline(recognize, clip):
    job = Job(recognize, read_request({"inputs": clip}), deadline=time.monotonic() - 1)
    assert run_batch(deque([job]), 8) == 0
    with pytest.raises(RequestError, match="took too long") as caught:
        job.result  # noqa: B018
    assert caught.value.status == 504


def test_seconds_of_all_media_of_a_request_count(recognize, clip):
    for parameters in ({}, {"chunk_length_s": 1}):
        data = {"inputs": [{"video": clip}] * 4, "parameters": parameters}
        found = outcome(recognize, data, Limits(max_media_s=6.0))  # a clip has 2.74
        assert ["error" in one for one in found] == [False, False, True, True]
        assert "longer than 6 s together" in found[2]["error"]
        found = outcome(recognize, data, Limits(max_media_s=11.0))
        assert not any("error" in one for one in found)


def test_small_jobs_do_not_wait_for_large_ones(recognize, clip):
    large = [
        Job(recognize, read_request({"inputs": [clip] * 3, "parameters": {"chunk_length_s": 0.5}})) for _ in range(3)
    ]
    jobs = deque(large)
    assert run_batch(jobs, batch_size=2) == 2
    small = [Job(recognize, read_request({"inputs": inputs})) for inputs in ("so glad", clip)]
    jobs.extend(small)
    assert [run_batch(jobs, batch_size=2) for _ in range(3)] == [2, 2, 2]
    assert all(job.is_done for job in small)
    assert [job.num_segments for job in large] == [2, 2, 2]
    assert small[0].result["modalities"] == ["text"]
    while jobs:
        assert run_batch(jobs, batch_size=8) > 0
    assert [[len(found) for found in job.result] for job in large] == [[6] * 3] * 3


def test_an_input_that_breaks_the_model_fails_alone(recognize, monkeypatch, caplog):
    real = recognize.forward

    def forward(model_inputs, **options):
        if "break" in str(model_inputs["text"]):
            raise RuntimeError("/secret/place is broken")
        return real(model_inputs, **options)

    monkeypatch.setattr(recognize, "forward", forward)
    first, second, third = outcome(recognize, {"inputs": ["so glad", "break", "so sad"]})
    assert first["modalities"] == third["modalities"] == ["text"]
    assert second == {"error": "Internal server error; the server's log has the details."}
    assert "/secret/place is broken" in caplog.text


def test_errors_of_the_system_are_not_disclosed(recognize, monkeypatch):
    def preprocess(*args, **options):
        raise FileNotFoundError(2, "No such file", "/secret/place")
        yield

    monkeypatch.setattr(recognize, "preprocess", preprocess)
    found = outcome(recognize, {"inputs": "so glad"})
    assert found.status == 500
    assert "secret" not in str(found)
