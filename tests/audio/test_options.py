"""options: short names become the service's fields, and conflicts are refused with advice.

Mistakes must be found before a job exists: the service might ignore a misspelt option and bill the job."""

import inspect
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

import audio
from audio.errors import BadInput
from audio.options import HELP, KNOWN, PRESETS, SWITCHES, nested, request, setting


@pytest.mark.parametrize(
    "options, fields",
    [
        ({}, {}),
        ({"punctuate": None}, {}),
        ({"speakers": 3}, {"speaker_labels": True, "speakers_expected": 3}),
        ({"speakers": "1"}, {"speaker_labels": True, "speakers_expected": 1}),
        ({"speakers": True}, {"speaker_labels": True}),
        (
            {"speakers": "2-5"},
            {
                "speaker_labels": True,
                "speaker_options": {"min_speakers_expected": 2, "max_speakers_expected": 5},
            },
        ),
        ({"topics": True, "sentiment": True}, {"iab_categories": True, "sentiment_analysis": True}),
        ({"entities": True, "key_phrases": True}, {"entity_detection": True, "auto_highlights": True}),
        ({"language": "de"}, {"language_code": "de"}),
        ({"language": "auto"}, {"language_detection": True}),
        (
            {"summary": "paragraph"},
            {"speech_understanding": {"request": {"summarization": {"summary_type": "paragraph"}}}},
        ),
        ({"action_items": True}, {"speech_understanding": {"request": {"action_items": {}}}}),
        (
            {"action_items": {"effort": "low"}},
            {"speech_understanding": {"request": {"action_items": {"effort": "low"}}}},
        ),
        (
            {"translate": "es, fr"},
            {"speech_understanding": {"request": {"translation": {"target_languages": ["es", "fr"]}}}},
        ),
        (
            {"speaker_names": ["Ada", "Bo"]},
            {
                "speaker_labels": True,
                "speech_understanding": {
                    "request": {
                        "speaker_identification": {"speaker_type": "name", "known_values": ["Ada", "Bo"]}
                    }
                },
            },
        ),
        ({"summary": False, "topics": False}, {"iab_categories": False}),
        (
            {"summary": True},
            {"speech_understanding": {"request": {"summarization": {"summary_type": "bullets"}}}},
        ),
        ({"speech_models": "a,b"}, {"speech_models": ["a", "b"]}),
        ({"keyterms_prompt": "new york, b"}, {"keyterms_prompt": ["new york", "b"]}),
        ({"language": "de", "language_code": "de"}, {"language_code": "de"}),
        ({"preset": "podcast", "iab_categories": False}, {**request("podcast"), "iab_categories": False}),
        ({"preset": "meeting", "key_phrases": False}, {**request("meeting"), "auto_highlights": False}),
    ],
)
def test_a_short_name_becomes_a_field_of_the_service(options, fields):
    assert request(**options) == fields


@pytest.mark.parametrize("preset", PRESETS)
def test_the_options_of_a_preset_can_be_changed_and_extended(preset):
    assert request(preset)["speaker_labels"] is True
    assert request(preset, speakers=4)["speakers_expected"] == 4
    both = request(
        preset, summary=True, speech_understanding={"request": {"translation": {"target_languages": ["es"]}}}
    )
    assert {"translation", "summarization"} <= both["speech_understanding"]["request"].keys()


@given(
    st.dictionaries(
        st.text(max_size=3), st.one_of(st.booleans(), st.integers(), st.text(), st.lists(st.text()))
    )
)
def test_unknown_options_pass_through(options):
    assert request(**options) == options


@pytest.mark.parametrize(
    "options, words",
    [
        ({"auto_chapters": True, "summarization": True}, "Only one of the following"),
        ({"speech_model": "x"}, "^speech_model is deprecated. Use .speech_models. instead.$"),
        ({"summary_model": "catchy"}, "or neither"),
        ({"summary_model": "conversational", "summary_type": "bullets"}, "speaker_labels"),
        ({"summary_model": "catchy", "summary_type": "bullets"}, "gist or headline"),
        ({"summary_model": "informative", "summary_type": "gist"}, "catchy"),
        ({"summarization": True, "punctuate": False}, "punctuate"),
        ({"auto_chapters": True, "punctuate": False}, "punctuate"),
        ({"word_boost": ["x"], "speech_models": ["universal-3-pro"]}, "keyterms"),
        ({"redact_pii": True}, "redact_pii_policies"),
        ({"redact_pii_audio": True}, "needs redact_pii"),
        ({"language_code": "de", "language_detection": True}, "exclude"),
        ({"speakers_expected": 2}, "speaker_labels"),
        ({"speakers": 2, "speaker_options": {"min_speakers_expected": 1}}, "not both"),
        ({"speakers": 2, "speakers_expected": 5}, "speakers and speakers_expected set the same thing"),
        ({"speakers_expected": 5, "speakers": 2}, "speakers and speakers_expected set the same thing"),
        ({"language": "de", "language_code": "fr"}, "language and language_code set the same thing"),
        ({"speaker_names": "Ada", "speaker_labels": False}, "speaker_names and speaker_labels set the same"),
        ({"topics": True, "iab_categories": False}, "topics and iab_categories set the same thing"),
        ({"speech_models": []}, "non-empty list"),
        ({"preset": "talk"}, "meeting, podcast, call"),
        ({"speakers": "5-2"}, "range"),
        ({"speakers": "many"}, "range"),
        ({"speakers": 0}, "at least 1"),
    ],
)
def test_conflicts_are_refused_with_advice(options, words):
    with pytest.raises(BadInput, match=words):
        request(**options)


