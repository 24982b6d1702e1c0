"""formats: the files that people have, and what is wrong with some of them."""

import json

import pytest

from tinyllm.data import formats
from tinyllm.data.conversation import ROLES
from tinyllm.errors import TinyllmError
from tools.protocol import Call, parse

ALPACA = {"instruction": "Add.", "input": "1 2", "output": "3"}
CHAT = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]}


@pytest.mark.parametrize("lines", [True, False])
def test_instructions_are_read_in_both_shapes_from_json_and_jsonl(tmp_path, lines):
    file = tmp_path / "data.json"
    entries = [ALPACA, CHAT, {"instruction": "Say a.", "input": "", "output": "a"}]
    file.write_text("\n".join(map(json.dumps, entries)) if lines else json.dumps(entries))
    first, second, third = formats.instructions(file)
    assert first[0] == {"role": "user", "content": "Add.\n1 2"} and first[1]["content"] == "3"
    assert second == CHAT["messages"] and third[0]["content"] == "Say a."


def test_gsm8k_annotations_become_calls_of_the_calculator(tmp_path):
    file = tmp_path / "problems.jsonl"
    answer = "She earns 12/60 = $<<12/60=0.2>>0.2 a minute.\nThat is 50*0.2=<<50*0.2=10>>10.\n#### 10"
    file.write_text(json.dumps({"question": "How much?", "answer": answer}))
    (messages,) = formats.problems(file)
    assert [m["role"] for m in messages] == ["user", "assistant", "tool", "assistant", "tool", "assistant"]
    _, call = parse(messages[1]["content"])
    assert call == Call("calculator", {"expression": "12/60"})
    assert messages[2]["content"] == "<tool_response>0.2</tool_response>"
    assert messages[3]["content"].startswith("0.2 a minute.") and messages[-1]["content"] == "10.\n#### 10"


@pytest.mark.parametrize(
    "bad, why",
    [
        ("{", "line 2"),
        ("[1]", "JSON object"),
        ('{"instruction": "x"}', "output"),
        ('{"messages": []}', "messages"),
        ('{"messages": [{"role": "boss", "content": "x"}]}', "role"),
        ('{"messages": [{"role": "user", "content": "x"}]}', "nothing to learn"),
        ('{"instruction": "x", "output": 3}', "strings"),
    ],
)
def test_an_entry_that_cannot_be_used_is_reported_with_its_place_and_the_others_are_used(
    tmp_path, capsys, bad, why
):
    file = tmp_path / "data.jsonl"
    file.write_text(json.dumps(ALPACA) + "\n" + bad + "\n" + json.dumps(CHAT))
    assert len(formats.instructions(file)) == 2
    report = capsys.readouterr().err
    assert "line 2" in report and why in report and report.count("\n") == 1
    file.write_text(bad)
    with pytest.raises(TinyllmError, match="no usable entry"):
        formats.instructions(file)


def test_json_nested_too_deeply_is_refused(tmp_path):
    (tmp_path / "deep.json").write_text("[" * 200_000)
    with pytest.raises(TinyllmError, match="not valid JSON"):
        formats.instructions(tmp_path / "deep.json")


def test_several_unusable_entries_are_reported_in_one_line(tmp_path, capsys):
    file = tmp_path / "data.jsonl"
    file.write_text("\n".join([json.dumps(ALPACA), "3", "{", "[1]"]))
    assert len(formats.instructions(file)) == 1
    report = capsys.readouterr().err
    assert (
        "left out 3 of 4 entries; the first: line 2 is not a JSON object" in report
        and report.count("\n") == 1
    )


def test_files_that_cannot_be_read_are_refused_with_the_reason(tmp_path):
    (tmp_path / "empty").write_text("")
    (tmp_path / "broken").write_text("[{")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00")
    for name, why in (
        ("missing", "cannot be read"),
        ("empty", "is empty"),
        ("broken", "not valid JSON"),
        ("bytes", "UTF-8"),
    ):
        with pytest.raises(TinyllmError, match=why):
            formats.instructions(tmp_path / name)


def test_every_role_may_take_part_and_other_keys_are_left_out(tmp_path):
    messages = [{"role": role, "content": "x", "weight": 1} for role in ROLES]
    file = tmp_path / "data.json"
    file.write_text("\ufeff" + json.dumps([{"messages": messages}]), encoding="utf-8")  # Windows writes a BOM
    assert formats.instructions(file) == [[{"role": role, "content": "x"} for role in ROLES]]


@pytest.mark.parametrize(
    "bad",
    [
        {"question": "x", "answer": "no mark"},
        {"question": "x", "answer": "no result ####"},
        {"question": 3, "answer": "#### 3"},
        {"question": "x"},
    ],
)
def test_problems_without_a_question_or_a_marked_answer_are_refused(tmp_path, bad):
    file = tmp_path / "problems.jsonl"
    file.write_text(json.dumps(bad))
    with pytest.raises(TinyllmError, match='line 1 needs "question" and "answer"'):
        formats.problems(file)


def test_a_result_that_is_not_a_number_is_kept_as_text(tmp_path):
    file = tmp_path / "problems.jsonl"
    file.write_text(json.dumps({"question": "How much?", "answer": "It is <<3*4=12 apples>>12. #### 12"}))
    ((_, _, result, _),) = formats.problems(file)
    assert result["content"] == '<tool_response>"12 apples"</tool_response>'


def test_one_conversation_in_ten_is_held_out_by_what_is_asked():
    conversations = [[{"role": "user", "content": f"question {i}"}] for i in range(2000)]
    training, held_out = formats.split(conversations)
    assert len(training) + len(held_out) == 2000 and 140 < len(held_out) < 260
    assert formats.split(conversations[::-1])[1] == held_out[::-1]
    other_answers = [[*messages, {"role": "assistant", "content": "a"}] for messages in held_out]
    assert formats.split(other_answers) == ([], other_answers)
