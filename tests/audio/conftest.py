"""Fixtures that several tests of audio share."""

import pytest
from twisted import tone

from audio import Client
from audio.sandbox import Sandbox


@pytest.fixture(scope="session")
def meeting():
    """A dict {seconds: transcript of a recording of that length}; most features are switched on."""
    with pytest.MonkeyPatch.context() as patch, Sandbox(seconds=0) as box:
        patch.setenv("ASSEMBLYAI_API_KEY", box.key)
        options = dict(preset="call", summary=True, topics=True, key_phrases=True)
        client = Client(box.url)
        return {seconds: client.transcribe(tone(seconds), **options) for seconds in (1, 70)}
