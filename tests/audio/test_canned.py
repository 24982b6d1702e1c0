"""canned: each line of the script contains its entities, and the model answers with a line of its input.

The sandbox looks for each entity in the words of its line, and fails if it is not there."""

import json

import pytest

from audio.canned import SCRIPT, answer


def test_each_line_of_the_script_contains_its_entities():
    for section in SCRIPT["sections"]:
        for text, sentiment, entities, *_ in section["lines"]:
            assert all(entity in text for _, entity in entities) and sentiment in (
                "POSITIVE",
                "NEUTRAL",
                "NEGATIVE",
            )
    json.dumps(SCRIPT)


@pytest.mark.parametrize(
    "told, words",
    [
        ("A: We met on Monday.\nB: It rained.\nWhen did it rain?", "Canned, closest line: B: It rained."),
        ("nothing here\nWho?", "Canned: the transcript does not say."),
    ],
)
def test_the_model_answers_with_a_line_of_its_input(told, words):
    assert answer([{"role": "user", "content": told}]) == words


def test_the_model_calls_the_tool_for_a_recording_once():
    system = {"role": "system", "content": 'There is "transcribe".'}
    asked = {"role": "user", "content": "The recording is /tmp/a.wav. Who rings?"}
    called = answer([system, asked])
    assert '"arguments":{"source": "/tmp/a.wav"}' in called and called.startswith("<tool_call>")
    result = {"role": "user", "content": '<tool_response>{"text":"A: Bo rings."}</tool_response>'}
    assert answer([system, asked, {"role": "assistant", "content": called}, result]).endswith("A: Bo rings.")
    assert answer([asked]) == "Canned: the transcript does not say."
