# Copyright 2026 The modeling_umons authors.
# SPDX-License-Identifier: MIT
"""URLs and files of strangers: what is fetched, and what they can make nobody fetch. Servers are on this machine."""

import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import av
import pytest
from transformers import pipeline

from modeling_umons.models.umons.media_umons import read_clip
from modeling_umons.serving import fetch as fetch_umons
from modeling_umons.serving.fetch import FetchError, fetch, fetch_media, is_public
from modeling_umons.serving.request_handling import (
    Limits,
    RequestError,
    answer,
    read_request,
)


@pytest.fixture(scope="module")
def recognize(root):
    return pipeline("multimodal-emotion-recognition", model=str(root / "hub" / "umons-mini"))


@pytest.fixture(scope="module")
def clip(root) -> bytes:
    return (root / "hub" / "sample" / "clips" / "000.mp4").read_bytes()


# ---- addresses ----


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.8.8.8",
        "0.0.0.0",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "100.100.100.200",
        "192.0.0.192",
        "168.63.129.16",
        "192.0.2.1",
        "198.18.0.1",
        "192.88.99.1",
        "224.0.0.1",
        "239.255.255.250",
        "240.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "::ffff:127.0.0.1",
        "::ffff:8.8.8.8",
        "::127.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b:1::1",
        "2002:7f00:1::",
        "2001::1",
        "2001:db8::1",
        "3fff::1",
        "fe80::1",
        "fe80::1%1",
        "fec0::1",
        "fc00::1",
        "fd00:ec2::254",
        "ff02::1",
        "ff0e::1",
    ],
)
def test_addresses_that_are_not_public(address):
    assert not is_public(address, 80)


def test_public_addresses():
    for address in ("8.8.8.8", "93.184.216.34", "2606:4700:4700::1111", "2a00:1450:4001::1"):
        assert is_public(address, 80)
        assert is_public(address, 443)
        assert not is_public(address, 22)
        assert not is_public(address, 8080)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/a.wav", "http://127.1/", "http://2130706433/", "http://0x7f.0.0.1/", "http://0177.0.0.1/",
        "http://\uff11\uff12\uff17.\uff10.\uff10.\uff11/", "http://[::1]/", "http://[::ffff:127.0.0.1]/", "http://[64:ff9b::a9fe:a9fe]/",
        "http://localhost/", "https://169.254.169.254/latest/meta-data", "http://0/", "http://[::]:80/",
        "http://user:secret@8.8.8.8/", "http://8.8.8.8:22/", "http://8.8.8.8:0/", "http://\u00fc" + "\u00fc" * 300, "http://8.8.8.8:99999/", "http://[::1/", "http:///a.wav",
        "ftp://8.8.8.8/", "file:///etc/passwd", "gopher://8.8.8.8/", "http://8.8.8.8/a\r\nHost: b", "http://8.8.8.8/a b",
        "http://8.8.8.8/" + "a" * 3000,
    ],
    ids=lambda url: url.encode("ascii", "replace").decode()[:30].replace("\r\n", " "),
)  # fmt: skip
def test_urls_that_are_not_fetched(url):
    """None of them needs a network to be refused."""
    with pytest.raises(FetchError) as caught:
        fetch(url, 1000, time.monotonic() + 5)
    assert caught.value.status == 400
    assert "secret" not in str(caught.value)


def test_a_long_url_takes_no_time(monkeypatch):
    """Its length is looked at before its parts; so is that of a redirection."""
    monkeypatch.setattr(fetch_umons, "urlsplit", lambda url: pytest.fail("it was read"))
    monkeypatch.setattr(fetch_umons, "urljoin", lambda *urls: pytest.fail("it was joined"))
    for url in ("http://" + "\u00fc" * 10**6, "http://" + "a." * 10**6):
        with pytest.raises(FetchError, match="too long") as caught:
            fetch(url, 1000, time.monotonic() + 5)
        assert len(str(caught.value)) < 300
        with pytest.raises(FetchError, match="too long"):
            fetch_umons._join_url("http://8.8.8.8/", url)


