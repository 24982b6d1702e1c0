"""Two demonstrations.

    python -m tools                                 a guided tour, without any model (or: make tools)
    python -m tools recording [FILE [QUESTION]]     a model is asked about a recording (or: make audio-chat)

In the tour, scripted replies stand in for a model, so that everything else can be seen at work: the schema
that a model reads, the parsing of its calls, their results, one call in five dialects, and a grammar. In the
second demonstration, a model on AssemblyAI's LLM Gateway gets a recording's path and a question, calls the
tool `transcribe`, and answers from the transcript. Without ASSEMBLYAI_API_KEY, the sandbox in audio/ plays
both the model and the transcription service: its replies are canned, but every request and call is real."""

import os
import signal
import sys
import tempfile
from contextlib import ExitStack
from functools import reduce
from pathlib import Path

from tools.agent import ANSWERED, run
from tools.builtin import TOOLS, calculator, transcribe
from tools.dialects import DIALECTS
from tools.endpoint import request_messages
from tools.grammar import Grammar
from tools.protocol import CLOSE, OPEN, Call, parse, render_call, render_result
from tools.registry import Registry, Result, compact

CALL = Call("calculator", {"expression": "12*7"}, "call_1")
RESULT = Result("call_1", "calculator", True, 84)
SCRIPT = [
    'Let me see. <tool_call>{"name": "calculator", "arguments": {"expression": "12 * (3 + 4)"}}</tool_call>'
    '<tool_call>{"name": "add_days", "arguments": {"day": "2026-11-24", "days": "a week"}}</tool_call>',
    'Fixed: <tool_call>{"name":"add_days","arguments":{"day":"2026-11-24","days":7}}</tool_call>',
    "84, and a week after 2026-11-24 is Tuesday, 2026-12-01.",
]
QUESTION = "When does the new budget go to Maria Lopez?"


def main(argv):
    if argv[:1] == ["recording"]:
        return talk_about(*argv[1:2], question=" ".join(argv[2:]))
    if argv:
        print(f"unknown argument {argv[0]!r}: use recording [FILE [QUESTION]] or none", file=sys.stderr)
        return 2
    return tour()


def tour():
    # With this setting, `| head` ends the tour without an error. Windows has no SIGPIPE.
    signal.signal(getattr(signal, "SIGPIPE", signal.SIGTERM), signal.SIG_DFL)
    registry = Registry(TOOLS)
    title("1. A function becomes a schema (functions.py)")
    print(compact(calculator.definition))
    title("2. A reply is parsed into text, calls and broken calls (protocol.py)")
    for reply in (SCRIPT[0], "<tool_call>{'name': 'now'}</tool_call>", '<tool_call>{"name":"now","argu'):
        print(*parse(reply), sep="\n")
    title("3. Calls run, and every failure becomes a result (registry.py)")
    for expression in ("0.1 + 0.2", "9**9**9"):
        (result,) = registry.execute([Call("calculator", {"expression": expression})])
        print(expression, "->", render_result(result.value))
    title("4. The agent loop, with scripted replies (agent.py)")
    script = iter(SCRIPT)
    question = {"role": "user", "content": "What is 12 * (3 + 4), and what day is a week after 2026-11-24?"}
    conversation = run(lambda messages: next(script), registry, [question])
    print("\n".join(str(conversation).splitlines()[len(registry.tools) + 4 :]))
    title("5. The same call and its result in five dialects (dialects.py)")
    for name, dialect in DIALECTS.items():
        print(f"{name}:\n  {dialect.write_calls([CALL])}\n  {dialect.write_results([RESULT])}")
    title("6. The grammar: which bytes may come next (grammar.py)")
    grammar = Grammar(registry.schema(), OPEN.encode(), CLOSE.encode())
    text = render_call(Call("add_days", {"day": "2026-11-24", "days": 7})).encode()
    for length in (0, 11, 20, 57, 68, len(text)):
        state = reduce(grammar.step, text[:length], grammar.start)
        may = bytes(byte for byte in range(256) if grammar.step(state, byte)).decode("latin-1")
        left = grammar.distance(state)
        print(f"{text[:length].decode()}\n  next: {may[:60]!r}; shortest completion: {left} bytes")
    print("\nmake tools-proof: a random model obeys this grammar. make chat: talk to a trained model.")


def talk_about(file=None, question=""):
    # imported here, because the tour needs only the standard library
    from audio import AudioError, Client
    from audio.__main__ import Recording, Sandbox, tone

    generate = lambda messages: Client().chat(request_messages(messages, native=False, thoughts=False))
    with ExitStack() as stack:
        if not os.environ.get("ASSEMBLYAI_API_KEY"):
            sandbox = stack.enter_context(Sandbox())
            os.environ |= {"ASSEMBLYAI_API_KEY": sandbox.key, "ASSEMBLYAI_BASE_URL": sandbox.url}
            print(f"No API key: the sandbox at {sandbox.url} gives canned replies.", file=sys.stderr)
        sound = Path(stack.enter_context(tempfile.TemporaryDirectory()), "meeting.wav")
        sound.write_bytes(tone(45))
        try:
            name = Recording(file or sound).name  # raises BadInput if there is no such file
            message = {"role": "user", "content": f"The recording is {name}. {question or QUESTION}"}
            conversation = run(generate, Registry([*TOOLS, transcribe]), [message])
        except AudioError as error:
            sys.exit(f"error: {error}")
    print(*(f"[{message['role']}] {message['content']}" for message in conversation.messages[1:]), sep="\n")
    return 0 if conversation.outcome == ANSWERED else 1


def title(text):
    print(f"\n{text}\n{'-' * len(text)}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
