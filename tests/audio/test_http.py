"""http: the key goes only to its own host and is never shown, and a request is repeated only if that is safe.

A job that is requested twice is billed twice."""

import http.server
import logging
import re
import socket
import ssl
import subprocess
import threading
import time
import traceback
import warnings

import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted import CODES, Twisted

from audio.errors import AnswerLost, AudioError, AuthError, BadInput, RequestRefused, ServiceUnavailable
from audio.http import LONGEST_PAUSE, REGIONS, Http, pause_asked, places
from audio.key import Key
from audio.recording import Recording

SECRET = "3f9c-secret-e17b"


class Scripted:
    """A server that records the requests and gives fixed answers of the form (status, headers, body)."""

    def __init__(self, *answers):
        self.answers, self.requests = list(answers), []
        outer = self

        class Answers(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # an answer is sent in one piece

            def do_GET(self):
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                outer.requests.append((self.command, self.path, dict(self.headers)))
                status, headers, body = outer.answers[min(len(outer.requests), len(outer.answers)) - 1]
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            do_POST = do_DELETE = do_CONNECT = do_GET

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


def http_to(url, **more):
    more = {"pause": 0.001, "timeout": (5, 20), **more}
    return Http(url, Key(SECRET), **more)


@pytest.mark.parametrize(
    "base, api",
    [
        ("us", REGIONS["us"][0]),
        ("eu", REGIONS["eu"][0]),
        ("https://api.eu.assemblyai.com/", REGIONS["eu"][0]),
        ("https://api.assemblyai.com/v2", REGIONS["us"][0]),
        ("http://127.0.0.1:8000/", "http://127.0.0.1:8000"),
        ("http://localhost:1", "http://localhost:1"),
        ("http://[::1]:1", "http://[::1]:1"),
        ("https://proxy.example:8443/aai", "https://proxy.example:8443/aai"),
    ],
)
def test_a_base_url_or_region_gives_the_addresses_of_the_api_and_the_gateway(base, api):
    assert places(base)[0] == api
    assert ("gateway" in places(base)[1]) == ("assemblyai.com" in api)


@pytest.mark.parametrize(
    "base",
    [
        "http://api.assemblyai.com",
        "http://127.0.0.1.evil.example",
        "http://10.0.0.1",
        "http://127.0.0.1@evil.example/",
        "https://me:pw@api.assemblyai.com",
        "ftp://x",
        "api.x",
        "https://",
        "https://x/?a=b",
        "https://a b",
        "http://[::1",
        "http://localhost.evil.example",
        "https://x\\@y",
        "file:///etc/passwd",
    ],
)
def test_an_unsafe_or_malformed_base_url_is_refused(base):
    with pytest.raises(BadInput, match="ASSEMBLYAI_BASE_URL"):
        places(base)


def test_an_impossible_port_is_reported():
    with pytest.raises(BadInput, match="cannot be made"):
        http_to("http://localhost:99999").call("GET", "x")


@given(st.from_regex(r"[a-z0-9.:@/\\\[\]%-]{1,20}", fullmatch=True))
def test_plain_http_goes_to_this_machine_only(host):
    try:
        api, _ = places("http://" + host)
    except BadInput:
        return
    real = requests.Request("GET", api + "/v2/transcript").prepare().url.split("/")[2]
    assert real.startswith(("localhost", "127.", "[::1]", "[0:", "[::ffff:127."))


def test_netrc_cannot_replace_the_key(tmp_path, monkeypatch):
    (tmp_path / "netrc").write_text("default login somebody password else\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert requests.utils.get_netrc_auth("https://api.assemblyai.com") == ("somebody", "else")
    # Over https, proxies and certificates are taken from the environment.
    assert http_to("us")._local.session.trust_env
    with Scripted((200, {}, b"{}")) as server:
        service = http_to(server.url)
        # First with the trust_env that is used for http, then with the one for https.
        for trusted in (service._local.session.trust_env, True):
            service._local.session.trust_env = trusted
            service.call("GET", "v2/transcript")
        assert [headers["Authorization"] for *_, headers in server.requests] == [SECRET, SECRET]


def test_a_proxy_never_sees_plain_http(monkeypatch):
    with Scripted((200, {}, b'{"proxy": true}')) as proxy, Scripted((200, {}, b"{}")) as server:
        monkeypatch.setenv("http_proxy", proxy.url)
        assert http_to(server.url).call("GET", "x") == {} and not proxy.requests


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("same", [False, True])
def test_redirects_are_not_followed_and_the_error_names_the_new_address(method, status, same):
    with Scripted((200, {}, b"{}")) as other, Scripted() as server:
        place = "/x" if same else other.url + "/x"
        server.answers.append((status, {"Location": place}, b""))
        with pytest.raises(RequestRefused, match="ASSEMBLYAI_BASE_URL") as caught:
            http_to(server.url).call(method, "v2/transcript")
        assert f"redirects to {place}" in str(caught.value) and caught.value.status == status
        assert not other.requests and len(server.requests) == 1


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("safe", [True, False])
def test_a_status_code_leads_to_a_retry_only_if_a_retry_may_help_and_is_safe(code, safe):
    status = int(code)
    may = status in (408, 425, 429) or status >= 500
    again = status in (429, 503) or (safe and may)
    kind = (
        AuthError
        if status in (401, 403)
        else RequestRefused
        if not may
        else ServiceUnavailable
        if again
        else AnswerLost
    )
    with Scripted((status, {}, b'{"error": "so it is"}')) as server:
        with pytest.raises(kind, match="so it is") as caught:
            http_to(server.url, tries=3).call("POST", "x", safe=safe)
        assert len(server.requests) == (3 if again else 1)
        assert type(caught.value) is kind and caught.value.status == status
        assert caught.value.retryable == (kind is ServiceUnavailable)
    if again:
        with Scripted((status, {}, b""), (200, {}, b'{"a": 1}')) as server:
            assert http_to(server.url).call("POST", "x", safe=safe) == {"a": 1}


@pytest.mark.parametrize(
    "body", [b"", b"null", b"[]", b'{"a": ', b"<html>", b"\xff\xfe", b"[" * 100_000, b"NaN"]
)
def test_an_answer_that_is_not_a_json_object_counts_as_lost(body):
    with Scripted((200, {}, body), (200, {}, b'{"a": 1}')) as server:
        assert http_to(server.url).call("GET", "x") == {"a": 1} and len(server.requests) == 2
    with Scripted((200, {}, body)) as server, pytest.raises(AnswerLost):
        http_to(server.url).call("POST", "x", safe=False)


@pytest.mark.parametrize("value", [b"null", b"5", b"true", b"{}"])
def test_an_answer_with_an_id_or_list_of_the_wrong_type_counts_as_lost(value):
    with Scripted((200, {}, b'{"a": %s}' % value)) as server, pytest.raises(AnswerLost):
        http_to(server.url).call("POST", "x", safe=False, needs="a")


@pytest.mark.parametrize("headers", [{"Content-Length": "99"}, {"Content-Encoding": "gzip"}])
def test_half_an_answer_counts_as_lost(headers):
    with Scripted((200, {"Connection": "close", **headers}, b"half of the subtitles")) as server:
        with pytest.raises(ServiceUnavailable, match="broke off|no answer|broke"):
            http_to(server.url, tries=2).call("GET", "x")
        assert len(server.requests) == 2


def test_without_a_connection_any_request_is_retried():
    slept = []
    with Scripted() as server:
        url = server.url
    with pytest.raises(ServiceUnavailable, match="4 attempts") as caught:
        Http(url, Key(SECRET), tries=4, sleep=slept.append).call("POST", "x", safe=False)
    assert len(slept) == 3 and type(caught.value) is ServiceUnavailable


def test_pauses_double_and_have_jitter():
    slept = []
    with Scripted((500, {}, b"")) as server:
        for _ in range(20):
            with pytest.raises(ServiceUnavailable):
                http_to(server.url, tries=4, pause=1.0, sleep=slept.append).call("GET", "x")
    rounds = [slept[i : i + 3] for i in range(0, 60, 3)]
    for pauses in rounds:
        assert all(2**i / 2 <= pause <= 2**i * 1.5 for i, pause in enumerate(pauses))
    assert len({pauses[0] for pauses in rounds}) > 10


@given(st.integers(0, 100))
@settings(max_examples=10)
def test_the_retry_after_header_is_obeyed(seconds):
    slept = []
    with Scripted((429, {"Retry-After": str(seconds)}, b""), (200, {}, b"{}")) as server:
        http_to(server.url, sleep=slept.append).call("POST", "x", safe=False)
    assert slept == [seconds]


def test_too_long_a_pause_becomes_an_error():
    slept = []
    with Scripted((503, {"Retry-After": str(LONGEST_PAUSE + 1).partition(".")[0]}, b"")) as server:
        with pytest.raises(ServiceUnavailable, match="asks for a pause of"):
            http_to(server.url, sleep=slept.append).call("GET", "x")
        with pytest.raises(ServiceUnavailable):
            http_to(server.url, sleep=slept.append).call("GET", "x", deadline=time.monotonic() + 1)
    assert not slept


@given(st.text(max_size=20) | st.text("0123456789", max_size=20))
def test_any_retry_after_header_gives_seconds_or_the_usual_pause(text):
    response = requests.Response()
    response.headers["Retry-After"] = text
    expected = float(text[:9]) if re.fullmatch("[0-9]+", text) else 0.25
    assert pause_asked(response, 0.25) == expected


def test_a_deadline_ends_a_call_whatever_the_server_does(monkeypatch):
    monkeypatch.setenv("ASSEMBLYAI_API_KEY", SECRET)
    for twist in ("drip", "stall", "503", "truncated"):
        with Twisted([twist] * 10_000) as box:
            started = time.monotonic()
            with pytest.raises(ServiceUnavailable):
                http_to(box.url, tries=10_000, timeout=(5, 5)).call(
                    "GET", "v2/transcript", deadline=started + 0.15
                )
            assert time.monotonic() - started < 20  # about 0.15 s, but more on a busy machine


def test_only_errors_about_uploads_mention_projects():
    with Scripted((403, {}, b'{"error": "model not allowed"}')) as server, pytest.raises(AuthError) as caught:
        http_to(server.url).call("POST", "v1/chat/completions")
    assert "project" not in str(caught.value)


@pytest.mark.parametrize("location", ["http://[::1", "", "http://", "//"])
def test_a_redirect_to_a_bad_address_is_reported(location):
    with (
        Scripted((302, {"Location": location}, b"")) as server,
        pytest.raises(RequestRefused, match="redirects to .*ASSEMBLYAI_BASE_URL"),
    ):
        http_to(server.url).call("GET", "x")


def test_a_proxy_that_refuses_the_connection_is_reported(monkeypatch):
    with Scripted((407, {}, b"")) as proxy:
        monkeypatch.setenv("https_proxy", proxy.url)
        with pytest.raises(RequestRefused, match="the proxy refuses the connection .407 Proxy Auth"):
            http_to("https://service.example").call("GET", "x")


def test_a_missing_certificate_file_is_reported(monkeypatch):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/no/such/file.pem")
    with pytest.raises(BadInput, match="/no/such/file.pem"):
        http_to("https://127.0.0.1:1").call("GET", "x")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """Makes a certificate for 127.0.0.1 with openssl -> (certificate file, key file)."""
    folder = tmp_path_factory.mktemp("tls")
    args = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=x -addext subjectAltName=IP:127.0.0.1"
    command = [*args.split(), "-keyout", folder / "key.pem", "-out", folder / "cert.pem"]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs openssl")
    return folder / "cert.pem", folder / "key.pem"


class Impatient:
    """A TLS server that reads only the start of a request, sends `answer` (perhaps empty), and hangs up."""

    def __init__(self, certificate, answer):
        self.answer, self.count = answer, 0
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(*certificate)
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"https://127.0.0.1:{self.socket.getsockname()[1]}"
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            try:
                with self.context.wrap_socket(connection, server_side=True) as stream:
                    self.count += 1
                    stream.recv(4096)
                    stream.sendall(self.answer)
                    time.sleep(0.2)  # the answer arrives while the client is still sending
            except OSError:
                pass


@pytest.mark.parametrize(
    "status, kind", [(401, AuthError), (413, RequestRefused), (None, ServiceUnavailable)]
)
def test_an_early_answer_over_tls_is_read_and_a_missing_answer_counts_as_a_broken_connection(
    status, kind, certificate, monkeypatch
):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate[0]))
    body = b'{"error": "enough of this"}'
    head = f"HTTP/1.1 {status} No\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode()
    server = Impatient(certificate, head + body if status else b"")
    with warnings.catch_warnings(), pytest.raises(kind) as caught:
        warnings.simplefilter("ignore")
        sound = Recording(b"ID3" + bytes(30_000_000))
        http_to(server.url, tries=3).call("POST", "v2/upload", data=sound)
    server.socket.close()
    assert type(caught.value) is kind and "TLS" not in str(caught.value)
    if status:
        assert "enough of this" in str(caught.value) and server.count < 3
    else:
        assert "the connection broke" in str(caught.value) and server.count == 3


