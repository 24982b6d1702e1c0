"""chat: calls are valid whatever the model, they run, and the session can be steered and saved."""

import io
import json

import numpy as np
import pytest

from tinyllm import checkpoint
from tinyllm.__main__ import main
from tinyllm.chat import CallMask, Writer
from tinyllm.conversation import prompt, read
from tinyllm.sampling import generate
from tools.agent import run
from tools.builtin import TOOLS
from tools.protocol import Call, parse
from tools.registry import Registry
from tools.schema import validate


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A nano stage 0 on the built-in world."""
    folder = tmp_path_factory.mktemp("chat")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("tinyllm.exams.run", lambda *_: {})
        assert main(["stage0", "--size", "nano", "--workers", "1"]) == 0
    return folder


def test_a_thousand_calls_of_a_random_model_are_valid_and_closed_in_their_budget(place):
    model, tokenizer = checkpoint.load(place / "runs/demo/0-random")
    registry, rng = Registry(TOOLS), np.random.default_rng(0)
    mask, names = CallMask(tokenizer, registry, [], only=True), set()
    for _ in range(5):
        mask.budget, mask.rows = rng.integers(mask.need, 90, 200).tolist(), {}
        start = prompt(tokenizer, [{"role": "user", "content": "Call."}])
        rows = generate(model, [start] * 200, 90, rng, stop=[mask.end], mask=mask)
        for budget, (tokens, _) in zip(mask.budget, rows):
            assert tokens[-1] == mask.end and len(tokens) <= budget
            (call,) = parse(read(tokenizer, tokens))
            assert isinstance(call, Call) and not validate(
                call.arguments, registry.tools[call.name].parameters
            )
            names.add(call.name)
    assert len(names) == len(TOOLS)


def test_a_call_that_a_model_begins_itself_is_finished_validly(place):
    model, tokenizer = checkpoint.load(place / "runs/demo/0-random")
    registry = Registry(TOOLS)
    writer = Writer(model, tokenizer, np.random.default_rng(1), 1.0, most=150)
    text = "so <tool_call>{"

    class Led(CallMask):
        """Writes the beginning of a call for the model, then leaves it to the mask."""

        def __call__(self, row, written):
            may = super().__call__(row, written)
            led = tokenizer.encode(" " + text)
            if len(written) < len(led):
                may = np.arange(len(self.vocabulary)) == led[len(written)]
            return may

    writer.mask = Led(tokenizer, registry, [150])
    shown = []
    writer.show = shown.append
    found = run(writer, registry, [{"role": "user", "content": "?"}], max_steps=1)
    reply = next(m["content"] for m in found.messages if m["role"] == "assistant")
    assert "".join(shown) == reply and reply.startswith(text)
    call = next(part for part in parse(reply) if isinstance(part, Call))
    assert not validate(call.arguments, registry.tools[call.name].parameters)


def talk(place, monkeypatch, capsys, lines, *options):
    monkeypatch.chdir(place)
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(lines) + "\n"))
    status = main(["chat", "--tokens", "80", *options])
    out = capsys.readouterr()
    return status, out.out, out.err


def test_a_session_with_calls_and_commands(place, monkeypatch, capsys):
    lines = ["/tools only", "What is 12 * 7?", "/temperature 0", "/temperature hot", "/save talk.json"]
    lines += ["/stage 9", "/what", "/tools off", "again", "/new", "/save empty.json", "/quit", "never read"]
    status, out, err = talk(place, monkeypatch, capsys, lines)
    assert status == 0 and " -> " in out and "<tool_call>" in out and "/temperature X" in out
    assert "no stage 9" in err and "from 0 up, not 'hot'" in err
    saved = json.loads((place / "talk.json").read_text(encoding="utf-8"))
    assert [m["role"] for m in saved["messages"]] == ["system", "user", "assistant", "tool"]
    assert json.loads((place / "empty.json").read_text())["messages"] == []


@pytest.mark.parametrize("more, before", [
    ([], [[], []]), (["--history"], [["system"], ["system", "user", "assistant", "tool"]])])  # fmt: skip
def test_a_stage_is_shown_the_question_alone_or_all_that_was_said(place, monkeypatch, capsys, more, before):
    seen = []

    def watched(tokenizer, messages):
        seen.append([turn["role"] for turn in messages])
        return prompt(tokenizer, messages)

    monkeypatch.setattr("tinyllm.chat.prompt", watched)
    talk(place, monkeypatch, capsys, ["one", "two"], "--tools", "only", *more)
    assert seen == [[*roles, "user"] for roles in before]


def test_what_a_session_cannot_begin_with(place, monkeypatch, capsys):
    assert talk(place, monkeypatch, capsys, [], "--run", "none")[0] == 1
    assert talk(place, monkeypatch, capsys, [], "--tokens", "3")[0] == 2
    assert talk(place, monkeypatch, capsys, [], "--tokens", "0")[0] == 2


def test_the_proof_counts(place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    assert main(["tools-proof", "--count", "30"]) == 0
    assert "30 calls, 0 invalid" in capsys.readouterr().out
    assert main(["tools-proof", "--count", "0"]) == 2
