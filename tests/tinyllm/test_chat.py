"""chat: a session shows each reply as the model writes it, runs tool calls, and obeys the user's commands.

What could go wrong: a mistake ends the session, a call runs against the user's will, or a reply never ends.
"""

import io
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stage_runs import TINY

from tinyllm import chat, checkpoint
from tinyllm.__main__ import main
from tinyllm.chat import ChatSettings, encode_recent, is_loop
from tinyllm.data.conversation import decode_reply, encode_conversation, encode_prompt
from tinyllm.errors import UsageError
from tinyllm.sampling import generate, reply_room
from tinyllm.stages import s0_random
from tinyllm.tokenizer import train
from tinyllm.transformer import Config, Transformer
from tinyllm.world import conversations
from tools import agent
from tools.builtin import TOOLS
from tools.protocol import Call, parse, render_call
from tools.registry import Registry


@pytest.fixture(scope="module")
def random_stage(tmp_path_factory):
    """A folder with a run whose only stage is stage 0."""
    folder = tmp_path_factory.mktemp("chat")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        s0_random.main(s0_random.RandomSettings(size="tiny", workers=1))
    return folder


@pytest.fixture
def session(random_stage, monkeypatch):
    """A session with stage 0."""
    monkeypatch.chdir(random_stage)
    return chat.Chat(ChatSettings(tokens=120))


@pytest.fixture
def talk(random_stage, monkeypatch, capsys):
    """A function that runs a session with the given lines as input -> exit status, stdout, stderr."""
    monkeypatch.chdir(random_stage)

    def run(*lines, options=()):
        monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
        status = main(["chat", *TINY, "--tokens", "120", *options])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


def test_a_question_that_names_a_tool_gets_a_call_and_the_result_is_shown(talk):
    status, out, err = talk("What is 12 * 7? Use the calculator.")
    assert status == 0 and "runs/demo/0-random; /help lists the commands" in err
    (call,) = [part for part in parse(out.split("\n  ")[0]) if isinstance(part, Call)]
    assert call.name == "calculator" and "\n  calculator -> " in out


def test_compare_asks_every_stage_and_does_not_change_the_conversation(talk):
    status, out, err = talk("/compare Where is Ada?", "/compare", "/save talk.json")
    assert (
        status == 0 and out.startswith("0-random  ") and "/compare QUESTION" in out
    )  # without a question, /compare prints the help
    assert json.loads(Path("talk.json").read_text())["messages"] == []


def test_turning_tools_on_fails_and_changes_nothing_if_replies_are_too_short_for_a_call(talk):
    lines = "/tools off", "/tools on", "Who is Ada?", "/save talk.json"
    status, _, err = talk(*lines, options=["--tokens", "20"])
    assert status == 0 and "a tool call needs more than" in err
    assert [m["role"] for m in json.loads(Path("talk.json").read_text())["messages"]] == ["user", "assistant"]
    # this question demands a call, so it is refused too
    lines = "/tools on", "What is 2+2? Use the calculator."
    _, _, err = talk(*lines, options=["--tokens", "20"])
    assert err.count("a tool call needs more than") == 2


def test_without_tools_the_reply_is_exactly_what_the_model_generates(talk):
    status, out, _ = talk("/tools off", "Who is Ada?", options=["--temperature", "0", "--tokens", "20"])
    model, tokenizer = checkpoint.load(Path("runs/demo/0-random"))
    prompt = encode_prompt(tokenizer, [{"role": "user", "content": "Who is Ada?"}])
    (ids,) = generate(model, [prompt], 20, stop=tokenizer.special["<|end|>"])
    assert status == 0 and out == decode_reply(tokenizer, ids) + "\n"