# ---- downloads ----


@contextmanager
def serving(handle, tls=None) -> Iterator[int]:
    """Calls `handle(connection, request)` for each connection, in a thread; yields the port."""
    threads = []

    def talk(connection):
        with connection:
            try:
                connection.settimeout(10)
                secure = tls.wrap_socket(connection, server_side=True) if tls else connection
                request = b""
                while b"\r\n\r\n" not in request and (part := secure.recv(4096)):
                    request += part
                handle(secure, request.decode())
                secure.close()
            except OSError:
                pass  # the client may hang up whenever it likes

    def accept():
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threads.append(threading.Thread(target=talk, args=[connection]))
            threads[-1].start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        acceptor = threading.Thread(target=accept)
        acceptor.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            acceptor.join()
            for thread in threads:
                thread.join()


def reply(connection, body: bytes, status: str = "200 OK", *headers: str):
    lines = [f"HTTP/1.1 {status}", *(headers or [f"Content-Length: {len(body)}"]), "", ""]
    connection.sendall("\r\n".join(lines).encode() + body)


def anywhere(address: str, port: int) -> bool:
    return True


def get(url: str, max_bytes: int = 10_000, seconds: float = 10.0, allow=anywhere) -> bytes:
    return fetch(url, max_bytes, time.monotonic() + seconds, allow)


def refused(status: int, url: str, **options) -> str:
    with pytest.raises(FetchError) as caught:
        get(url, **options)
    assert caught.value.status == status
    return str(caught.value)


