"""`umons serve`: a real server and model."""

import base64
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import httpx
import jsonschema
import pytest
import torch
from small_pipelines import RATE, TASK, WORDS, close, make_model, make_processor, tone
from small_servers import running
from transformers import pipeline

from modeling_umons import TfnConfig, TfnForSequenceClassification
from modeling_umons.cli import serve
from modeling_umons.models.umons.decoding_umons import DecodingPool
from modeling_umons.serving import slow_clients
from modeling_umons.serving.request_handling import Limits


TEXT = {"inputs": {"text": "what a wonderful day"}}


@pytest.fixture(scope="module")
def recognize(root):
    return pipeline("multimodal-emotion-recognition", model=str(root / "hub" / "umons-mini"))


@pytest.fixture(scope="module")
def clip(root) -> bytes:
    return (root / "hub" / "sample" / "clips" / "000.mp4").read_bytes()


@pytest.fixture(scope="module")
def client(recognize) -> Iterator[httpx.Client]:
    with running(
        recognize, name="umons-mini", limits=Limits(max_body_bytes=300_000, max_media_bytes=200_000)
    ) as client:
        yield client


@pytest.fixture
def gate(recognize, monkeypatch) -> Iterator[threading.Event]:
    """Block the pipeline until it is set. `gate.begun` is set by the first input; `gate.seen` lists all inputs."""
    gate, real = threading.Event(), recognize.preprocess
    gate.begun, gate.seen = threading.Event(), []

    def preprocess(inputs, **options):
        gate.seen.append(inputs)
        gate.begun.set()
        assert gate.wait(30)
        yield from real(inputs, **options)

    monkeypatch.setattr(recognize, "preprocess", preprocess)
    yield gate
    gate.set()