def test_commands_change_and_save_the_session_and_a_wrong_command_does_not_end_it(talk, random_stage):
    lines = ["Use the calculator: 12*7?", "/temperature 0", "/temperature hot", "/save talk.json"]
    lines += ["/stage 9", "/what", "/tools off", "again", "/new", "/save empty.json", "/quit", "never read"]
    status, out, err = talk(*lines)
    assert status == 0 and " -> " in out and "<tool_call>" in out and "/temperature X" in out
    assert (
        "no finished stage 9" in err
        and "error: could not convert string to float: 'hot'" in err
        and "saved to talk.json" in err
    )
    saved = json.loads((random_stage / "talk.json").read_text(encoding="utf-8"))
    roles = ["system", *(message["role"] for message in chat.EXAMPLE), "user", "assistant", "tool"]
    assert [message["role"] for message in saved["messages"]] == [*roles, "assistant"]
    assert json.loads((random_stage / "empty.json").read_text())["messages"] == []


def test_choosing_another_stage_keeps_the_temperature_and_the_tools_setting(session):
    for line in ("/temperature 0", "/tools off", "/stage 0"):
        session.command(line)
    assert session.tools == "off" and session.mask is None
    assert session.settings.temperature == 0


def test_a_reply_is_sampled_at_the_temperature_that_was_set_last(session, monkeypatch):
    assert session.settings.temperature == 0.8
    session.command("/temperature 0")
    assert session.settings.temperature == 0
    with pytest.raises(UsageError, match="--temperature must be from 0 to 100, not -1.0"):
        session.command("/temperature -1")
    temperatures = []

    def recorded(*args, temperature, **how):
        temperatures.append(temperature)
        return generate(*args, temperature=temperature, **how)

    monkeypatch.setattr(chat, "generate", recorded)
    for line in ("/temperature 0.5", "/tools off"):
        session.command(line)
    session.ask("Who?")
    assert temperatures == [0.5]


def test_stages_trained_on_the_built_in_conversations_see_only_the_last_turns_and_other_stages_see_all_turns(
    talk, monkeypatch
):
    prompts, limits = [], []

    def recorded(tokenizer, messages, context, most):
        prompts.append([message["role"] for message in messages])
        limits.append(most)
        return chat.encode_prompt(tokenizer, messages[-1:])

    monkeypatch.setattr(chat, "encode_recent", recorded)
    talk("/tools on", "one", "two")
    assert prompts == [["system", "user"], ["system", "user", "assistant", "user"]]
    assert limits == [None] * 2
    for path, limit in (("", max(conversations.TURNS)), ("own.jsonl", None)):
        learned = {"instructions": {"path": path, "sha256": ""}}
        monkeypatch.setattr(chat, "learned_by", lambda folder: learned)  # noqa: B023
        talk("one")
        assert limits.pop() == limit


turns = st.lists(st.tuples(st.text("ab ", max_size=30), st.text("cd ", max_size=30)), min_size=1, max_size=6)


@given(st.text("xyz", max_size=40), turns, st.integers(16, 160), st.none() | st.integers(1, 6))
def test_the_prompt_has_as_many_of_the_latest_turns_as_fit_up_to_a_maximum(description, turns, context, most):
    tokenizer = train("", 256)
    system = [{"role": "system", "content": description}]
    messages = []
    for question, answer in turns:
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    messages = messages[:-1]  # the last question has no answer yet
    recent = encode_recent(tokenizer, system + messages, context, most)
    length = lambda kept: len(encode_prompt(tokenizer, system + kept))
    suffixes = [messages[at:] for at in range(0, len(messages), 2)]  # each begins with a question
    suffixes = suffixes[-most:] if most else suffixes
    fitting = [kept for kept in suffixes if length(kept) + reply_room(context) <= context]
    assert recent == encode_prompt(tokenizer, system + (fitting[0] if fitting else messages[-1:]))


