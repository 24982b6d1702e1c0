"""An API key: it can be sent but not printed.

Shared with tools/endpoint.py, which calls other servers with other keys. This module is here because audio
may not import tools, whereas tools already imports audio. The rules:

    nobody can read it in transit      plain http is for this machine only, and never uses a proxy
    nothing else is sent in its place  as a request's `auth` it takes precedence over ~/.netrc
    nobody gets to see it              no repr shows it, and hidden() removes it from a server's messages
"""

import re
from urllib.parse import urlsplit

import requests

from audio.errors import AuthError

THIS_MACHINE = ("localhost", "127.0.0.1", "::1")


class Key:
    """`name` is what error messages call the key; `scheme` is "Bearer " or empty. Raises AuthError for text
    that cannot be a key."""

    def __init__(self, text, name="ASSEMBLYAI_API_KEY", scheme=""):
        if not text:
            raise AuthError(f"there is no API key: set the environment variable {name}")
        if text.lower().startswith("bearer") or not re.fullmatch("[!-~]+", text):  # visible ASCII
            rule = "visible ASCII characters only, without Bearer or white space"
            raise AuthError(f"{name} must be the bare key: {rule}")
        self._text, self._scheme = text, scheme

    def __call__(self, request):
        request.headers["Authorization"] = self._scheme + self._text
        return request

    def __repr__(self):
        return "<key>"

    def hidden(self, text):
        """The text with the key removed, in case a server repeats the key."""
        return text.replace(self._text, "<key>")


def would_be_readable(url):
    """Whether others could read a key sent to this URL."""
    parts = urlsplit(url)
    return parts.scheme == "http" and parts.hostname not in THIS_MACHINE


def session_for(url):
    """A requests.Session that uses the environment's proxy only for https, which no proxy can read."""
    session = requests.Session()
    session.trust_env = url.startswith("https")
    return session