def until(condition, seconds: float = 20.0):
    """Wait until a condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition never held"
        threading.Event().wait(0.01)


# ---- predictions ----


def test_json_request(client, recognize):
    response = client.post("/predict", json={**TEXT, "parameters": {"top_k": 2}})
    assert response.status_code == 200
    found, expected = response.json(), recognize(TEXT["inputs"], top_k=2)
    assert found["sentiment"] == pytest.approx(expected["sentiment"], abs=1e-5)
    assert [entry["label"] for entry in found["emotions"]] == [entry["label"] for entry in expected["emotions"]]


def test_raw_clip(client, clip):
    """As `curl --data-binary @clip.mp4` sends it."""
    options = {"text": "so glad", "top_k": "1", "return_attention": "true"}
    response = client.post("/predict", params=options, content=clip, headers={"Content-Type": "video/mp4"})
    assert response.status_code == 200
    found = response.json()
    assert found["modalities"] == ["text", "audio"]
    assert len(found["emotions"]) == 1
    assert [entry["word"] for entry in found["attention"]["text"]] == ["so", "glad"]
    response = client.post(
        "/predict?chunk_length_s=1", content=clip, headers={"Content-Type": "application/octet-stream"}
    )
    assert [entry["timestamp"] for entry in response.json()] == [[0, 1], [1, 2], [2, 2.74]]


def test_list_of_inputs(client, clip):
    inputs = ["so", {"video": "AAAA"}, {"audio": base64.b64encode(clip).decode()}]
    first, failed, third = client.post("/predict", json={"inputs": inputs}).json()
    assert first["modalities"] == ["text"]
    assert "could not be opened" in failed["error"]
    assert third["modalities"] == ["audio"]


def test_multipart_form(client, clip):
    """As `curl -F file=@clip.mp4 -F text="so glad"` sends it."""
    response = client.post("/predict", files={"file": clip}, data={"text": "so glad", "top_k": "1"})
    assert response.status_code == 200
    assert response.json()["modalities"] == ["text", "audio"]
    assert len(response.json()["emotions"]) == 1
    raw = client.post("/predict?text=so+glad&top_k=1", content=clip, headers={"Content-Type": "video/mp4"})
    assert response.json()["sentiment"] == pytest.approx(raw.json()["sentiment"], abs=1e-4)
    response = client.post("/predict", files={"audio": clip}, data={"chunk_length_s": "1"})
    assert [entry["timestamp"] for entry in response.json()] == [[0, 1], [1, 2], [2, 2.74]]


def test_invalid_forms_are_refused(client, clip):
    twice = [("file", clip), ("file", clip)]
    assert "`file` is given more than once" in refused(client.post("/predict", files=twice), 400)
    assert "Both `file` and `video`" in refused(client.post("/predict", files={"file": clip, "video": clip}), 400)
    assert "'clip'" in refused(client.post("/predict", files={"clip": clip}), 400)
    assert "URLs are not fetched" in refused(
        client.post("/predict", data={"video": "http://127.0.0.1/"}, files={"audio": clip}), 400
    )
    for content_type in ("multipart/form-data", "multipart/form-data; boundary=x"):
        refused(client.post("/predict", content=b"--y", headers={"Content-Type": content_type}), 400)


def test_health_metrics_and_schema(client):
    assert client.get("/health").json() == {"status": "ready", "model": "umons-mini", "queued": 0, "streams": 0}
    before = client.get("/metrics").json()
    client.post("/predict", json=TEXT)
    client.post("/predict", json={})
    after = client.get("/metrics").json()
    for name, more in {"requests": 2, "answered": 1, "refused": 1, "errors": 0, "in_flight": 0}.items():
        assert after[name] - before[name] == more
    assert after["latency_ms"]["p50"] <= after["latency_ms"]["p95"]
    assert after["mean_batch_size"] >= 1
    schema = client.get("/openapi.json").json()
    assert set(schema["paths"]) == {"/predict", "/health", "/metrics"}
    assert {"Prediction", "Failure"} <= set(schema["components"]["schemas"])
    assert "swagger" in client.get("/docs").text


@pytest.mark.parametrize(
    ("inputs", "options"),
    [
        ({"text": "so glad"}, {}),
        ({"text": "so " * 70}, {"return_explanations": True, "return_attention": True, "abstain_below": 1.0}),
        ({"text": "so glad", "audio": tone(13), "sampling_rate": RATE}, {"return_explanations": True}),
        ({"audio": tone(3), "sampling_rate": RATE}, {"chunk_length_s": 1.0, "return_attention": True}),
    ],
)
@pytest.mark.parametrize("kind", ["joint", "classes", "sentiment"])
def test_results_match_the_schema(client, kind, inputs, options):
    calibration = {"text": {"rows": 50, "sentiment_error": 1.0}}
    task = {
        "joint": {"joint_sentiment": True, "calibration": calibration},
        "classes": {"id2label": {0: "calm", 1: "cross"}, "problem_type": "single_label_classification"},
        "sentiment": {"num_labels": 1, "calibration": calibration},
    }[kind]
    schema = client.get("/openapi.json").json()
    validator = jsonschema.Draft202012Validator(
        {"$ref": "#/components/schemas/Prediction", "components": schema["components"]}
    )
    results = pipeline(TASK, model=make_model(**task), processor=make_processor())(inputs, **options)
    for result in results if isinstance(results, list) else [results]:
        validator.validate(json.loads(json.dumps(result)))
    with pytest.raises(jsonschema.ValidationError):
        validator.validate({"modalities": [], "warnings": [], "happiness": 1.0})


def make_tfn():
    torch.manual_seed(0)
    return TfnForSequenceClassification(
        TfnConfig(vocab_size=2 + len(WORDS), word_embedding_size=12, num_labels=1)
    ).eval()


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (
            lambda: make_model(id2label={0: "calm", 1: "cross", 2: "glad"}),
            ["label", "confidence", "labels", "modalities", "warnings"],
        ),
        (make_tfn, ["sentiment", "label", "modalities", "warnings"]),
    ],
    ids=["classes", "baseline"],
)
def test_server_of_other_models(make, expected, clip):
    recognize = pipeline(TASK, model=make(), processor=make_processor())
    with running(recognize) as client:
        found = client.post(
            "/predict", params={"text": "so glad"}, content=clip, headers={"Content-Type": "video/mp4"}
        )
        assert list(found.json()) == expected
        assert found.json()["modalities"] == ["text", "audio"]
        close(found.json(), recognize({"text": "so glad", "video": clip}))


# ---- refusals ----


def refused(response: httpx.Response, status: int) -> str:
    """Return the message, which is all that the response has."""
    assert response.status_code == status, response.text
    assert list(response.json()) == ["error"]
    message = response.json()["error"]
    assert "Traceback" not in message
    assert str(Path(__file__).parent.parent) not in message
    return message


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b'{"inputs": ', 400, "not valid JSON"),
        (b'{"inputs": {"text": NaN}}', 400, "NaN is not valid JSON"),
        (b'{"inputs": ' + b"[" * 40_000, 400, "nested too deeply"),
        (b'{"inputs": [' + b"{}," * 60_000, 413, "more than 50000 objects"),
        (b'{"inputs": "http://127.0.0.1/x.wav"}', 400, "URLs are not fetched"),
        (b'{"inputs": {"video": "https://example.com/x.mp4"}}', 400, "URLs are not fetched"),
        (b'{"inputs": "so glad", "parameters": {"top_k": 0}}', 400, "`top_k`"),
        (b'{"inputs": {"text": "..."}}', 422, "word"),
        (b'{"inputs": {"audio": "bm8gY2xpcA=="}}', 422, "could not be opened"),
    ],
    ids=["cut", "nan", "deep", "many", "url", "url_of_media", "option", "no_words", "no_media"],
)
def test_invalid_requests_are_refused(client, body, status, message):
    headers = {"Content-Type": "application/json; charset=utf-8"}
    assert message in refused(client.post("/predict", content=body, headers=headers), status)


def test_other_content_types_and_paths_are_refused(client):
    for headers in ({}, {"Content-Type": "text/plain"}, {"Content-Type": "application/x-www-form-urlencoded"}):
        assert "Use application/json" in refused(client.post("/predict", content=b"{}", headers=headers), 415)
    assert refused(client.get("/predict"), 405).startswith("Method not allowed. Endpoints: POST /predict")
    for path in ("/", "/redoc", "/predict/x"):
        assert refused(client.get(path), 404).startswith("Not found. Endpoints: POST /predict")


def test_corrupt_media(client, clip):
    headers = {"Content-Type": "video/mp4"}
    cut = client.post("/predict", content=clip[: len(clip) // 3], headers=headers)
    assert cut.json()["modalities"] == ["audio"]  # what can still be decoded
    for content in (clip[:200], b"\0" * 5000, b"#EXTM3U\n#EXTINF:3,\n/etc/passwd\n"):
        refused(client.post("/predict", content=content, headers=headers), 422)
    refused(client.post("/predict", content=b"", headers=headers), 400)


def test_large_requests_are_refused(client):
    headers = {"Content-Type": "video/mp4"}
    assert "larger than 300000" in refused(client.post("/predict", content=b"x" * 400_000, headers=headers), 413)

    def chunks():
        for _ in range(100):
            yield b"x" * 10_000

    assert "larger than 300000" in refused(client.post("/predict", content=chunks(), headers=headers), 413)
    assert "media are larger" in refused(client.post("/predict", content=b"x" * 250_000, headers=headers), 413)
    assert "characters" in refused(client.post("/predict", json={"inputs": {"text": "x" * 20_000}}), 413)
    assert client.post("/predict", json=TEXT).status_code == 200


def test_long_media_are_refused(recognize, clip):
    with running(recognize, limits=Limits(max_media_s=2)) as client:
        response = client.post("/predict?chunk_length_s=0.5", content=clip, headers={"Content-Type": "video/mp4"})
        assert "longer than 2 s" in refused(response, 413)


# ---- concurrency ----


def test_fifty_concurrent_requests(client, clip):
    """All share batches, and the invalid ones fail alone."""
    before = client.get("/metrics").json()

    def send(i: int) -> httpx.Response:
        if i % 5 == 4:
            return client.post("/predict", content=b"not a clip" * 30, headers={"Content-Type": "audio/wav"})
        if i % 5 == 3:
            return client.post("/predict", content=clip, headers={"Content-Type": "video/mp4"})
        return client.post("/predict", json={"inputs": {"text": "so glad " * (1 + i % 3)}})

    with ThreadPoolExecutor(50) as pool:
        responses = list(pool.map(send, range(50)))
    for i, response in enumerate(responses):
        assert response.status_code == (422 if i % 5 == 4 else 200), response.text
    for i in range(3):
        assert (
            len({str(round(responses[j].json()["sentiment"], 4)) for j in range(50) if j % 5 < 3 and j % 3 == i}) == 1
        )
    after = client.get("/metrics").json()
    assert after["answered"] - before["answered"] == 40
    assert after["mean_batch_size"] > before["mean_batch_size"]


def test_small_requests_do_not_wait_for_large_ones(recognize, clip):
    headers = {"Content-Type": "video/mp4"}
    sound = base64.b64encode(clip).decode()
    large = {"inputs": [{"audio": sound}] * 12, "parameters": {"chunk_length_s": 0.2}}
    with running(recognize, max_batch_size=4) as client, ThreadPoolExecutor(2) as pool:
        taken = [pool.submit(client.post, "/predict", json=large) for _ in range(2)]
        until(lambda: client.get("/metrics").json()["mean_batch_size"])  # they are in progress
        assert client.post("/predict", content=clip, headers=headers).status_code == 200
        assert client.get("/metrics").json()["answered"] == 1
        for future in taken:
            assert [len(found) for found in future.result().json()] == [13] * 12


def test_full_queue_refuses(recognize, gate):
    with running(recognize, max_queue=3, max_batch_size=1) as client, ThreadPoolExecutor(3) as pool:
        taken = [pool.submit(client.post, "/predict", json=TEXT) for _ in range(3)]
        until(lambda: client.get("/metrics").json()["in_flight"] == 3)
        response = client.post("/predict", json=TEXT)
        assert "Try again soon" in refused(response, 503)
        assert response.headers["Retry-After"] == "1"
        counts = client.get("/metrics").json()
        assert (counts["overloaded"], counts["refused"]) == (1, 0)
        assert client.get("/health").json()["status"] == "ready"
        gate.set()
        assert [future.result().status_code for future in taken] == [200] * 3


def test_requests_time_out(recognize, gate):
    """The time is up for a request in progress and for one in the queue, which never begins."""
    with running(recognize, timeout_s=0.5, num_decoders=1) as client, ThreadPoolExecutor(2) as pool:
        first = pool.submit(client.post, "/predict", json=TEXT)
        assert gate.begun.wait(20)
        second = client.post("/predict", json={"inputs": {"text": "second"}})
        assert "No prediction within 0.5 s" in refused(second, 504)
        assert "No prediction within 0.5 s" in refused(first.result(), 504)
        gate.set()
        assert client.post("/predict", json=TEXT).status_code == 200
        assert client.get("/health").json()["status"] == "ready"
        assert {"text": "second"} not in gate.seen
        assert client.get("/metrics").json()["timeouts"] == 2


def test_health_tells_of_a_batch_that_hangs(recognize, monkeypatch):
    gate, real = threading.Event(), recognize.forward

    def forward(model_inputs, **options):
        assert gate.wait(30)
        return real(model_inputs, **options)

    monkeypatch.setattr(recognize, "forward", forward)
    with running(recognize, timeout_s=0.5) as client:
        assert client.post("/predict", json=TEXT).status_code == 504
        until(lambda: client.get("/health").status_code == 503)
        gate.set()
        until(lambda: client.get("/health").status_code == 200)
        assert client.post("/predict", json=TEXT).status_code == 200


def test_slow_file_does_not_delay_others(recognize, clip, monkeypatch):
    gate, begun, real = threading.Event(), threading.Event(), DecodingPool.iter_windows

    def iter_windows(pool, source, *arguments, **options):
        if len(source) == len(clip):
            begun.set()
            assert gate.wait(30)
        yield from real(pool, source, *arguments, **options)

    monkeypatch.setattr(DecodingPool, "iter_windows", iter_windows)
    headers = {"Content-Type": "video/mp4"}
    with running(recognize, num_decoders=2) as client, ThreadPoolExecutor(1) as pool:
        slow = pool.submit(client.post, "/predict", content=clip, headers=headers)
        assert begun.wait(20)
        assert client.post("/predict", json=TEXT).status_code == 200
        assert client.post("/predict", content=clip + b"\0", headers=headers).status_code == 200
        assert not slow.done()
        gate.set()
        assert slow.result().status_code == 200


def test_server_stops_although_the_decoder_hangs(recognize, gate):
    with running(recognize, timeout_s=0.3) as client:
        assert client.post("/predict", json=TEXT).status_code == 504
    assert not gate.is_set()


def test_file_over_the_deadline_is_refused_and_others_are_served(recognize, clip, monkeypatch):
    pool = DecodingPool(1, deadline_s=1e-3)
    monkeypatch.setattr("modeling_umons.serving.server.DecodingPool", lambda size, deadline_s: pool)
    with running(recognize) as client:
        response = client.post("/predict", content=clip, headers={"Content-Type": "video/mp4"})
        assert "decoding was stopped after 0.001 s" in refused(response, 422)
        assert client.get("/health").json()["status"] == "ready"
        pool.workers[0].deadline_s = 20.0
        response = client.post("/predict", content=clip, headers={"Content-Type": "video/mp4"})
        assert response.json()["modalities"] == ["audio"]
    assert pool.workers[0].process.poll() is not None


def test_disconnected_clients_are_dropped_from_the_queue(recognize, gate):
    with running(recognize, num_decoders=1) as client, ThreadPoolExecutor(1) as pool:
        first = pool.submit(client.post, "/predict", json=TEXT)
        assert gate.begun.wait(20)
        with pytest.raises(httpx.ReadTimeout):
            client.post("/predict", json={"inputs": {"text": "impatient"}}, timeout=httpx.Timeout(20, read=0.2))
        until(lambda: client.get("/metrics").json()["disconnected"] == 1)
        gate.set()
        assert first.result().status_code == 200
        assert client.post("/predict", json=TEXT).status_code == 200
        assert {"text": "impatient"} not in gate.seen


@pytest.mark.parametrize("before", [b"", b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"])
def test_connection_without_complete_headers_is_closed(recognize, monkeypatch, before):
    monkeypatch.setattr(slow_clients, "HEADER_TIMEOUT_S", 0.5)
    with running(recognize) as client:
        slow = socket.create_connection((client.base_url.host, client.base_url.port))
        slow.sendall(before + b"GET /health HTTP/1.1\r\nX-Slow: ")
        assert client.get("/health").status_code == 200
        assert received(slow).count(b"HTTP/1.1 200") == bool(before)
        slow.close()


def test_connection_of_a_long_request_stays_open(recognize, gate, monkeypatch):
    monkeypatch.setattr(slow_clients, "HEADER_TIMEOUT_S", 0.5)
    checks, real = [], slow_clients.TimedProtocol._close_if_idle

    def check(self, last):
        checks.append(last)
        real(self, last)

    monkeypatch.setattr(slow_clients.TimedProtocol, "_close_if_idle", check)
    with running(recognize) as client, ThreadPoolExecutor(1) as pool:
        long = pool.submit(client.post, "/predict", json=TEXT)
        assert gate.begun.wait(20)
        until(lambda: len(checks) >= 3)
        gate.set()
        assert long.result().status_code == 200


def test_slow_bodies_time_out(recognize):
    with running(recognize, timeout_s=0.5) as client:
        head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
        with socket.create_connection((client.base_url.host, client.base_url.port)) as slow:
            slow.sendall(head)
            assert client.post("/predict", json=TEXT).status_code == 200  # others do not wait for it
            answered = received(slow)  # ends, as the connection is closed
        assert answered.startswith(b"HTTP/1.1 408")
        assert b"\r\nconnection: close\r\n" in answered.lower()
        assert b"did not arrive within 0.5 s" in answered


def received(sock: socket.socket) -> bytes:
    """Receive until the connection is closed."""
    sock.settimeout(20)
    answered = b""
    with suppress(ConnectionResetError):
        while part := sock.recv(4096):
            answered += part
    return answered


def test_internal_errors_are_not_disclosed(recognize, monkeypatch):
    def forward(model_inputs, **options):
        raise RuntimeError("/secret/place")

    with running(recognize) as client:
        monkeypatch.setattr(recognize, "forward", forward)
        assert "secret" not in refused(client.post("/predict", json=TEXT), 500)
        monkeypatch.undo()
        assert client.post("/predict", json=TEXT).status_code == 200


# ---- the command ----


def accepts(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address, 5).close()
    except OSError:
        return False
    return True


def test_command_answers_requests_in_flight_before_it_ends(root):
    """SIGTERM while requests wait for their batch: all are answered, and the exit status is 0."""
    arguments = ["serve", "--model", "umons-mini", "--port", "0", "--max_wait_ms", "25000", "--max_batch_size", "64"]
    command = [Path(sys.executable).with_name("umons"), *arguments]
    body = b'{"inputs": {"text": "so glad"}}'
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(
        body
    )
    environment = {**os.environ, "PYTHONWARNINGS": "error", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            line = process.stdout.readline()
            assert line.startswith("umons: umons-mini at http://127.0.0.1:"), line or process.stderr.read()
            address = line.split()[-1].removesuffix("/predict")
            with httpx.Client(base_url=address, timeout=60, trust_env=False) as client, ThreadPoolExecutor(5) as pool:
                slow = socket.create_connection((client.base_url.host, client.base_url.port), 60)
                slow.sendall(head + body[:5])  # the others wait for it to share their batch
                until(lambda: client.get("/metrics").json()["in_flight"] == 1)
                taken = [pool.submit(client.post, "/predict", json=TEXT) for _ in range(5)]
                until(lambda: client.get("/metrics").json()["in_flight"] == 6)
                process.send_signal(signal.SIGTERM)
                until(lambda: not accepts(slow.getpeername()))
                assert not any(future.done() for future in taken)
                slow.sendall(body[5:])
                assert [future.result().status_code for future in taken] == [200] * 5
                with slow, slow.makefile("rb") as answered:
                    assert answered.readline().startswith(b"HTTP/1.1 200")
            assert process.wait(timeout=30) == 0
            assert "Traceback" not in process.stderr.read()
        finally:
            if process.poll() is None:
                process.kill()


def test_help_names_the_options(capsys):
    with pytest.raises(SystemExit) as exit:
        serve.main(["--help"])
    assert exit.value.code == 0
    text = capsys.readouterr().out
    for word in ("--model", "--host", "--port", "--max_batch_size", "--max_wait_ms", "--trust_remote_code", "curl"):
        assert word in text
    assert max(map(len, text.splitlines())) < 100


def test_port_in_use_fails(monkeypatch, capsys, recognize):
    monkeypatch.setattr("modeling_umons.inference.loading.load_pipeline", lambda *arguments, **options: recognize)
    with socket.create_server(("127.0.0.1", 0)) as sock:
        assert serve.main(["--port", str(sock.getsockname()[1])]) == 1
    assert "another program uses this port" in capsys.readouterr().err


def test_invalid_options_fail(capsys):
    for arguments in (
        ["--max_batch_size", "0"],
        ["--max_queue", "0"],
        ["--max_wait_ms", "-1"],
        ["--timeout_s", "0"],
        ["--port", "70000"],
    ):
        assert serve.main(arguments) == 2
        assert arguments[0] in capsys.readouterr().err
