"""make audio-chat: the agent loop answers a question about a recording.

    python -m tools.recording meeting.wav "Who talks to the bank?"

The model, one of AssemblyAI's LLM Gateway, has the built-in tools and `transcribe`. It sees a path and a
question, decides to call the tool, and answers from what comes back. Without ASSEMBLYAI_API_KEY both are
those of audio's sandbox: what they say is canned, but every request and every call is made."""

import os
import sys
import tempfile
import wave
from contextlib import ExitStack
from pathlib import Path

from audio.sandbox import Sandbox
from tools.agent import run
from tools.builtin import TOOLS, gateway, transcribe
from tools.registry import Registry

QUESTION = "When does the new budget go to Maria Lopez?"


def main(argv):
    with ExitStack() as stack:
        if not os.environ.get("ASSEMBLYAI_API_KEY"):
            sandbox = stack.enter_context(Sandbox())
            os.environ |= {"ASSEMBLYAI_API_KEY": sandbox.key, "ASSEMBLYAI_BASE_URL": sandbox.url}
            print(f"No key: this is the sandbox at {sandbox.url}, its answers are canned.", file=sys.stderr)
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        file = argv[0] if argv else write_tone(Path(folder, "meeting.wav"))
        question = " ".join(argv[1:]) or QUESTION
        message = {"role": "user", "content": f"The recording is {file}. {question}"}
        conversation = run(gateway(), Registry([*TOOLS, transcribe]), [message])
    for message in conversation.messages[1:]:
        print(f"[{message['role']}] {message['content']}")
    return 0 if conversation.outcome == "answered" else 1


def write_tone(path):
    """Writes a WAV of 45 seconds -> its path."""
    with wave.open(str(path), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes((b"\x00\x10" * 8 + b"\x00\xf0" * 8) * (500 * 45))
    return path


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