@pytest.mark.parametrize("name", ["US", "Eu", "HTTPS://API.EU.assemblyai.com".replace("API.EU", "api.eu")])
def test_a_region_or_scheme_may_be_in_capitals(name):
    assert places(name) in REGIONS.values()


def test_a_server_without_tls_is_reported():
    with Scripted((200, {}, b"{}")) as server, pytest.raises(ServiceUnavailable, match="TLS"):
        http_to(server.url.replace("http", "https"), tries=1).call("GET", "x")


@pytest.mark.parametrize("echo", [False, True])
def test_no_error_and_no_log_and_no_traceback_contains_the_key(caplog, echo):
    """Some loggers add the values of all variables to a traceback. Even there, the key must not appear.
    If a server sends the key back, variables may contain it, but even then the error message may not."""
    caplog.set_level(logging.DEBUG)
    body = b'{"error": "bad token %s"}' % (SECRET.encode() if echo else b"")
    with Scripted() as closed:
        nowhere = closed.url
    histories = [[(status, {}, body)] for status in (400, 401, 403, 404, 429, 500, 503)]
    histories += [[(200, {}, body[:-1])], [(302, {"Location": "http://other.example"}, b"")], None]
    for answers in histories:
        with Scripted(*answers or [(200, {}, b"")]) as server:
            service = http_to(server.url if answers else nowhere, tries=2)
            for safe in (True, False):
                error = error_of(service, safe)
                report = "".join(
                    traceback.TracebackException.from_exception(error, capture_locals=not echo).format()
                )
                assert "safe = " in report or echo
                assert SECRET not in report + str(error) + repr(error) + repr(vars(error))
                assert getattr(error.__context__, "request", None) is None
            assert SECRET not in repr(service) + repr(vars(service))
    assert caplog.records and SECRET not in caplog.text


