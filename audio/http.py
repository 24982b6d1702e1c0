"""The HTTP under the client: time-outs, retries, and errors in words.

    what happened                                     is it repeated?
    no connection: the request never left us          yes, whatever it was
    429, 503: refused, nothing was done               yes, after Retry-After or a growing pause with jitter
    no answer, half an answer, other 5xx              only where a repetition does no harm (safe=True)
    other 4xx                                         never

A request that may have been carried out and may not be repeated raises AnswerLost. All waiting goes through
`clock` and `sleep`, so tests need no patience. Time-outs are those of RFC 9110's client: seconds to connect,
seconds between two pieces of an answer, and a deadline for all of it where one is given.
"""

import email.utils
import itertools
import json as json_text
import random
import threading
import time
from urllib.parse import urljoin, urlsplit

import requests

from audio.errors import AnswerLost, AuthError, BadInput, RequestRefused, ServiceUnavailable
from audio.key import session_for, would_be_readable

REGIONS = {  # API, LLM Gateway
    "us": ("https://api.assemblyai.com", "https://llm-gateway.assemblyai.com"),
    "eu": ("https://api.eu.assemblyai.com", "https://llm-gateway.eu.assemblyai.com"),
}
CONNECT, READ = 10.0, 60.0  # seconds
SLOWEST = 10  # read time-outs that an answer may take in all
LONGEST_PAUSE = 120.0  # seconds: who is asked to wait longer is told so instead
SHOWN = 500  # characters of a service's message


def places(base):
    """ASSEMBLYAI_BASE_URL -> (URL of the API, URL of the LLM Gateway). Raises BadInput.

    "us" and "eu" are known by name. Plain http is for this machine only: elsewhere all could read the key."""
    if base in REGIONS:
        return REGIONS[base]
    base = base.rstrip("/").removesuffix("/v2")
    try:
        parts = urlsplit(base)
        wrong = (
            parts.scheme not in ("http", "https")
            or not parts.hostname
            or parts.port == 0
            or parts.query
            or parts.fragment
            or "@" in parts.netloc
            or any(not c.isprintable() or c in " \\" for c in base)
        )
    except ValueError:
        wrong = True
    if wrong:
        raise BadInput("ASSEMBLYAI_BASE_URL must be us, eu, or an address such as https://api.assemblyai.com")
    if would_be_readable(base):
        raise BadInput(
            f"ASSEMBLYAI_BASE_URL is plain http to {parts.hostname}: the key would travel in the "
            "open. Use https; http is for this machine only"
        )
    return next((pair for pair in REGIONS.values() if pair[0] == base), (base, base))


class NotSent(Exception):
    """No connection: whatever was to be asked has not been."""


class Lost(Exception):
    """Sent, perhaps carried out, and no whole answer. pending: the server may be at work on it still."""

    pending = False


class TimedOut(Lost):
    pending = True