def test_a_download(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    requests = []

    def handle(connection, request):
        requests.append(request)
        if "chunked" in request:
            reply(connection, b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", "200 OK", "Transfer-Encoding: chunked")
        elif "until_end" in request:
            reply(connection, b"fgh", "200 OK", "Content-Type: audio/wav")
        else:
            reply(connection, b"sound")

    with serving(handle) as port:
        assert get(f"http://localhost:{port}/ä clip.wav?x=ü&y=%20#part".replace(" ", "%20")) == b"sound"
        assert get(f"http://127.0.0.1:{port}/chunked") == b"abcde"
        assert get(f"http://127.0.0.1:{port}/until_end") == b"fgh"
    assert requests[0].startswith("GET /%C3%A4%20clip.wav?x=%C3%BC&y=%20 HTTP/1.1\r\n")
    assert f"\r\nHost: localhost:{port}\r\n" in requests[0]
    assert "Accept-Encoding: identity" in requests[0]


def test_an_answer_that_is_too_large():
    def handle(connection, request):
        if "announced" in request:
            reply(connection, b"", "200 OK", "Content-Length: 1000000")
        elif "chunked" in request:
            reply(connection, b"", "200 OK", "Transfer-Encoding: chunked")
            for _ in range(1000):
                connection.sendall(b"400\r\n" + b"x" * 0x400 + b"\r\n")
        else:
            reply(connection, b"", "200 OK", "Content-Type: audio/wav")
            for _ in range(1000):
                connection.sendall(b"x" * 0x400)

    with serving(handle) as port:
        for name in ("announced", "chunked", "silent"):
            assert "too large" in refused(413, f"http://127.0.0.1:{port}/{name}")


def test_slow_servers_are_cut_off():
    """One that never answers, one that trickles its headers, one that trickles its body."""
    done = threading.Event()

    def handle(connection, request):
        if "headers" in request:
            connection.sendall(b"HTTP/1.1 200 OK\r\n")
        elif "body" in request:
            reply(connection, b"", "200 OK", "Content-Length: 5000")
        elif "until_end" in request:
            reply(connection, b"", "200 OK", "Content-Type: audio/wav")
        while not done.wait(0.02):
            connection.sendall(b"" if "never" in request else b"a")

    with serving(handle) as port:
        try:
            for name in ("never", "headers", "body", "until_end"):
                began = time.monotonic()
                assert "took too long" in refused(422, f"http://127.0.0.1:{port}/{name}", seconds=0.3)
                assert time.monotonic() - began < 3
        finally:
            done.set()


def test_redirects():
    def handle(connection, request):
        path = request.split()[1]
        steps = {
            "/1": "/2",
            "/2": f"http://127.0.0.1:{port}/3",
            "/3": "/end",
            "/round": "/round",
            "/file": "file:///etc/passwd",
            "/bad": "http://[::1",
        }
        if path == "/end":
            reply(connection, b"there")
        else:
            reply(connection, b"", "302 Found", f"Location: {steps.get(path, path[1:])}", "Content-Length: 0")

    checked = []

    def allow(address, port):
        checked.append((address, port))
        return port > 1000

    with serving(handle) as port:
        here = f"http://127.0.0.1:{port}"
        assert get(f"{here}/1", allow=allow) == b"there"
        assert checked == [("127.0.0.1", port)] * 4  # each hop
        assert "redirected more than 3 times" in refused(422, f"{here}/round")
        assert "no URL" in refused(422, f"{here}/bad")
        assert "only http and https" in refused(400, f"{here}/file")
        assert "port 80 is not fetched from" in refused(400, f"{here}/http://169.254.169.254/latest", allow=allow)
        assert checked[-1] == ("169.254.169.254", 80)


def test_answers_that_are_no_file():
    def handle(connection, request):
        if "missing" in request:
            reply(connection, b"", "404 Not Found")
        elif "cut" in request:
            reply(connection, b"abc", "200 OK", "Content-Length: 100")
        elif "garbage" in request:
            connection.sendall(b"\x00\x01 what is this\r\n\r\n")
        elif "nowhere" in request:
            reply(connection, b"", "302 Found")

    with serving(handle) as port:
        here = f"http://127.0.0.1:{port}"
        assert "answered with status 404" in refused(422, f"{here}/missing")
        assert "answered with status 302" in refused(422, f"{here}/nowhere")
        for name in ("cut", "garbage", "hangs_up"):
            assert "could not be fetched" in refused(422, f"{here}/{name}")
    assert "could not be fetched" in refused(422, f"{here}/closed")


def test_the_address_that_was_checked_is_the_one_that_is_met(monkeypatch):
    """A name that is public when it is checked and local when it is used: it is looked up once."""
    real, answers, requests = socket.getaddrinfo, [], []

    def rebinding(host, port, *args, **kwargs):
        if host != "rebind.example":
            return real(host, port, *args, **kwargs)
        answers.append(host)
        address = "127.0.0.1" if len(answers) == 1 else "127.0.0.2"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)

    def handle(connection, request):
        requests.append(request)
        reply(connection, b"first")

    with serving(handle) as port:
        assert get(f"http://rebind.example:{port}/", allow=lambda address, port: address == "127.0.0.1") == b"first"
    assert len(answers) == 1
    assert f"\r\nHost: rebind.example:{port}\r\n" in requests[0]


def test_one_address_of_many_that_is_local_is_enough_to_refuse(monkeypatch):
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 80)) for address in ("8.8.8.8", "10.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: found)
    assert "is not fetched from" in refused(400, "http://mixed.example/", allow=is_public)


def test_a_name_that_takes_long_to_look_up(monkeypatch):
    done = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: [done.wait(20)] * 0)
    began = time.monotonic()
    assert "could not be found in time" in refused(422, "http://slow.example/", seconds=0.1)
    assert time.monotonic() - began < 5
    done.set()


def test_tls_checks_the_name_at_the_pinned_address(monkeypatch, tmp_path):
    import ssl

    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    make = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=clips.example"
    options = ["-addext", "subjectAltName=DNS:clips.example", "-keyout", key, "-out", certificate]
    try:
        subprocess.run([*make.split(), *options], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("openssl, which makes the certificate, is not installed")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    names = []
    context.sni_callback = lambda connection, name, context: names.append(name)
    real = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *args, **kwargs: real("127.0.0.1", *args, **kwargs))

    with serving(lambda connection, request: reply(connection, b"secure"), context) as port:
        assert "SSLCertVerificationError" in refused(422, f"https://clips.example:{port}/")
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert get(f"https://clips.example:{port}/") == b"secure"
        assert "SSLCertVerificationError" in refused(422, f"https://other.example:{port}/")
    assert names == ["clips.example", "clips.example", "other.example"]