@pytest.mark.parametrize(
    "learned, tools", [({"instructions": {"path": "", "sha256": ""}}, "on"), ({}, "off")]
)
def test_by_default_only_stages_trained_on_the_built_in_conversations_may_call_tools(
    random_stage, monkeypatch, learned, tools
):
    monkeypatch.chdir(random_stage)
    monkeypatch.setattr(chat, "learned_by", lambda folder: learned)
    session = chat.Chat(ChatSettings(tokens=120))
    assert session.tools == "auto" and bool(session.registry.tools) == (tools == "on")
    assert (session.mask is None) == (tools == "off")
    session.command("/tools on")
    assert session.registry.tools and session.tools == "on"
    session.command("/tools auto")
    assert bool(session.registry.tools) == (tools == "on")


@pytest.mark.parametrize("context", [64, 352, 100_000])
def test_only_the_first_tool_is_described_if_all_tools_would_take_more_than_half_of_the_context(
    session, context
):
    session.model = SimpleNamespace(config=SimpleNamespace(context=context))
    session.choose_tools("on")
    length = len(encode_conversation(session.tokenizer, agent.introduced([], Registry(TOOLS)))[0])
    expected = TOOLS if length <= context // 2 else TOOLS[:1]
    assert [*session.registry.tools] == [*Registry(expected).tools]


@pytest.mark.parametrize(
    "options, status, message",
    [
        (["--run", "none"], 1, "make train RUN=none"),
        (["--tokens", "0"], 2, "--tokens must be from 1 to 1000000"),
    ],
)
def test_a_session_that_cannot_begin_says_why(talk, options, status, message):
    exit_status, _, err = talk(options=options)
    assert exit_status == status and message in err and "Traceback" not in err


def test_a_session_with_tools_cannot_begin_if_replies_are_too_short_for_a_call(talk, monkeypatch):
    learned = {"instructions": {"path": "", "sha256": ""}}
    monkeypatch.setattr(chat, "learned_by", lambda folder: learned)
    status, _, err = talk(options=["--tokens", "3"])
    assert status == 2 and "a tool call needs more than" in err and "raise --tokens" in err


def test_tools_can_be_turned_on_if_and_only_if_replies_are_long_enough_for_a_call(session):
    session.command("/tools on")

    def call_may_begin(tokens):
        return session.mask(0, np.zeros(0, int), tokens) is None

    shortest = next(filter(call_may_begin, range(1, 200)))
    chat.Chat(ChatSettings(tokens=shortest)).command("/tools on")
    with pytest.raises(UsageError, match="raise --tokens"):
        chat.Chat(ChatSettings(tokens=shortest - 1)).command("/tools on")


def test_an_interrupt_stops_the_reply_and_the_session_goes_on(talk, monkeypatch):
    def interrupt(self, line):
        raise KeyboardInterrupt

    monkeypatch.setattr(chat.Chat, "ask", interrupt)
    status, _, err = talk("hello", "/temperature x")
    assert status == 0 and "(stopped)" in err and "float: 'x'" in err


# ---- writing a reply


class DictatingMask:
    """A mask that makes a model write the given ids. With may_end, the reply may also end after 24 ids."""

    only = False

    def __init__(self, ids, tokenizer, may_end):
        self.ids, self.vocab, self.end = ids, len(tokenizer), tokenizer.special["<|end|>"]
        self.may_end = may_end

    def __call__(self, row, written, room):
        self.tokens = len(written) + room  # the maximum length of the reply
        allowed = np.arange(self.vocab) == self.ids[len(written)]
        allowed[self.end] |= self.may_end and len(written) == 24
        return allowed


@pytest.fixture
def dictate(tmp_path):
    """A function that makes a random model write the given ids.

    It returns (the pieces shown, the reply, whether the reply was cut off).
    """
    tokenizer = train("", 256)
    config = Config(len(tokenizer), context=128, layers=1, width=8, heads=2)
    checkpoint.save(tmp_path, Transformer(config).initialise(np.random.default_rng(0)), tokenizer)

    def write(ids, tokens=80, may_end=False):
        session, shown, cut_off = chat.Chat(ChatSettings(origin=str(tmp_path), tokens=tokens)), [], False
        session.show, session.mask = shown.append, DictatingMask(ids, tokenizer, may_end)
        reply = []
        for piece in session.write([{"role": "user", "content": "?"}]):
            if piece == agent.Finish(agent.LENGTH):
                cut_off = True
            else:
                reply.append(piece)
        assert session.mask.tokens == tokens
        return shown, "".join(reply), cut_off

    write.tokenizer, write.end = tokenizer, tokenizer.special["<|end|>"]
    return write


