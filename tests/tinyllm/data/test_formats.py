"""formats: a conversation must be read correctly from every common format.

Unusable entries must be reported. A turn that is silently dropped would teach the model something that the
file does not say.
"""

import json
import math
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyllm.__main__ import main
from tinyllm.data import formats
from tinyllm.data.conversation import ROLES
from tinyllm.errors import TinyllmError
from tinyllm.preferences import rankings
from tools.protocol import Call, parse

ALPACA = {"instruction": "Add.", "input": "1 2", "output": "3"}
CHAT = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]}


# ---- entries in all formats

texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8).filter(str.strip)
trimmed = texts.map(str.strip)  # formats without a list of messages do not keep spaces around a text
questions = trimmed.filter(lambda text: not text.startswith("Human:"))


def read(folder, *entries, by=formats.instructions):
    """Write entries to a JSONL file, and read the file."""
    (folder / "entries.jsonl").write_text("\n".join(map(json.dumps, entries)))
    return by(folder / "entries.jsonl")


def as_messages(roles, contents):
    return [{"role": role, "content": content} for role, content in zip(roles, contents)]


def conversations(contents):
    """Conversations that may have a system message and tool messages. The last message is a reply."""
    turns = st.sampled_from([["user", "assistant"], ["user", "assistant", "tool", "assistant"]])
    turns = st.lists(turns, min_size=1, max_size=3).map(lambda parts: sum(parts, []))
    roles = st.tuples(st.sampled_from([[], ["system"]]), turns).map(lambda parts: sum(parts, []))
    return st.builds(as_messages, roles, st.lists(contents, min_size=13, max_size=13))


def renamed(messages, role, content, names):
    return [{role: names.get(m["role"], m["role"]), content: m["content"]} for m in messages]


def in_parts(messages):
    """OpenAI also allows `content` to be a list of parts."""
    part = lambda text: {"type": "text", "text": text}
    return [{**m, "content": [part(m["content"][:2]), part(m["content"][2:])]} for m in messages]


LISTS = {
    "openai": lambda messages: {"messages": messages},
    "openai with parts": lambda messages: {"messages": in_parts(messages)},
    "sharegpt": lambda messages: {
        "conversations": renamed(messages, "from", "value", {"user": "human", "assistant": "gpt"})
    },
    "oasst": lambda messages: {"messages": renamed(messages, "role", "text", {"user": "prompter"})},
    "prompt and completion": lambda messages: {"prompt": messages[:-1], "completion": messages[-1:]},
}


@pytest.mark.parametrize("write", LISTS.values(), ids=LISTS)
@given(conversations(texts))
def test_a_conversation_is_read_as_it_was_written(write, messages):
    assert formats.conversation(json.loads(json.dumps(write(messages)))) == messages


PAIRS = [
    (prompt, reply)
    for prompt in ("prompt", "instruction", "question")
    for reply in ("completion", "response", "output", "answer")
]


@pytest.mark.parametrize("prompt, reply", PAIRS)
@given(question=questions, answer=trimmed, more=trimmed, context=st.sampled_from(["input", "context"]))
def test_a_prompt_and_a_reply_are_found_under_every_pair_of_keys(
    prompt, reply, question, answer, more, context
):
    contents = lambda entry: [m["content"] for m in formats.conversation({**entry, reply: answer})]
    for entry in ({prompt: question}, {context: question}):
        assert contents(entry) == [question, answer]
    for empty in (" ", None):
        assert contents({prompt: question, context: empty}) == [question, answer]
    assert contents({prompt: question, context: more}) == [f"{question}\n{more}", answer]
    messages = formats.conversation({prompt: question, reply: answer})
    assert [m["role"] for m in messages] == ["user", "assistant"]


def as_turns(messages):
    """A conversation in the format of HH-RLHF."""
    names = {"user": "\n\nHuman: ", "assistant": "\n\nAssistant: "}
    return "".join(names[m["role"]] + m["content"] for m in messages)


