"""chat: calls run, replies are shown as they are written, and a session can be steered and saved."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from stage_runs import TINY

from tinyllm import chat, checkpoint
from tinyllm.__main__ import main
from tinyllm.chat import ChatSettings, Writer
from tinyllm.data.conversation import decode_reply, encode_prompt
from tinyllm.errors import UsageError
from tinyllm.sampling import generate
from tinyllm.stages import s0_random
from tinyllm.tokenizer import train
from tinyllm.transformer import Config, Transformer
from tools import agent
from tools.protocol import Call, parse, render_call


@pytest.fixture(scope="module")
def random_stage(tmp_path_factory):
    """A folder with a random stage 0 that knows the words of tool calls."""
    folder = tmp_path_factory.mktemp("chat")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        s0_random.main(s0_random.RandomSettings(size="tiny", workers=1))
    return folder


@pytest.fixture
def talk(random_stage, monkeypatch, capsys):
    """A session with typed lines -> exit status, what it printed, and its messages for people."""
    monkeypatch.chdir(random_stage)

    def session(*lines, options=()):
        monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
        status = main(["chat", *TINY, "--tokens", "60", *options])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return session


def test_a_question_is_answered_and_calls_run_and_are_shown(talk):
    status, out, err = talk("What is 12 * 7?", options=["--tools", "only"])
    assert status == 0 and "runs/demo/0-random; /help lists the commands" in err
    (call,) = [part for part in parse(out.split("\n  ")[0]) if isinstance(part, Call)]
    assert f"\n  {call.name} -> " in out


def test_without_tools_the_reply_is_what_the_stage_writes(talk, random_stage):
    status, out, _ = talk("Who is Ada?", options=["--tools", "off", "--temperature", "0"])
    model, words = checkpoint.load(Path("runs/demo/0-random"))
    prompt = encode_prompt(words, [{"role": "user", "content": "Who is Ada?"}])
    ((ids, _),) = generate(model, [prompt], 60, stop=[words.special["<|end|>"]])
    assert status == 0 and out == decode_reply(words, ids) + "\n"


def test_a_session_can_be_steered_and_saved(talk, random_stage):
    lines = ["/tools only", "What is 12 * 7?", "/temperature 0", "/temperature hot", "/save talk.json"]
    lines += ["/stage 9", "/what", "/tools off", "again", "/new", "/save empty.json", "/quit", "never read"]
    status, out, err = talk(*lines)
    assert status == 0 and " -> " in out and "<tool_call>" in out and "/temperature X" in out
    assert (
        "no finished stage 9" in err
        and "number of 0 or more, not 'hot'" in err
        and "saved to talk.json" in err
    )
    saved = json.loads((random_stage / "talk.json").read_text(encoding="utf-8"))
    assert [message["role"] for message in saved["messages"]] == ["system", "user", "assistant", "tool"]
    assert json.loads((random_stage / "empty.json").read_text())["messages"] == []


def test_temperature_and_tools_stay_when_another_stage_is_chosen(random_stage, monkeypatch):
    monkeypatch.chdir(random_stage)
    session = chat.Chat(ChatSettings(tokens=60))
    for line in ("/temperature 0", "/tools off", "/stage 0"):
        session.command(line)
    assert session.tools == "off" and session.writer.mask is None
    assert session.writer.temperature == 0


def test_a_temperature_holds_for_the_replies_that_follow(random_stage, monkeypatch):
    monkeypatch.chdir(random_stage)
    session = chat.Chat(ChatSettings(tokens=60))
    assert session.writer.temperature == 0.8
    session.command("/temperature 0")
    assert session.writer.temperature == 0
    with pytest.raises(UsageError, match="not '-1'"):
        session.command("/temperature -1")
    temperatures = []

    def noted(*args, temperature, **how):
        temperatures.append(temperature)
        return generate(*args, temperature=temperature, **how)

    monkeypatch.setattr(chat, "generate", noted)
    for line in ("/temperature 0.5", "/tools off"):
        session.command(line)
    session.ask("Who?")
    assert temperatures == [0.5]


@pytest.mark.parametrize(
    "options, before",
    [([], [[], []]), (["--history"], [["system"], ["system", "user", "assistant", "tool"]])],
)
def test_a_stage_is_shown_the_question_alone_or_the_whole_conversation(talk, monkeypatch, options, before):
    prompts = []

    def noted(tokenizer, messages):
        prompts.append([message["role"] for message in messages])
        return encode_prompt(tokenizer, messages)

    monkeypatch.setattr(chat, "encode_prompt", noted)
    talk("one", "two", options=["--tools", "only", *options])
    assert prompts == [[*roles, "user"] for roles in before]


@pytest.mark.parametrize(
    "options, status, words",
    [
        (["--run", "none"], 1, "make train RUN=none"),
        (["--tokens", "3"], 2, "a call needs"),
        (["--tokens", "0"], 2, "--tokens must be from 1 to 1000000"),
    ],
)
def test_a_session_that_cannot_begin_says_why(talk, options, status, words):
    found, _, err = talk(options=options)
    assert found == status and words in err and "Traceback" not in err


def test_an_interrupt_stops_the_reply_and_the_session_goes_on(talk, monkeypatch):
    def interrupted(self, line):
        raise KeyboardInterrupt

    monkeypatch.setattr(chat.Chat, "ask", interrupted)
    status, _, err = talk("hello", "/temperature x")
    assert status == 0 and "(stopped)" in err and "not 'x'" in err


# ---- the writer


class Script:
    """A `mask` that dictates what is written."""

    def __init__(self, ids, vocab):
        self.ids, self.vocab = ids, vocab

    def restart(self, budget):
        self.budget = budget

    def __call__(self, row, written):
        return np.arange(self.vocab) == self.ids[len(written)]


@pytest.fixture
def dictate():
    """Let a random model write given ids -> (the pieces shown, the reply, whether it was cut off)."""
    words = train("", 256)
    config = Config(len(words), context=128, layers=1, width=8, heads=2)
    model = Transformer(config).initialise(np.random.default_rng(0))

    def write(ids, tokens=80):
        writer, shown, cut_off = (Writer(model, words, ChatSettings(tokens=tokens)), [], False)
        writer.show, writer.mask = shown.append, Script(ids, len(words))
        reply = []
        try:
            for piece in writer([{"role": "user", "content": "?"}]):
                reply.append(piece)
        except agent.CutOff:
            cut_off = True
        assert writer.mask.budget == [tokens]
        return shown, "".join(reply), cut_off

    write.words, write.end = words, words.special["<|end|>"]
    return write


def test_a_reply_is_shown_token_by_token_and_a_character_of_several_bytes_at_once(dictate):
    text = "née 猫 🐈."
    shown, reply, cut_off = dictate([*dictate.words.encode(f" {text}"), dictate.end])
    assert reply == "".join(shown) == text and not cut_off
    assert [piece for piece in shown if piece] == list(text)


def test_a_reply_that_does_not_end_in_time_is_cut_off(dictate):
    ids = dictate.words.encode(" what is it")
    shown, reply, cut_off = dictate(ids, tokens=len(ids))
    assert cut_off and reply == "".join(shown) == "what is it"


def test_after_a_call_the_model_continues_with_the_result(random_stage, monkeypatch, capsys):
    monkeypatch.chdir(random_stage)
    session, seen = chat.Chat(ChatSettings(tokens=60)), []
    call = render_call(Call("calculator", {"expression": "12*7"}))
    replies = iter([f"so {call}", "It is 84."])

    def write(messages):
        seen.append(list(messages))
        yield next(replies)

    session.writer = write
    session.ask("What is 12 * 7?")
    assert "\n  calculator -> 84" in capsys.readouterr().out
    assert [message["role"] for message in seen[1]] == ["system", "user", "assistant", "tool"]
    assert "84" in seen[1][-1]["content"] and session.last.answer == "It is 84."
    assert [message["role"] for message in session.history] == ["user", "assistant", "tool", "assistant"]