def test_a_reply_is_shown_token_by_token_but_never_half_a_character(dictate):
    text = "née 猫 🐈."
    shown, reply, cut_off = dictate([*dictate.tokenizer.encode(f" {text}"), dictate.end])
    assert reply == "".join(shown) == text and not cut_off
    assert [piece for piece in shown if piece] == list(text)


def test_a_reply_is_cut_off_at_the_maximum_number_of_tokens(dictate):
    ids = dictate.tokenizer.encode(" what is it")
    shown, reply, cut_off = dictate(ids, tokens=len(ids))
    assert cut_off and reply == "".join(shown) == "what is it"


def test_after_a_call_the_model_continues_with_the_result(session, capsys):
    session.command("/tools on")
    call = render_call(Call("calculator", {"expression": "12*7"}))
    replies, prompts = iter([f"so {call}", "It is 84."]), []

    def write(messages):
        prompts.append(list(messages))
        yield next(replies)

    session.write = write
    session.ask("What is 12 * 7?")
    assert "\n  calculator -> 84" in capsys.readouterr().out
    assert [message["role"] for message in prompts[1]] == ["system", "user", "assistant", "tool"]
    assert "84" in prompts[1][-1]["content"] and session.last.answer == "It is 84."
    assert [message["role"] for message in session.history] == ["user", "assistant", "tool", "assistant"]


@pytest.mark.parametrize(
    "typed, result", [("yes", "84"), ("Y", "84"), ("too risky", "too risky"), ("", "user refused")]
)
def test_a_call_runs_only_if_the_user_says_yes_when_ask_is_on(session, monkeypatch, capsys, typed, result):
    session.command("/tools on")
    call = render_call(Call("calculator", {"expression": "12*7"}))
    for line, is_asked in (("/ask on", True), ("/ask off", False)):
        replies = iter([call, "Done."])
        session.write = lambda messages, replies=replies: [next(replies)]
        session.command(line)
        monkeypatch.setattr("sys.stdin", io.StringIO(f"{typed}\n"))
        session.ask("What is 12 * 7?")
        assert ('run calculator with {"expression": "12*7"}?' in capsys.readouterr().out) is is_asked
        assert (result if is_asked else "84") in session.last.messages[-2]["content"]


def test_if_the_input_ends_before_a_call_is_confirmed_the_session_ends_and_the_call_does_not_run(talk):
    status, out, err = talk("/ask on", "Use the calculator: 12*7?")
    assert status == 0 and "run calculator with" in out and "calculator -> " not in out
    assert "error" not in err


@given(st.lists(st.integers(0, 3), max_size=12), st.lists(st.integers(0, 3), min_size=1, max_size=12))
def test_a_reply_is_a_loop_if_24_tokens_or_more_at_its_end_are_three_copies_of_one_sequence(start, part):
    looping = start + part * 24
    assert is_loop(looping)
    assert not is_loop(list(range(10, 110))) and not is_loop((part * 24)[:23])


def test_a_reply_that_loops_is_ended_unless_the_loop_is_inside_a_call(dictate):
    loop = dictate.tokenizer.encode(" ha") * 40
    shown, reply, cut_off = dictate(loop, may_end=True)
    assert not cut_off and reply == " ".join(["ha"] * 8) and "".join(shown) == reply
    shown, reply, cut_off = dictate(loop, may_end=False)
    assert cut_off and dictate.tokenizer.encode(f" {reply}") == loop[:80]
