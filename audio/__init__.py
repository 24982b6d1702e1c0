"""Speech to text with AssemblyAI's REST API, using requests and tqdm.

    from audio import transcribe
    print(transcribe("meeting.wav", speakers=2).labelled())

Reading order:

    errors          everything that can go wrong, as a tree
    key             the API key: sent, never printed; shared with tools/
    http            time-outs, retries
    recording       the audio to transcribe: checked, hashed, sent in pieces
    options         the options, and which combinations are refused
    subtitles       turns of speech -> SRT and VTT
    transcript      the answer of the service, with attributes for its parts
    assemblyai      the client
    reports         Markdown: minutes, episode notes, call reviews
    batch           one recording or many, each paid for once
    canned          the answers of the sandbox
    sandbox         a local stand-in for the service
    __main__        the command line
"""

import os
import sys

# `python -m` puts the current folder first on sys.path, so a json.py of yours would shadow the standard
# library's. So we move that folder to the end of sys.path, after the folder that holds this package.
if sys.argv[:1] == ["-m"] and sys.path[0] != os.path.dirname(__path__[0]):
    sys.path += [os.path.dirname(__path__[0]), sys.path.pop(0)]

from audio.assemblyai import Client, transcribe
from audio.batch import transcribe_all
from audio.errors import AudioError, AudioWarning
from audio.transcript import Transcript

__all__ = ["AudioError", "AudioWarning", "Client", "Transcript", "transcribe", "transcribe_all"]
