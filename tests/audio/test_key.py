"""key: a key is sent unchanged, never shown, and never sent where others could read it."""

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from audio.errors import AuthError
from audio.key import Key, session_for, would_be_readable


@given(st.text())
def test_a_key_is_sent_unchanged_or_refused_and_never_shown(text):
    try:
        key = Key(text)
    except AuthError as error:
        assert len(text) < 6 or text not in str(error)
        return
    assert text == text.strip() and not text.lower().startswith("bearer")
    for authorize, scheme in ((key, ""), (Key(text, "key", "Bearer "), "Bearer ")):
        request = authorize(requests.Request("GET", "https://x.example").prepare())
        assert request.headers["Authorization"] == scheme + text
    assert repr(key) == "<key>" and text not in key.hidden(f"wrong token {text}!").replace("<key>", "")


@pytest.mark.parametrize(
    "text, words",
    [
        ("", "set the environment"),
        (None, "set the environment"),
        ("Bearer x", "Bearer"),
        (" x", "white space"),
        ("x\n", "white space"),
        ("x\ny", "characters"),
        ("schlüssel", "characters"),
    ],
)
def test_the_error_says_what_is_wrong_with_a_key(text, words):
    with pytest.raises(AuthError, match=words):
        Key(text)


@pytest.mark.parametrize(
    "url, readable",
    [
        ("https://x.example", False),
        ("http://x.example", True),
        ("http://192.168.0.1", True),
        ("http://127.0.0.1:1", False),
        ("http://[::1]:1", False),
        ("http://localhost", False),
        ("http://localhost.x.example", True),
    ],
)
def test_plain_http_is_for_this_machine_only(url, readable):
    assert would_be_readable(url) is readable
    assert session_for(url).trust_env is url.startswith("https")