class Http:
    """Requests to the API at `base` with `key`; safe to share between threads.

    `tries` requests at most for one call; `pause` seconds before the second, doubled from then on."""

    def __init__(
        self,
        base,
        key,
        *,
        timeout=(CONNECT, READ),
        tries=6,
        pause=0.5,
        clock=time.monotonic,
        sleep=time.sleep,
    ):
        self.base, self.gateway = places(base)
        self.key, self.timeout, self.tries, self.pause = key, timeout, tries, pause
        self.clock, self.sleep = clock, sleep
        self._local = threading.local()

    def __repr__(self):
        return f"Http({self.base!r})"

    def call(self, method, url, *, safe=True, text=False, stream=False, also=(), deadline=None, **request):
        """Asks until there is an answer -> dict, with `text` str, with `stream` the open requests.Response.

        A `url` without a host belongs to the API. `also` are status codes to repeat besides the usual ones;
        `deadline` is a time of `clock`. Raises every AudioError but TranscriptFailed and StillProcessing."""
        url = urljoin(self.base + "/", url.lstrip("/")) if "://" not in url else url
        for attempt in itertools.count(1):
            again, after, pending = True, None, False
            try:
                response = self._open(method, url, deadline, **request)
                status = response.status_code
                if status < 300 and stream:
                    return response
                body = self._read(response, deadline)
                if status < 300:
                    return body.decode("utf-8", "replace") if text else object_in(body)
                if response.is_redirect and method == "GET" and same_host(url, response.headers["Location"]):
                    url, problem = urljoin(url, response.headers["Location"]), "too many redirects"
                    if attempt < self.tries:
                        continue
                elif status in (429, 503) or status >= 500 or status in also:
                    again, after = safe or status in (429, 503), pause_asked(response)
                    problem = f"it answered {status}{said(body)}"
                else:
                    raise self._refused(status, response, body)
            except NotSent as error:
                problem, status = str(error), None
            except Lost as error:
                again, problem, status, pending = safe, str(error), None, error.pending
            problem = self.key.hidden(f"{method} {url}: {problem}")
            if not again:
                raise AnswerLost(problem, status=status, pending=pending)
            self._wait(attempt, after, deadline, problem, status)
        raise AssertionError("count never ends")

    def _wait(self, attempt, after, deadline, problem, status):
        """Sleeps before the next attempt; raises ServiceUnavailable where there is to be none."""
        if attempt >= self.tries:
            raise ServiceUnavailable(f"{problem} ({attempt} attempts). Try again later", status=status)
        pause = self.pause * 2 ** (attempt - 1) * (0.5 + random.random()) if after is None else after
        if pause > LONGEST_PAUSE:
            raise ServiceUnavailable(f"{problem}. It asks to wait {pause:.0f} s: try then", status=status)
        if deadline is not None and self.clock() + pause >= deadline:
            raise ServiceUnavailable(f"{problem}, and the time is up", status=status)
        self.sleep(pause)

    def _open(self, method, url, deadline, body=None, **request):
        """One request -> its response, unread. `body` is a function, for every attempt sends it anew."""
        connect, read = self.timeout
        if deadline is not None:
            left = max(0.05, deadline - self.clock())
            connect, read = min(connect, left), min(read, left)
        if body:
            request["data"] = body()
        try:
            return self._session().request(
                method,
                url,
                auth=self.key,
                timeout=(connect, read),
                stream=True,
                allow_redirects=False,
                **request,
            )
        except BadInput as error:  # of the body
            problem = error.with_traceback(None)
        except requests.RequestException as error:
            problem = kind_of(error)(in_words(error))
            if "CERTIFICATE_VERIFY_FAILED" in str(error):
                problem = ServiceUnavailable(f"{url}: the certificate is not valid", retryable=False)
        raise problem  # out here: the exceptions and frames above hold the request, and that holds the key

    def _read(self, response, deadline):
        return b"".join(self.pieces(response, deadline))

    def pieces(self, response, deadline=None):
        """The body of an open response as it arrives. Raises Lost where it breaks off or takes too long."""
        problem, end = None, self.clock() + SLOWEST * self.timeout[1]
        end = end if deadline is None else min(end, deadline)
        with response:
            try:
                # read1 returns what is there, so a server that drips is stopped in time too.
                while piece := response.raw.read1(65536, decode_content=True):
                    yield piece
                    if self.clock() > end:
                        problem = TimedOut("the answer did not come to its end in time")
                        break
            except Exception:  # urllib3's own exceptions, and what decompression raises
                problem = Lost("the answer broke off")
        if problem:
            raise problem

    def _session(self):
        """One session for each thread: requests does not promise more."""
        session = getattr(self._local, "session", None)
        if session is None:
            session = self._local.session = session_for(self.base)
            session.headers["User-Agent"] = "tinyllm-audio/1"
        return session

    def _refused(self, status, response, body):
        words = self.key.hidden(said(body))
        if status == 401:
            region = "eu" if self.base == REGIONS["us"][0] else "us"
            words += (
                f". Check ASSEMBLYAI_API_KEY; a key works in its own region only: this is {self.base}, "
                f"ASSEMBLYAI_BASE_URL={region} is another"
            )
            return AuthError(f"the key is not accepted{words}", status=status)
        if status == 403:
            words += ". An upload can be used with a key of the same project only"
            return AuthError(f"not allowed{words}", status=status)
        if response.is_redirect:
            place = urlsplit(response.headers["Location"]).netloc or "another path"
            words += f" and sends us to {place}, where the key does not go: check ASSEMBLYAI_BASE_URL"
        elif status == 404:
            words += f". If nothing is found at {self.base}, check ASSEMBLYAI_BASE_URL"
        return RequestRefused(f"the service answered {status}{words}", status=status)

    def download(self, url, file):
        """Writes what is at a URL to a file, without the key; redirects are followed. Raises AudioError."""
        try:
            answer = requests.get(url, timeout=self.timeout, stream=True, auth=lambda request: request)
            with answer:
                if answer.status_code == 200:
                    for chunk in answer.iter_content(1 << 16):
                        file.write(chunk)
                    return
        except requests.RequestException as error:
            raise ServiceUnavailable(f"the download failed: {in_words(error)}") from None
        raise RequestRefused(f"the download was refused with {answer.status_code}: ask for its address again")


def object_in(body):
    """A JSON object in bytes -> dict; Lost for anything else, a cut-off answer say."""
    try:
        data = json_text.loads(body)
    except (ValueError, RecursionError):
        data = None
    if not isinstance(data, dict):
        raise Lost(f"the answer is no JSON object: {body[:60].decode('utf-8', 'replace')!r}")
    return data


def said(body):
    """What an error says, in any of the service's envelopes -> ": text", or "" where it says nothing."""
    try:
        data = object_in(body)
    except Lost:
        return ""
    error = data.get("error") or data.get("message")
    if isinstance(error, dict):
        error = error.get("message")
    details = data.get("metadata") if isinstance(data.get("metadata"), dict) else {}
    more = details.get("errors") if isinstance(details.get("errors"), list) else []
    text = "; ".join(str(part) for part in [error, *more] if part)
    return f": {text[:SHOWN].rstrip('.')}" if text else ""


def pause_asked(response):
    """Retry-After, seconds or a date (RFC 9110, 10.2.3) -> seconds from now, or None."""
    value = response.headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError, TypeError):
        return None


def same_host(url, location):
    here, there = urlsplit(url), urlsplit(urljoin(url, location))
    return here[:2] == there[:2]


def kind_of(error):
    """NotSent, TimedOut or Lost for a requests exception."""
    reason = getattr(error.args[0] if error.args else None, "reason", None)
    nobody = type(reason).__name__ in ("NewConnectionError", "NameResolutionError", "ConnectTimeoutError")
    if nobody or isinstance(error, (requests.exceptions.ConnectTimeout, requests.exceptions.ProxyError)):
        return NotSent
    return TimedOut if isinstance(error, requests.exceptions.Timeout) else Lost


def in_words(error):
    kind = kind_of(error)
    if isinstance(error, requests.exceptions.SSLError):
        return "TLS failed: is it an https server?"
    if kind is NotSent:
        return "no connection: is the address right, is there a network?"
    return "no answer in time" if kind is TimedOut else "the connection broke"