def test_all_conflicts_are_reported_at_once():
    with pytest.raises(BadInput, match="Only one of.*redact_pii_policies"):
        request(auto_chapters=True, summarization=True, redact_pii=True)


@pytest.mark.parametrize("name", KNOWN)
def test_known_names_are_not_taken_for_typos(name):
    try:
        request(**{name: True})
    except BadInput as error:
        assert "is not known" not in str(error)


@pytest.mark.parametrize(
    "options, words",
    [
        ({"speaker": 2}, "did you mean speakers"),
        ({"topic": True}, "did you mean topics"),
        ({"entites": True}, "did you mean entities"),
        ({"diarization": True}, "did you mean speakers"),
        ({"highlights": True}, "did you mean key_phrases"),
        ({"speaker_label": True}, "did you mean speaker_labels"),
        ({"summary": "bulets"}, "summary must be bullets or paragraph, not 'bulets'"),
        ({"sentiment": "yes"}, "sentiment must be true or false, not 'yes'"),
        ({"topics": "no"}, "topics must be true or false"),
        ({"topics": 1}, "topics must be true or false"),
        ({"language_detection": "True"}, "must be true or false"),
        ({"action_items": "yes"}, "action_items must be true or false"),
        ({"translate": True}, "translate must be a list"),
        ({"speaker_names": [5]}, "speaker_names must be a list of strings"),
        ({"language": ""}, "language must be a code"),
        ({"audio_url": "https://x.example/other.mp3"}, "audio_url is not an option"),
        ({"speech_understanding": 5}, "must be an object"),
        ({"speech_understanding": {}}, "must have a request"),
        ({"speech_understanding": {"request": {"translation": 5}}}, "must have a request"),
        ({"speakers_expected": "2", "speaker_labels": True}, "speakers_expected must be a number"),
        ({"speakers_expected": True, "speaker_labels": True}, "speakers_expected must be a number, not True"),
        ({"content_safety_confidence": float("nan")}, "cannot be sent as JSON"),
        ({"future": float("nan")}, "cannot be sent as JSON"),
        ({"future": float("inf")}, "cannot be sent as JSON"),
        ({"future": {"a", "b"}}, "cannot be sent as JSON"),
        ({"keyterms_prompt": {"a", "b"}}, "keyterms_prompt must be a list"),
        ({"future": b"x"}, "cannot be sent as JSON"),
    ],
)
def test_the_error_for_a_mistake_says_what_is_expected(options, words):
    with pytest.raises(BadInput, match=words):
        request(**options)


def test_transcribe_has_a_documented_parameter_for_every_short_name():
    parameters = inspect.signature(audio.transcribe).parameters
    named = {name for name, p in parameters.items() if p.kind is p.KEYWORD_ONLY}
    assert named == {"preset", *HELP, "timeout", "progress"}
    assert all(p.annotation is not p.empty for name, p in parameters.items() if name in named)
    assert all(re.search(rf"\b{name}\b", audio.transcribe.__doc__) for name in named)
    assert all(
        hasattr(audio.Transcript, name) for name in (*SWITCHES, "summary", "action_items", "translate")
    )


def test_settings_may_be_nested_but_must_not_overlap():
    assert nested([("a.b", 1), ("a.c", 2), ("d", 3)]) == {"a": {"b": 1, "c": 2}, "d": 3}
    for pairs in ([("a", 1), ("a.b", 2)], [("a.b", 2), ("a", 1)], [("a", 1), ("a", 2)]):
        with pytest.raises(BadInput, match="already|twice"):
            nested(pairs)
    assert setting("punctuate=True") == ("punctuate", True)


@given(
    st.text(st.characters(exclude_characters="="), min_size=1),
    st.recursive(st.booleans() | st.integers(), st.lists, max_leaves=5),
)
def test_the_value_of_a_setting_is_json(key, value):
    assert setting(f"{key}={json.dumps(value)}") == (key, value)


def test_a_value_that_is_not_json_is_text():
    assert setting("language_code=de") == ("language_code", "de") and setting("a=b=c") == ("a", "b=c")
    for bad in ("a", "=b", ""):
        with pytest.raises(BadInput, match="KEY=VALUE"):
            setting(bad)