@given(conversations(trimmed.filter(lambda text: not formats.TURN.search(text))))
def test_a_text_with_turns_is_read_as_messages(messages):
    messages = [m for m in messages if m["role"] in ("user", "assistant")]
    assert formats.conversation({"messages": as_turns(messages)}) == messages
    entry = {"prompt": as_turns(messages[:-1]) + "\n\nAssistant: ", "completion": messages[-1]["content"]}
    assert formats.conversation(entry) == messages


@given(trimmed, trimmed)
def test_words_that_look_like_a_turn_are_kept(question, answer):
    """A reply about chat formats may begin with "Assistant:"."""
    dialogue = f"Human: hi\n\nAssistant: {answer}"
    contents = lambda entry: [m["content"] for m in formats.conversation(entry)]
    for reply in (f"Assistant: {answer}", "Human: hi", f"So:\n\n{dialogue}"):
        assert contents({"prompt": f"Write: {question}", "completion": reply})[-1] == reply
    quoting = f"Go on:\n\nAssistant: {question}"
    assert contents({"instruction": quoting, "output": answer})[0] == quoting
    summary = {"instruction": "Sum up.", "input": dialogue, "output": answer}
    assert contents(summary) == [f"Sum up.\n{dialogue}", answer]


@pytest.mark.parametrize("key", ["system", "system_prompt"])
def test_a_system_message_under_a_key_of_its_own_becomes_the_first_message(key):
    first = {"role": "system", "content": "Be kind."}
    chat = [{"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "Hello."}]
    for entry in ({"instruction": "Hi?", "output": "Hello."}, {"messages": chat}):
        assert formats.conversation({key: "Be kind.", **entry}) == [first, *chat]
        assert formats.conversation({key: "", "history": [], **entry}) == chat
    assert formats.conversation({key: "Be rude.", "messages": [first, *chat]}) == [first, *chat]


# ---- files


@pytest.mark.parametrize(
    "write",
    [
        json.dumps,
        lambda entries: json.dumps({"version": 1, "data": entries}, indent=2),
        lambda entries: "\n\n".join(map(json.dumps, entries)) + "\n",
    ],
)
def test_a_file_may_be_jsonl_or_an_array_or_an_object_with_the_key_data(tmp_path, write):
    (tmp_path / "data").write_text(write([ALPACA, CHAT]))
    assert formats.instructions(tmp_path / "data")[1] == CHAT["messages"]


@pytest.mark.parametrize("indent", [None, 2])
def test_a_file_may_be_a_single_object(tmp_path, indent):
    (tmp_path / "data").write_text(json.dumps(CHAT, indent=indent))
    assert formats.instructions(tmp_path / "data") == [CHAT["messages"]]


@pytest.mark.parametrize("lines", [True, False])
def test_alpaca_and_openai_entries_are_read_from_json_and_jsonl(tmp_path, lines):
    file = tmp_path / "data.json"
    entries = [ALPACA, CHAT, {"instruction": "Say a.", "input": "", "output": "a"}]
    file.write_text("\n".join(map(json.dumps, entries)) if lines else json.dumps(entries))
    first, second, third = formats.instructions(file)
    assert first[0] == {"role": "user", "content": "Add.\n1 2"} and first[1]["content"] == "3"
    assert second == CHAT["messages"] and third[0]["content"] == "Say a."


def test_gsm8k_annotations_become_calls_to_the_calculator(tmp_path):
    answer = "She earns 12/60 = $<<12/60=0.2>>0.2 a minute.\nThat is 50*0.2=<<50*0.2=10>>10.\n#### 10"
    (messages,) = read(tmp_path, {"question": "How much?", "answer": answer}, by=formats.problems)
    assert [m["role"] for m in messages] == ["user", "assistant", "tool", "assistant", "tool", "assistant"]
    _, call = parse(messages[1]["content"])
    assert call == Call("calculator", {"expression": "12/60"})
    assert messages[2]["content"] == "<tool_response>0.2</tool_response>"
    assert messages[3]["content"].startswith("0.2 a minute.") and messages[-1]["content"] == "10.\n#### 10"


# ---- unusable entries and files


@pytest.mark.parametrize(
    "bad, message",
    [
        ("{", "line 2"),
        ("[1]", "JSON object"),
        ('{"instruction": "x"}', "output"),
        ('{"messages": []}', "messages"),
        ('{"messages": [{"role": "boss", "content": "x"}]}', "the role 'boss'"),
        ('{"messages": [{"role": "user", "content": "x"}]}', "nothing to learn"),
        ('{"messages": [{"role": "assistant", "content": " "}]}', "nothing to learn"),
        ('{"messages": [{"role": "assistant", "content": "x", "weight": 0}]}', "nothing to learn"),
        (
            '{"messages": [{"role": "assistant", "content": null, "tool_calls": []}]}',
            "'content', 'tool_calls'",
        ),
        ('{"messages": [{"speaker": "human", "value": "x"}]}', "'speaker', 'value'"),
        ('{"messages": [{"role": ["user"], "content": "x"}]}', "role"),
        ('{"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}', "not a string"),
        ('{"messages": ["x"]}', "JSON object"),
        ('{"messages": 3}', "'messages'"),
        ('{"messages": true}', "not a string"),
        ('{"instruction": "x", "output": [3]}', "JSON object"),
        ('{"instruction": "x", "output": " "}', "completion, response, output, answer"),
        ('{"task": "x", "solution": "y"}', "(keys found: 'task', 'solution')"),
        ("{}", "(keys found: none)"),
        ('{"instruction": "x", "output": "\\ud800"}', "surrogate"),
        ('{"messages": [{"role": "assistant", "content": ["a\\udfff"]}]}', "surrogate"),
    ],
)
def test_an_unusable_entry_is_reported_with_its_line_number_and_the_other_entries_are_used(
    tmp_path, capsys, bad, message
):
    file = tmp_path / "data.jsonl"
    file.write_text(json.dumps(ALPACA) + "\n" + bad + "\n" + json.dumps(CHAT))
    assert len(formats.instructions(file)) == 2
    report = capsys.readouterr().err
    assert "line 2" in report and message in report and report.count("\n") == 1
    file.write_text(bad)
    with pytest.raises(TinyllmError, match="no usable entry"):
        formats.instructions(file)


@pytest.mark.parametrize("opening", ["[", '{"a":', '{\n"a":'])
def test_json_nested_too_deeply_is_refused(tmp_path, monkeypatch, capsys, opening):
    monkeypatch.chdir(tmp_path)
    Path("deep.json").write_text(opening * 200_000)
    assert main(["mine", "--data", "deep.json"]) == 1
    assert re.match("error: deep.json .*is not valid JSON: .*recursion", capsys.readouterr().err)
    Path("deep.json").write_text(json.dumps(ALPACA) + "\n" + opening.replace("\n", "") * 200_000)
    assert len(formats.instructions("deep.json")) == 1
    assert "left out 1 of 2 entries; the first: line 2 is not valid JSON" in capsys.readouterr().err


def test_an_invalid_document_of_several_lines_is_refused_with_the_line_number(tmp_path):
    text = json.dumps(CHAT, indent=2).replace('"hi"', "hi")
    (tmp_path / "data.json").write_text(text)
    number = next(i for i, line in enumerate(text.split("\n"), 1) if ": hi" in line)
    message = f"data.json is not valid JSON: .*line {number} .*one object per line"
    with pytest.raises(TinyllmError, match=message):
        formats.instructions(tmp_path / "data.json")


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-9, 9)
    | st.sampled_from(["", " ", "a", "user", "gpt", "#### 1", "\ud800"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(["role", "from", "content", "value", "text", "data"]), inner, max_size=3
        )
    ),
    max_leaves=6,
)
KEYS = [
    "messages",
    "conversations",
    "prompt",
    "input",
    "output",
    "chosen",
    "rejected",
    "completions",
    "ranks",
]


