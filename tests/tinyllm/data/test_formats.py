"""formats: files as people have them, and files as they should not be."""

import json

import pytest

from tinyllm import formats
from tinyllm.corpus import CorpusError
from tools.protocol import Call, parse

ALPACA = {"instruction": "Add.", "input": "1 2", "output": "3"}
CHAT = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]}


@pytest.mark.parametrize("lines", [True, False])
def test_instructions_in_both_shapes(tmp_path, lines):
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
        ('{"instruction": "x", "output": 3}', "texts"),
    ],
)
def test_what_cannot_be_used_is_named_with_its_place_and_the_rest_is_used(tmp_path, capsys, bad, why):
    file = tmp_path / "data.jsonl"
    file.write_text(json.dumps(ALPACA) + "\n" + bad + "\n" + json.dumps(CHAT))
    assert len(formats.instructions(file)) == 2
    said = capsys.readouterr().err
    assert "line 2" in said and why in said
    file.write_text(bad)
    with pytest.raises(CorpusError, match="nothing to learn from"):
        formats.instructions(file)


def test_files_that_are_none(tmp_path):
    (tmp_path / "empty").write_text("")
    (tmp_path / "broken").write_text("[{")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00")
    for name, why in (
        ("missing", "cannot be read"),
        ("empty", "is empty"),
        ("broken", "no JSON"),
        ("bytes", "UTF-8"),
    ):
        with pytest.raises(CorpusError, match=why):
            formats.instructions(tmp_path / name)


def test_one_in_ten_is_held_out_by_what_is_asked():
    conversations = [[{"role": "user", "content": f"question {i}"}] for i in range(2000)]
    learned, held = formats.split(conversations)
    assert len(learned) + len(held) == 2000 and 140 < len(held) < 260
    assert formats.split(conversations[::-1])[1] == held[::-1]
