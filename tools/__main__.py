"""make tools: a guided tour of tool calling, without any model.

A script stands in for the model, so that everything else can be seen at work: what a model is told, how its
calls are read, what comes back, how other protocols say the same, and what a grammar lets through."""

import sys

from tools.agent import run
from tools.builtin import TOOLS, calculator
from tools.dialects import DIALECTS
from tools.grammar import Grammar
from tools.protocol import CLOSE, OPEN, Call, parse, render_call, render_result
from tools.registry import Registry, Result, compact

CALL = Call("calculator", {"expression": "12*7"}, "call_1")
RESULT = Result("call_1", "calculator", True, 84)
SCRIPT = [
    'First <tool_call>{"name": "calculator", "arguments": {"expression": "12 * (3 + 4)"}}</tool_call>'
    '<tool_call>{"name": "convert", "arguments": {"value": "100", "unit": "F", "to": "Celsius"}}</tool_call>',
    'C then. <tool_call>{"name":"convert","arguments":{"value":100,"unit":"F","to":"C"}}</tool_call>',
    "84, and 100 F are about 37.8 degrees Celsius.",
]


def main():
    registry = Registry(TOOLS)
    title("1. A function becomes a schema (schema.py)")
    print(compact(calculator.definition))
    title("2. Replies are read: text, calls, and calls that are wrong (protocol.py)")
    for reply in (SCRIPT[0], "<tool_call>{'name': 'now'}</tool_call>", '<tool_call>{"name":"now","argu'):
        for part in parse(reply):
            print(part)
    title("3. Calls run, and every failure is an answer (registry.py)")
    for expression in ("0.1 + 0.2", "9**9**9"):
        (result,) = registry.execute([Call("calculator", {"expression": expression})])
        print(expression, "->", render_result(result.value))
    title("4. The loop, with a script in place of a model (agent.py)")
    script = iter(SCRIPT)
    question = {"role": "user", "content": "What is 12 * (3 + 4), and 100 F in Celsius?"}
    conversation = run(lambda messages: next(script), registry, [question])
    print("\n".join(str(conversation).splitlines()[len(registry.tools) + 3 :]))
    title("5. The same call and its result in five dialects (dialects.py)")
    for name, dialect in DIALECTS.items():
        print(f"{name}:\n  {dialect.write_calls([CALL])}\n  {dialect.write_results([RESULT])}")
    title("6. The grammar: which bytes may come next (grammar.py)")
    grammar = Grammar(registry.schema(), OPEN.encode(), CLOSE.encode())
    text = render_call(Call("add_days", {"day": "2026-11-24", "days": 7})).encode()
    state = grammar.start
    for i, byte in enumerate(text):
        may = bytes(b for b in range(256) if grammar.step(state, b))
        if i in (0, 11, 20, 57, 68):
            print(text[:i].decode())
            print(f"    next: {may.decode('latin-1')[:60]!r}   to the end: {grammar.distance(state)}")
        state = grammar.step(state, byte)
    print(f"{text.decode()}\n    complete: {grammar.complete(state)}")
    print(
        "\nmake tools-proof lets a random model write under this grammar; make chat talks to a trained one."
    )
    return 0


def title(text):
    print(f"\n{text}\n{'-' * len(text)}")


if __name__ == "__main__":
    sys.exit(main())
