"""The HTTP layer of the client: time-outs, retries, and readable errors.

    what happened                                     is the request repeated?
    no connection: the request was never sent         yes, whatever the request
    429, 503: refused, nothing was done               yes, after Retry-After seconds or a growing random pause
    no answer, half an answer, 408, 425, other 5xx    only if a repetition does no harm (safe=True)
    other 4xx (except `also`), a proxy's refusal      never
    3xx: a redirect                                   never; nor is it followed, so no other host gets the key

A request that may have been carried out and must not be repeated raises AnswerLost. The client pauses by
calling the function passed as `sleep`; the tests pass one that does not wait. There are time-outs for
connecting, for the next piece of an answer, for a whole answer (SLOWEST times as long as for a piece) and, if
`deadline` is given, for a call with all its retries.
"""

import json
import math
import random
import re
import ssl
import threading
import time
from urllib.parse import urlsplit

import requests

from audio.errors import AnswerLost, AuthError, BadInput, RequestRefused, ServiceUnavailable
from audio.key import session_for, would_be_readable

REGIONS = {  # API, LLM Gateway
    "us": ("https://api.assemblyai.com", "https://llm-gateway.assemblyai.com"),
    "eu": ("https://api.eu.assemblyai.com", "https://llm-gateway.eu.assemblyai.com"),
}
TIMEOUT = (10.0, 60.0)  # seconds to connect, and between two pieces of an answer
SLOWEST = 10  # a whole answer may take this many times the read time-out
LONGEST_PAUSE = 120.0  # seconds; if Retry-After asks for more, the call fails at once
SHOWN = 500  # a message of the service is cut to this many characters


def places(base):
    """ASSEMBLYAI_BASE_URL -> (URL of the API, URL of the LLM Gateway). Raises BadInput.

    "us" and "eu" stand for regions. Plain http works only for this machine: on a network, others could read
    the key."""
    if base.lower() in REGIONS:
        return REGIONS[base.lower()]
    parts = re.fullmatch(r"(?i)(https?)(://(?:[\w.-]+|\[::1\])(?::[1-9]\d*)?(?:/[\w./~%-]*)?)", base)
    if not parts:
        raise BadInput("ASSEMBLYAI_BASE_URL must be us, eu, or an address such as https://api.assemblyai.com")
    base = (parts[1].lower() + parts[2]).rstrip("/").removesuffix("/v2")
    if would_be_readable(base):
        host = urlsplit(base).hostname
        raise BadInput(f"ASSEMBLYAI_BASE_URL: others could read the key on its way to {host}. Use https")
    return next((pair for pair in REGIONS.values() if pair[0] == base), (base, base))


class Http:
    """Sends requests to the API at `base` with `key`. Threads may share one Http.

    A call sends at most `tries` requests. Unless the server asks for a pause of another length, the first
    pause lasts about `pause` seconds, and each later one twice as long as the one before."""

    def __init__(self, base, key, *, timeout=TIMEOUT, tries=6, pause=0.5, sleep=time.sleep):
        self.base, self.gateway = places(base)
        self.key, self.timeout, self.tries, self.pause = key, timeout, tries, pause
        self.sleep, self._local = sleep, Local(self.base)

    def call(self, method, url, *, safe=True, stream=False, needs="", also=(), deadline=math.inf, **request):
        """Sends a request, with retries -> a dict or, with `stream`, the open requests.Response.

        A `url` without a host is relative to the API. `needs`: a field that must hold text or a list;
        otherwise the answer counts as lost. `also`: more status codes to retry on. `deadline`: when to give
        up, measured by time.monotonic(). May raise any AudioError except AnswerCut, TranscriptFailed and
        StillProcessing."""
        url = url if "://" in url else f"{self.base}/{url}"
        attempt = 0
        while True:
            attempt += 1
            again, pending, status = True, False, None
            pause = self.pause * 2 ** (attempt - 1) * (0.5 + random.random())
            try:
                response = self._open(method, url, deadline, **request)
                status = response.status_code
                if status < 300 and stream:
                    return response
                body = b"".join(self.pieces(response, deadline))
                if status < 300:
                    return object_in(body, needs)
                if not (status in (408, 425, 429) or status >= 500 or status in also):
                    raise self._refused(response, message_in(body))
                again, pause = safe or status in (429, 503), pause_asked(response, pause)
                problem = f"it answered {status}{message_in(body)}"
            except AnswerLost as error:
                again, problem, pending = safe, str(error), error.pending
            except ServiceUnavailable as error:  # nothing was sent
                problem = str(error)
            problem = self.key.hidden(f"{method} {url}: {problem}")
            if not again:
                raise AnswerLost(problem, status=status, pending=pending)
            if attempt == self.tries:
                problem += f" ({attempt} attempts). Try again later"
            elif pause > LONGEST_PAUSE:
                problem += f". The server asks for a pause of {pause:.0f} s: try again after that"
            elif time.monotonic() + pause >= deadline:
                problem += ", and the time is up"
            else:
                self.sleep(pause)
                continue
            raise ServiceUnavailable(problem, status=status)

    def _open(self, method, url, deadline, **request):
        """Sends one request -> its response, with the body unread."""
        left = max(0.05, deadline - time.monotonic())
        timeout = tuple(min(seconds, left) for seconds in self.timeout)
        request |= {"auth": self.key, "timeout": timeout, "stream": True, "allow_redirects": False}
        try:
            return self._local.session.request(method, url, **request)
        except (OSError, ValueError) as error:  # all exceptions of `requests` are OSErrors
            problem = meaning(error)
        raise problem  # outside the except block: the exception caught there holds the request and the key

    def pieces(self, response, deadline=math.inf):
        """The body of an open response as it arrives. Raises AnswerLost if it breaks off or takes too
        long."""
        end = min(deadline, time.monotonic() + SLOWEST * self.timeout[1])
        with response:
            try:
                # read1 returns whatever has arrived, so the time is checked even if bytes only trickle in.
                while piece := response.raw.read1(65536, decode_content=True):
                    yield piece
                    if time.monotonic() > end:
                        break
                else:
                    return
                problem = AnswerLost("the answer was not complete in time", pending=True)
            except Exception:  # urllib3's own exceptions, and those of decompression
                problem = AnswerLost("the answer broke off")
        raise problem

    def _refused(self, response, words):
        """The error for an answer that a retry will not change, with advice for the user."""
        status, host = response.status_code, urlsplit(response.url).netloc
        if status == 401:
            region = "eu" if self.base == REGIONS["us"][0] else "us"
            hint = f"A key works only in its own region: ASSEMBLYAI_BASE_URL={region} selects another region"
            words += f". The key is not accepted: check ASSEMBLYAI_API_KEY. {hint}"
        elif status == 403 and "uploaded file" in words:
            words += ". An upload can be used only with a key of the same project"
        elif status < 400:
            place = response.headers.get("Location") or "no address"
            words += f" and redirects to {place}. Redirects are not followed: check ASSEMBLYAI_BASE_URL"
        kind = AuthError if status in (401, 403) else RequestRefused
        return kind(self.key.hidden(f"{host} answered {status}{words}"), status=status)