def test_downloads_of_a_request_share_their_limits(clip):
    with serving(lambda connection, request: reply(connection, clip)) as port:
        url = f"http://127.0.0.1:{port}/"
        request = read_request({"inputs": [url, {"text": "so glad", "audio": url}]})
        fetch_media(request, Limits(), anywhere)
        assert request.inputs == [{"video": clip}, {"text": "so glad", "audio": clip}]
        request = read_request({"inputs": [url, url]})
        with pytest.raises(FetchError, match="too large"):
            fetch_media(request, Limits(max_media_bytes=len(clip) + 10), anywhere)


# ---- files that name other files ----


@pytest.fixture(scope="module")
def lures(tmp_path_factory, root) -> Iterator[tuple[dict[str, bytes], list[str]]]:
    """Playlists that name a real clip by path and by URL; and which requests for it came."""
    target = root / "hub" / "sample" / "clips" / "000.mp4"
    met = []

    def handle(connection, request):
        met.append(request)
        reply(connection, target.read_bytes())

    with serving(handle) as port:
        url = f"http://127.0.0.1:{port}/clip.mp4"
        lures = {}
        for kind, place in {"path": str(target), "file": f"file://{target}", "url": url}.items():
            hls = f"#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\n{place}\n#EXT-X-ENDLIST\n"
            dash = (
                '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration='
                f'"PT3S" profiles="urn:mpeg:dash:profile:isoff-on-demand:2011"><Period><AdaptationSet mimeType="video/mp4">'
                f'<Representation id="1" bandwidth="1"><BaseURL>{place}</BaseURL></Representation></AdaptationSet></Period></MPD>'
            )
            sdp = f"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\na=control:{place}\nm=audio {port} RTP/AVP 0\n"
            lures |= {
                f"hls-{kind}": hls,
                f"ffconcat-{kind}": f"ffconcat version 1.0\nfile '{place}'\n",
                f"dash-{kind}": dash,
                f"sdp-{kind}": sdp,
                f"pls-{kind}": f"[playlist]\nFile1={place}\nNumberOfEntries=1\n",
                f"smil-{kind}": f'<smil><body><video src="{place}"/></body></smil>',
                f"imf-{kind}": f'<?xml version="1.0"?><AssetMap><Path>{place}</Path></AssetMap>',
                f"rtsp-{kind}": f"rtsptext\n{place}\n",
            }
        lures["mov-reference"] = _reference_movie(str(target))
        yield {name: lure if isinstance(lure, bytes) else lure.encode() for name, lure in lures.items()}, met


def _reference_movie(path: str) -> bytes:
    """A QuickTime movie that says where a movie is, instead of being one."""

    def atom(name: bytes, body: bytes) -> bytes:
        return (len(body) + 8).to_bytes(4, "big") + name + body

    place = f"file://{path}\0".encode()
    reference = atom(b"rdrf", bytes(4) + b"url " + len(place).to_bytes(4, "big") + place)
    return atom(b"ftyp", b"qt  " + bytes(4) + b"qt  ") + atom(b"moov", atom(b"rmra", atom(b"rmda", reference)))


def test_the_lures_work_where_nothing_guards(lures, tmp_path):
    """Else the next test would show nothing: FFmpeg by itself does follow a list."""
    files, _ = lures
    (tmp_path / "list.ffconcat").write_bytes(files["ffconcat-path"])
    with av.open(str(tmp_path / "list.ffconcat"), options={"safe": "0"}) as container:
        assert next(container.decode(audio=0)).samples > 0


def test_no_uploaded_file_opens_another(lures, recognize):
    files, met = lures
    for name, data in files.items():
        with pytest.raises(OSError, match=r"could not be opened|holds no sound"):
            read_clip(data)
        (found,) = answer(recognize, [read_request({"inputs": data})])
        assert isinstance(found, RequestError), name
        assert found.status == 422
    assert met == []
