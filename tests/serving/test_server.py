# Copyright 2026 The modeling_umons authors.
# SPDX-License-Identifier: MIT
"""`umons serve`: a real server, a real model, real requests."""

import base64
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx
import pytest
import torch
from small_pipelines import TASK, WORDS, close, make_model, make_processor
from transformers import pipeline

from modeling_umons import TfnConfig, TfnForSequenceClassification, cli
from modeling_umons.serving import server as serve_module
from modeling_umons.serving.request_handling import Limits
from modeling_umons.serving.server import make_app, make_server


TEXT = {"inputs": {"text": "what a wonderful day"}}


@pytest.fixture(scope="module")
def recognize(root):
    return pipeline("multimodal-emotion-recognition", model=str(root / "hub" / "umons-mini"))


@pytest.fixture(scope="module")
def clip(root) -> bytes:
    return (root / "hub" / "sample" / "clips" / "000.mp4").read_bytes()


@contextmanager
def running(recognize, idle_s: float = 5.0, **options) -> Iterator[httpx.Client]:
    """A server in a thread, and a client of it."""
    server = make_server(make_app(recognize, **options), idle_s=idle_s)
    with socket.create_server(("127.0.0.1", 0)) as sock:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]})
        thread.start()
        address = f"http://127.0.0.1:{sock.getsockname()[1]}"
        try:
            limits = httpx.Limits(max_connections=100)
            with httpx.Client(base_url=address, timeout=60, trust_env=False, limits=limits) as client:
                yield client
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="module")
def client(recognize) -> Iterator[httpx.Client]:
    with running(
        recognize, name="umons-mini", limits=Limits(max_body_bytes=300_000, max_media_bytes=200_000)
    ) as client:
        yield client