class Local(threading.local):
    """One session per thread: the `requests` library does not promise that a Session is thread-safe."""

    def __init__(self, url):
        self.session = session_for(url)
        self.session.mount("https://", Adapter())


class Adapter(requests.adapters.HTTPAdapter):
    """Reads an answer even if it arrives before the whole request is sent, with or without TLS.

    A server may refuse a request (401, 413) and close the connection while we are still sending. After a
    BrokenPipeError, urllib3 reads that answer, but over TLS the same failure raises other exceptions, which
    Patient turns into a BrokenPipeError."""

    def get_connection_with_tls_context(self, *args, **more):
        pool = super().get_connection_with_tls_context(*args, **more)
        if not issubclass(pool.ConnectionCls, Patient):
            pool.ConnectionCls = type("Connection", (Patient, pool.ConnectionCls), {})
        return pool


class Patient:
    def send(self, data):
        try:
            super().send(data)
        except (ssl.SSLError, ConnectionError) as error:
            raise BrokenPipeError(str(error)) from None


def meaning(error):
    """An exception of the `requests` library or the system below it -> the AudioError to raise instead:
    ServiceUnavailable if nothing was sent, AnswerLost if something may have been sent, and otherwise an error
    that a retry would not mend."""
    text, kinds = str(error), requests.exceptions
    reason = getattr(error.args[0] if error.args else None, "reason", None)
    absent = type(reason).__name__ in ("NewConnectionError", "NameResolutionError", "ConnectTimeoutError")
    if isinstance(error, BadInput):  # raised by the recording while it was being sent
        return error.with_traceback(None)
    if refused := re.search(r"Tunnel connection failed: ([\w -]+)", text):
        return RequestRefused(f"the proxy refuses the connection ({refused[1].strip()}): check HTTPS_PROXY")
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return RequestRefused("the certificate of the server is not valid")
    if not isinstance(error, OSError):  # `requests` parses the URL of a redirect that it does not follow
        return RequestRefused(f"the server redirects to a bad address ({text}): check ASSEMBLYAI_BASE_URL")
    if type(error) is OSError or isinstance(error, (ssl.SSLError, ValueError)):
        return BadInput(f"the request cannot be made: {text} (check the address and the certificate file)")
    if absent or isinstance(error, (kinds.ConnectTimeout, kinds.ProxyError)):
        return ServiceUnavailable("no connection: check the address and the network")
    if isinstance(error, kinds.SSLError) and "EOF" not in text:
        return AnswerLost("TLS failed: does the server speak https?")
    late = isinstance(error, kinds.Timeout)
    return AnswerLost("no answer in time" if late else "the connection broke", pending=late)


def parsed(body):
    """The value of a JSON text; None for anything else."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def object_in(body, needs=""):
    """The bytes of a JSON object -> dict. needs: a field that must hold text or a list. Raises AnswerLost
    if it does not, and for anything but a JSON object, such as a cut-off answer."""
    data = parsed(body)
    if not isinstance(data, dict) or (needs and not isinstance(data.get(needs), (str, list))):
        wanted = f"a JSON object with {needs}" if needs else "a JSON object"
        raise AnswerLost(f"the answer is not {wanted}: {body[:60].decode('utf-8', 'replace')!r}")
    return data


def message_in(body):
    """The body of an error answer (text or JSON) -> its texts as ": text; text", or "" if it has none."""
    text = body[: 20 * SHOWN].decode("utf-8", "replace")
    plain = re.sub(r"(?is)<(style|script|head).*?</\1>|<[^>]*>", " ", text)

    def texts(value):
        if isinstance(value, str):
            return [" ".join(value.split()).rstrip(".")]
        parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        return [text for part in parts for text in texts(part)]

    text = "; ".join(filter(None, dict.fromkeys(texts(parsed(body) or plain))))
    return f": {text[:SHOWN]}" if text else ""


def pause_asked(response, usual):
    """Retry-After in seconds (RFC 9110, 10.2.3); without a number of seconds, the usual pause."""
    value = response.headers.get("Retry-After", "")
    return float(value[:9]) if value.isascii() and value.isdigit() else usual