@given(st.dictionaries(st.sampled_from(KEYS), json_values))
def test_any_entry_becomes_messages_or_a_value_error(entry):
    for parse_entry in (formats.conversation, formats.problem, rankings.ranking):
        try:
            parse_entry(entry)
        except ValueError as error:
            assert re.match("needs |has |expresses ", str(error))


def test_several_unusable_entries_are_reported_once_and_in_one_line(tmp_path, capsys, monkeypatch):
    file = tmp_path / "data.jsonl"
    file.write_text("\n".join([json.dumps(ALPACA), "3", "{", "[1]"]))
    assert len(formats.instructions(file)) == 1
    report = capsys.readouterr().err
    assert "left out 3 of 4 entries; the first: line 2 is not a JSON object" in report
    assert report.count("\n") == 1
    monkeypatch.chdir(tmp_path)
    formats.instructions("data.jsonl")
    assert capsys.readouterr().err == "", "a relative path to the same file repeats the message"


def test_an_entry_with_a_history_is_refused_instead_of_losing_its_earlier_turns():
    entry = {"instruction": "And now?", "history": [["Hi?", "Hello."]]}
    for parse_entry, reply in (
        (formats.conversation, {"output": "Now."}),
        (rankings.ranking, {"chosen": "Now.", "rejected": "Never."}),
    ):
        with pytest.raises(ValueError, match='has a "history": write all turns as "messages"'):
            parse_entry(entry | reply)


