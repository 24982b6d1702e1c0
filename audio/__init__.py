"""Speech to text with AssemblyAI's REST API, on `requests` alone.

    from audio import transcribe
    print(transcribe("meeting.wav", speakers=2).labelled())

Reading order:

    errors          everything that can go wrong, as a tree
    key             the key: sent, never seen; shared with tools/
    http            time-outs, retries
    recording       what is transcribed: checked, hashed, sent in pieces
    options         what can be asked for, and what excludes what
    subtitles       who said what -> SRT and VTT
    transcript      the answer of the service, and what people want to know of it
    assemblyai      the client
    reports         Markdown: minutes, episode notes, call reviews
    batch           one recording or many, side by side, each paid for once
    canned          what the sandbox says
    sandbox         the service on this machine
    __main__        the command line
"""

import os
import sys

# `python -m` puts the current folder first on sys.path, so your json.py would shadow the standard
# library's. Look there last, after the folder that holds this package.
if sys.argv[:1] == ["-m"] and sys.path[0] != os.path.dirname(__path__[0]):
    sys.path += [os.path.dirname(__path__[0]), sys.path.pop(0)]

from audio.assemblyai import Client, transcribe
from audio.batch import transcribe_all
from audio.errors import AudioError, AudioWarning
from audio.transcript import Transcript

__all__ = ["AudioError", "AudioWarning", "Client", "Transcript", "transcribe", "transcribe_all"]