@pytest.fixture
def gate(recognize, monkeypatch) -> Iterator[threading.Event]:
    """Holds the pipeline back until it is set; `gate.begun` is set when an input has come to it, `gate.seen` lists them."""
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
    """Waits for what another thread will bring about."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        threading.Event().wait(0.01)


# ---- answers ----


def test_json(client, recognize):
    response = client.post("/predict", json={**TEXT, "parameters": {"top_k": 2}})
    assert response.status_code == 200
    found, expected = response.json(), recognize(TEXT["inputs"], top_k=2)
    assert found["sentiment"] == pytest.approx(expected["sentiment"], abs=1e-5)
    assert [entry["label"] for entry in found["emotions"]] == [entry["label"] for entry in expected["emotions"]]


def test_a_clip_as_it_is(client, clip):
    """What `curl --data-binary @clip.mp4` sends."""
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


def test_a_list_in_json(client, clip):
    inputs = [{"text": "so"}, {"video": "AAAA"}, {"audio": base64.b64encode(clip).decode()}]
    first, failed, third = client.post("/predict", json={"inputs": inputs}).json()
    assert first["modalities"] == ["text"]
    assert "could not be opened" in failed["error"]
    assert third["modalities"] == ["audio"]


def test_health_metrics_and_schema(client):
    assert client.get("/health").json() == {"status": "ready", "model": "umons-mini", "queued": 0}
    before = client.get("/metrics").json()
    client.post("/predict", json=TEXT)
    client.post("/predict", json={})
    after = client.get("/metrics").json()
    for name, more in {"requests": 2, "answered": 1, "refused": 1, "errors": 0, "inside": 0}.items():
        assert after[name] - before[name] == more
    assert after["latency_ms"]["p50"] <= after["latency_ms"]["p95"]
    assert after["mean_batch_size"] >= 1
    schema = client.get("/openapi.json").json()
    assert set(schema["paths"]) == {"/predict", "/health", "/metrics"}


def make_tfn():
    torch.manual_seed(0)
    return TfnForSequenceClassification(
        TfnConfig(vocab_size=2 + len(WORDS), word_embedding_size=12, num_labels=1)
    ).eval()


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: make_model(id2label={0: "calm", 1: "cross", 2: "glad"}), ["labels", "modalities"]),
        (make_tfn, ["sentiment", "modalities"]),
    ],
    ids=["classes", "baseline"],
)
def test_other_models(make, expected, clip):
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
    """The words, which are all that the answer holds."""
    assert response.status_code == status, response.text
    assert list(response.json()) == ["error"]
    words = response.json()["error"]
    assert "Traceback" not in words
    assert str(Path(__file__).parent.parent) not in words
    return words


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b'{"inputs": ', 400, "no JSON"),
        (b'{"inputs": {"text": NaN}}', 400, "NaN"),
        (b'{"inputs": ' + b"[" * 40_000, 400, "nested too deeply"),
        (b'{"inputs": [' + b"{}," * 60_000, 413, "more than 50000 objects"),
        (b'{"inputs": "/etc/passwd"}', 400, "no http(s) URL"),
        (b'{"inputs": "http://127.0.0.1/x.wav"}', 400, "only public addresses"),
        (b'{"inputs": {"text": "..."}}', 422, "no word in its text"),
        (b'{"inputs": {"audio": "bm8gY2xpcA=="}}', 422, "could not be opened"),
    ],
    ids=["cut", "nan", "deep", "many", "path", "local", "no_words", "no_media"],
)
def test_a_bad_request(client, body, status, words):
    headers = {"Content-Type": "application/json; charset=utf-8"}
    assert words in refused(client.post("/predict", content=body, headers=headers), status)


def test_other_content_and_other_pages(client):
    for headers in ({}, {"Content-Type": "text/plain"}, {"Content-Type": "application/x-www-form-urlencoded"}):
        assert "send application/json" in refused(client.post("/predict", content=b"{}", headers=headers), 415)
    assert "POST /predict" in refused(client.get("/predict"), 405)
    for page in ("/", "/docs", "/redoc", "/predict/x"):
        assert "POST /predict" in refused(client.get(page), 404)


def test_corrupt_and_silent_media(client, clip):
    headers = {"Content-Type": "video/mp4"}
    cut = client.post("/predict", content=clip[: len(clip) // 3], headers=headers)
    assert cut.json()["modalities"] == ["audio"]  # what can still be heard of it
    for content in (clip[:200], b"\0" * 5000, b"#EXTM3U\n#EXTINF:3,\n/etc/passwd\n"):
        refused(client.post("/predict", content=content, headers=headers), 422)
    refused(client.post("/predict", content=b"", headers=headers), 400)


def test_too_large(client):
    headers = {"Content-Type": "video/mp4"}
    assert "larger than 300000" in refused(client.post("/predict", content=b"x" * 400_000, headers=headers), 413)

    def chunks():
        for _ in range(100):
            yield b"x" * 10_000

    assert "larger than 300000" in refused(client.post("/predict", content=chunks(), headers=headers), 413)
    assert "too large" in refused(client.post("/predict", content=b"x" * 250_000, headers=headers), 413)
    assert "characters" in refused(client.post("/predict", json={"inputs": {"text": "x" * 20_000}}), 413)
    assert client.post("/predict", json=TEXT).status_code == 200


def test_too_long(recognize, clip):
    with running(recognize, limits=Limits(max_media_s=2)) as client:
        response = client.post("/predict?chunk_length_s=0.5", content=clip, headers={"Content-Type": "video/mp4"})
        assert "longer than 2 s" in refused(response, 413)


# ---- many at once ----


def test_fifty_at_once(client, clip):
    """All are answered, those that are bad by themselves; and they share batches."""
    before = client.get("/metrics").json()

    def send(i: int) -> httpx.Response:
        if i % 5 == 4:
            return client.post("/predict", content=b"no clip" * 30, headers={"Content-Type": "audio/wav"})
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
    """The large ones are still being answered when the small one has its answer."""
    headers = {"Content-Type": "video/mp4"}
    sound = base64.b64encode(clip).decode()
    large = {"inputs": [{"audio": sound}] * 12, "parameters": {"chunk_length_s": 0.2}}
    with running(recognize, max_batch_size=4) as client, ThreadPoolExecutor(2) as pool:
        taken = [pool.submit(client.post, "/predict", json=large) for _ in range(2)]
        until(lambda: client.get("/metrics").json()["mean_batch_size"])  # they have begun
        assert client.post("/predict", content=clip, headers=headers).status_code == 200
        assert client.get("/metrics").json()["answered"] == 1
        for future in taken:
            assert [len(found) for found in future.result().json()] == [13] * 12


def test_a_full_house_refuses(recognize, gate):
    with running(recognize, max_queue=3, max_batch_size=1) as client, ThreadPoolExecutor(3) as pool:
        taken = [pool.submit(client.post, "/predict", json=TEXT) for _ in range(3)]
        until(lambda: client.get("/metrics").json()["inside"] == 3)
        response = client.post("/predict", json=TEXT)
        assert "try again soon" in refused(response, 503)
        assert response.headers["Retry-After"] == "1"
        counts = client.get("/metrics").json()
        assert (counts["overloaded"], counts["refused"]) == (1, 0)
        assert client.get("/health").json()["status"] == "ready"
        gate.set()
        assert [future.result().status_code for future in taken] == [200] * 3


def test_a_deadline(recognize, gate):
    """Time runs out for what is being answered and for what waits; the latter never begins."""
    with running(recognize, timeout_s=0.5, max_batch_size=1) as client, ThreadPoolExecutor(2) as pool:
        first = pool.submit(client.post, "/predict", json=TEXT)
        assert gate.begun.wait(20)
        second = client.post("/predict", json={"inputs": {"text": "second"}})
        assert "No answer within 0.5 s" in refused(second, 504)
        assert "No answer within 0.5 s" in refused(first.result(), 504)
        gate.set()
        assert client.post("/predict", json=TEXT).status_code == 200
        assert {"text": "second"} not in gate.seen
        assert client.get("/metrics").json()["timeouts"] == 2


def test_a_client_that_goes_away(recognize, gate):
    """Its work is dropped when it has not begun."""
    with running(recognize, max_batch_size=1) as client, ThreadPoolExecutor(1) as pool:
        first = pool.submit(client.post, "/predict", json=TEXT)
        assert gate.begun.wait(20)
        with pytest.raises(httpx.ReadTimeout):
            client.post("/predict", json={"inputs": {"text": "impatient"}}, timeout=httpx.Timeout(20, read=0.2))
        until(lambda: client.get("/metrics").json()["gone"] == 1)
        gate.set()
        assert first.result().status_code == 200
        assert client.post("/predict", json=TEXT).status_code == 200
        assert {"text": "impatient"} not in gate.seen


def test_a_slow_sender_is_cut_off(recognize):
    with running(recognize, timeout_s=0.5) as client:
        head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
        with socket.create_connection((client.base_url.host, client.base_url.port)) as slow:
            slow.sendall(head)
            assert client.post("/predict", json=TEXT).status_code == 200  # others do not wait for it
            answered = received(slow)
        assert answered.startswith(b"HTTP/1.1 408")
        assert b"did not arrive within 0.5 s" in answered


def received(sock: socket.socket) -> bytes:
    """All that comes until the other side hangs up."""
    sock.settimeout(20)
    answered = b""
    with suppress(ConnectionResetError):
        while part := sock.recv(4096):
            answered += part
    return answered


def test_connections_that_bring_no_request_are_closed(recognize):
    """They send nothing, half of their headers, or byte after byte of them; one had its answer, and one waits for it."""
    with running(recognize, idle_s=0.5) as client, ExitStack() as stack:
        address = (client.base_url.host, client.base_url.port)
        idle = [stack.enter_context(socket.create_connection(address)) for _ in range(15)]
        for sock in idle[5:]:
            sock.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\n")
        for sock in idle[10:]:
            sock.sendall(b"X-More: ")
            for _ in range(10):
                sock.sendall(b"x")
        answered = stack.enter_context(socket.create_connection(address))
        answered.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert received(answered).startswith(b"HTTP/1.1 200")
        assert [received(sock) for sock in idle] == [b""] * 15
        assert client.post("/predict", json=TEXT).status_code == 200


def test_an_answer_may_take_longer_than_a_connection_may_be_idle(recognize, gate):
    with running(recognize, idle_s=0.1) as client, ThreadPoolExecutor(1) as pool:
        taken = pool.submit(client.post, "/predict", json=TEXT)
        assert gate.begun.wait(20)
        with socket.create_connection((client.base_url.host, client.base_url.port)) as idle:
            assert received(idle) == b""
        gate.set()
        assert taken.result().status_code == 200


def test_idle_connections_make_room(recognize, monkeypatch):
    monkeypatch.setattr(serve_module, "MAX_CONNECTIONS", 3)
    with running(recognize, idle_s=60) as client, ExitStack() as stack:
        address = (client.base_url.host, client.base_url.port)
        idle = [stack.enter_context(socket.create_connection(address)) for _ in range(3)]
        for sock in idle:
            sock.setblocking(False)
        for _ in range(3):  # one of those that are idle, which may be the new one, had to go
            with suppress(httpx.TransportError):
                client.get("/health")
                break
        until(lambda: sum(is_closed(sock) for sock in idle) >= 1)


def is_closed(sock: socket.socket) -> bool:
    try:
        return sock.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


def test_a_url_is_fetched(recognize, clip):
    """From where the check of addresses lets it."""
    with (
        running(recognize, allow=lambda address, port: port != 80) as client,
        socket.create_server(("127.0.0.1", 0)) as files,
    ):

        def give():
            connection, _ = files.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(clip) + clip)

        giver = threading.Thread(target=give)
        giver.start()
        response = client.post("/predict", json={"inputs": f"http://127.0.0.1:{files.getsockname()[1]}/clip.mp4"})
        giver.join()
        assert response.json()["modalities"] == ["audio"]


def test_a_failure_inside_is_not_told(recognize, monkeypatch):
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


def test_the_command_answers_what_it_took_before_it_ends(root):
    """SIGTERM while requests wait for their batch: all are answered, and the status is 0."""
    arguments = ["serve", "--port", "0", "--max_wait_ms", "25000", "--max_batch_size", "64"]
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
            assert line.startswith("umons: umons-mini answers at http://127.0.0.1:"), line or process.stderr.read()
            address = line.split()[-1].removesuffix("/predict")
            with httpx.Client(base_url=address, timeout=60, trust_env=False) as client, ThreadPoolExecutor(5) as pool:
                slow = socket.create_connection((client.base_url.host, client.base_url.port), 60)
                slow.sendall(head + body[:5])  # the others wait for it to share their batch
                until(lambda: client.get("/metrics").json()["inside"] == 1)
                taken = [pool.submit(client.post, "/predict", json=TEXT) for _ in range(5)]
                until(lambda: client.get("/metrics").json()["inside"] == 6)
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


def test_the_help_of_the_command(capsys):
    with pytest.raises(SystemExit) as exit:
        cli.main(["serve", "--help"])
    assert exit.value.code == 0
    text = capsys.readouterr().out
    for words in ("--model", "--host", "--port", "--max_batch_size", "--max_wait_ms", "--trust_remote_code", "curl"):
        assert words in text
    assert max(map(len, text.splitlines())) < 100


def test_a_port_that_is_taken(monkeypatch, capsys, recognize):
    monkeypatch.setattr(cli, "load_pipeline", lambda *arguments: recognize)
    with socket.create_server(("127.0.0.1", 0)) as sock:
        assert cli.main(["serve", "--port", str(sock.getsockname()[1])]) == 2
    assert "in use" in capsys.readouterr().err


def test_values_that_serve_nothing(capsys):
    for arguments in (
        ["--max_batch_size", "0"],
        ["--max_queue", "0"],
        ["--max_wait_ms", "-1"],
        ["--timeout_s", "0"],
        ["--port", "70000"],
    ):
        assert cli.main(["serve", *arguments]) == 2
        assert arguments[0] in capsys.readouterr().err