def test_files_that_cannot_be_read_are_refused_with_the_reason(tmp_path):
    (tmp_path / "empty").write_text("")
    (tmp_path / "broken").write_text("[{")
    (tmp_path / "wide").write_text(json.dumps(ALPACA), encoding="utf-16")
    (tmp_path / "old").write_bytes(b'{"prompt": "caf\xe9", "completion": "one"}')
    for name, message in (
        ("empty", "is empty"),
        ("broken", "not valid JSON"),
        ("wide", "wide is not text in UTF-8: save it as UTF-8"),
        ("old", "old is not text in UTF-8: save it as UTF-8"),
    ):
        with pytest.raises(TinyllmError, match=message):
            formats.instructions(tmp_path / name)


# ---- values


@pytest.mark.parametrize("answer, text", [(2, "2"), (0, "0"), (0.5, "0.5"), (-7, "-7")])
def test_a_number_may_be_an_answer(tmp_path, answer, text):
    message = {"role": "assistant", "content": answer}
    for entry in ({"question": "?", "answer": answer}, {"messages": [message]}):
        assert read(tmp_path, entry)[0][-1] == message | {"content": text}


@pytest.mark.parametrize("answer, text", [(True, "true"), (False, "false")])
def test_true_and_false_may_be_answers(tmp_path, answer, text):
    """In the BoolQ data set, every answer is true or false."""
    (messages,) = read(tmp_path, {"question": "?", "answer": answer, "input": False})
    assert [message["content"] for message in messages] == ["?", text]


def test_nan_and_null_count_as_missing_text_and_so_does_false_unless_it_is_an_answer(tmp_path, capsys):
    entry = {"question": "q", "answer": "a", "system": False, "input": math.nan, "context": None}
    (messages,) = read(tmp_path, entry, {"question": "q", "answer": math.nan})
    assert [message["content"] for message in messages] == ["q", "a"]
    assert "left out 1 of 2 entries; the first: line 2 needs a prompt" in capsys.readouterr().err


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_the_line_endings_and_byte_order_marks_of_all_editors_are_accepted(tmp_path, encoding, newline):
    entries = [{"prompt": "caf\u00e9", "completion": text} for text in ("one", "two")]
    text = newline.join(json.dumps(entry, ensure_ascii=False) for entry in entries)
    (tmp_path / "data.jsonl").write_bytes(text.encode(encoding))
    conversations = formats.instructions(tmp_path / "data.jsonl")
    assert [messages[-1]["content"] for messages in conversations] == ["one", "two"]
    assert conversations[0][0]["content"] == "caf\u00e9"


