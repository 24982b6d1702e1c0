"""make audio-chat: the agent loop answers a question about a recording.

    python -m tools.recording meeting.wav "Who talks to the bank?"

The model, one of AssemblyAI's LLM Gateway, has the built-in tools and `transcribe`. It sees a path and a
question, decides to call the tool, and answers from what comes back. Without ASSEMBLYAI_API_KEY both are
those of audio's sandbox: what they say is canned, but every request and every call is made."""

import os
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from audio import Client
from audio.__main__ import tone
from audio.sandbox import Sandbox
from tools.agent import run
from tools.builtin import TOOLS, transcribe
from tools.endpoint import request_messages
from tools.registry import Registry

QUESTION = "When does the new budget go to Maria Lopez?"


def main(argv):
    with ExitStack() as stack:
        if not os.environ.get("ASSEMBLYAI_API_KEY"):
            sandbox = stack.enter_context(Sandbox())
            os.environ |= {"ASSEMBLYAI_API_KEY": sandbox.key, "ASSEMBLYAI_BASE_URL": sandbox.url}
            print(f"No key: this is the sandbox at {sandbox.url}, its answers are canned.", file=sys.stderr)
        file = Path(stack.enter_context(tempfile.TemporaryDirectory()), "meeting.wav")
        file.write_bytes(tone(45))
        question = f"The recording is {argv[0] if argv else file}. {' '.join(argv[1:]) or QUESTION}"
        conversation = run(ask, Registry([*TOOLS, transcribe]), [{"role": "user", "content": question}])
    for message in conversation.messages[1:]:
        print(f"[{message['role']}] {message['content']}")
    return 0 if conversation.outcome == "answered" else 1


def ask(messages):
    """A `generate` for tools.agent.run: a model of the LLM Gateway, with the key that `transcribe` uses."""
    return Client().chat(request_messages(messages, native=False, thoughts=False))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