def error_of(service, safe):
    try:
        service.call("POST", "x", safe=safe)
    except AudioError as error:
        return error
    raise AssertionError("the call raised no error")


def test_an_error_about_a_key_suggests_another_region_and_one_about_an_upload_mentions_projects():
    with Scripted((401, {}, b'{"error": "Authentication error, API token missing/invalid"}')) as server:
        with pytest.raises(AuthError, match="missing/invalid.*ASSEMBLYAI_BASE_URL=us") as caught:
            http_to(server.url).call("GET", "x")
        assert caught.value.status == 401
    with (
        Scripted((403, {}, b'{"error": "Cannot access uploaded file"}')) as server,
        pytest.raises(AuthError, match="project"),
    ):
        http_to(server.url).call("POST", "x")
    with Scripted((404, {}, b'{"error": "Not found"}')) as server:
        with pytest.raises(RequestRefused) as caught:
            http_to(server.url).call("POST", "x")
        assert str(caught.value) == f"{server.url.removeprefix('http://')} answered 404: Not found"


@pytest.mark.parametrize(
    "body",
    [
        b'{"error": "why"}',
        b'{"message": "why", "code": 3}',
        b'{"error": {"message": "why"}}',
        b'{"message": "no", "metadata": {"errors": ["why"]}}',
        b'{"error": "why", "status": "x"}',
        b'{"detail": "why"}',
        b'{"detail": [{"loc": ["body"], "msg": "why"}]}',
        b'{"errors": ["why"]}',
        b'{"errors": [{"message": "why"}]}',
        b'{"message": {"message": "why"}}',
        b"why",
        b'"why"',
        b"<html><head><title>400</title><style>b {}</style></head><body><h1>why</h1></body></html>",
        b"\xffwhy",
    ],
)
def test_the_message_of_an_error_is_found_in_every_format(body):
    with Scripted((400, {}, body)) as server, pytest.raises(RequestRefused, match="why"):
        http_to(server.url).call("GET", "x")
