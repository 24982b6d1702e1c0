"""canned: each line of the script contains its entities, and the model answers with a line of its input.

The sandbox looks for each entity in the words of its line, and fails if the entity is missing."""

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
    "prompt, words",
    [
        ("A: We met on Monday.\nB: It rained.\nWhen did it rain?", "Canned, closest line: B: It rained."),
        ("nothing here\nWho?", "Canned: the transcript does not say."),
    ],
)
def test_the_model_answers_with_a_line_of_its_input(prompt, words):
    assert answer([{"role": "user", "content": prompt}]) == words


def test_the_model_calls_the_tool_for_a_recording_once():
    system = {"role": "system", "content": 'There is "transcribe".'}
    question = {"role": "user", "content": "The recording is /tmp/a.wav. Who rings?"}
    call = answer([system, question])
    assert '"arguments":{"source": "/tmp/a.wav"}' in call and call.startswith("<tool_call>")
    result = {"role": "user", "content": '<tool_response>{"text":"A: Bo rings."}</tool_response>'}
    assert answer([system, question, {"role": "assistant", "content": call}, result]).endswith("A: Bo rings.")
    assert answer([question]) == "Canned: the transcript does not say."