def test_every_role_is_accepted_and_a_weight_of_1_is_dropped(tmp_path):
    messages = [{"role": role, "content": "x", "weight": 1} for role in ROLES]
    assert read(tmp_path, {"messages": messages}) == [[{"role": role, "content": "x"} for role in ROLES]]


@pytest.mark.parametrize(
    "bad",
    [
        {"question": "x", "answer": "no mark"},
        {"question": "x", "answer": "no result ####"},
        {"question": "x"},
    ],
)
def test_problems_without_a_question_or_a_marked_answer_are_refused(tmp_path, bad):
    with pytest.raises(TinyllmError, match="line 1 needs .*'question'"):
        read(tmp_path, bad, by=formats.problems)


@pytest.mark.parametrize(
    "written, result",
    [("12", "12"), (" -3 ", "-3"), (".5", "0.5"), ("2.50", "2.5"), ("12 apples", '"12 apples"')]
    + [("NaN", '"NaN"'), ("[" * 100_000, json.dumps("[" * 100_000))],
)
def test_the_result_of_an_annotation_is_read_as_a_number_or_kept_as_text(tmp_path, written, result):
    problem = {"question": "How much?", "answer": f"It is <<3*4={written}>>12. #### 12"}
    ((_, _, tool_message, _),) = read(tmp_path, problem, by=formats.problems)
    assert tool_message["content"] == f"<tool_response>{result}</tool_response>"


def test_a_problem_may_be_a_list_of_messages(tmp_path):
    messages = as_messages(ROLES[:3], ["Think.", "1+1?", "<<1+1=2>>2\n#### 2"])
    (problem,) = read(tmp_path, {"messages": messages}, by=formats.problems)
    assert [m["role"] for m in problem] == ["system", "user", "assistant", "tool", "assistant"]
    assert problem[:2] == messages[:2] and problem[-1]["content"] == "2\n#### 2"


# ---- the split into training and held-out conversations


def test_a_hash_of_the_first_question_decides_whether_a_conversation_is_held_out_and_one_in_ten_is():
    conversations = [[{"role": "user", "content": f"question {i}"}] for i in range(2000)]
    training, held_out = formats.split(conversations)
    assert len(training) + len(held_out) == 2000 and 140 < len(held_out) < 260
    assert formats.split(conversations[::-1])[1] == held_out[::-1]
    other_answers = [[*messages, {"role": "assistant", "content": "a"}] for messages in held_out]
    assert formats.split([*training, *other_answers]) == (training, other_answers)
    with pytest.raises(TinyllmError, match="every entry happens to be held out"):
        formats.split(other_answers)


@given(st.lists(texts, min_size=1, max_size=3), texts, texts)
def test_the_first_question_is_the_first_user_message_or_else_the_last_message(questions, system, answer):
    user = [{"role": "user", "content": question} for question in questions]
    reply = [{"role": "assistant", "content": answer}]
    for messages in (user, user + reply, reply + user + reply + user):
        assert formats.first_question(messages) == questions[0]
        assert formats.first_question([{"role": "system", "content": system}, *messages]) == questions[0]
    assert formats.first_question([{"role": "system", "content": system}, *reply]) == answer


def test_a_shared_system_message_does_not_decide_the_split():
    system = {"role": "system", "content": "Be kind."}
    chats = [[system, {"role": "user", "content": f"question {i}"}] for i in range(500)]
    training, held_out = formats.split(chats)
    assert 20 < len(held_out) < 90
    assert formats.split([messages[1:] for messages in chats])[1] == [messages[1:] for messages in held_out]
