"""options: short names are translated, known conflicts refused with the way out."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audio import AudioWarning
from audio.errors import BadInput
from audio.options import KNOWN, PRESETS, request, setting


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
        ({"entities": True, "highlights": True}, {"entity_detection": True, "auto_highlights": True}),
        (
            {"summary": True},
            {"speech_understanding": {"request": {"summarization": {"summary_type": "bullets"}}}},
        ),
        ({"speech_models": "a,b"}, {"speech_models": ["a", "b"]}),
        ({"keyterms_prompt": "new york, b"}, {"keyterms_prompt": ["new york", "b"]}),
        (
            {"custom_spelling": {"SQL": "sequel", "C": ["sea", "see"]}},
            {"custom_spelling": [{"from": ["sequel"], "to": "SQL"}, {"from": ["sea", "see"], "to": "C"}]},
        ),
        ({"preset": "meeting", "highlights": False}, {**request("meeting"), "auto_highlights": False}),
    ],
)
def test_short_names(options, fields):
    assert request(**options) == fields


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_accepted_and_may_be_changed(preset):
    assert request(preset)["speaker_labels"] is True
    assert request(preset, speakers=4)["speakers_expected"] == 4
    both = request(
        preset, summary=True, speech_understanding={"request": {"translation": {"target_languages": ["es"]}}}
    )
    assert {"translation", "summarization"} == both["speech_understanding"]["request"].keys()


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
        ({"auto_chapters": True, "summarization": True}, "exclude each other"),
        ({"speech_model": "x"}, "give speech_models"),
        ({"summary_model": "catchy"}, "or neither"),
        ({"summary_model": "conversational", "summary_type": "bullets"}, "speaker_labels"),
        ({"summary_model": "catchy", "summary_type": "bullets"}, "gist and headline"),
        ({"summary_model": "informative", "summary_type": "gist"}, "catchy"),
        ({"summarization": True, "punctuate": False}, "punctuate"),
        ({"auto_chapters": True, "punctuate": False}, "punctuate"),
        ({"word_boost": ["x"], "speech_models": ["universal-3-pro"]}, "keyterms"),
        ({"redact_pii": True}, "redact_pii_policies"),
        ({"redact_pii_audio": True}, "need redact_pii"),
        ({"language_code": "de", "language_detection": True}, "exclude"),
        ({"speakers_expected": 2}, "speaker_labels"),
        ({"speakers": 2, "speaker_options": {"min_speakers_expected": 1}}, "not both"),
        ({"content_safety_confidence": 5}, "25 to 100"),
        ({"speech_threshold": 2}, "from 0 to 1"),
        ({"speech_models": []}, "name a model"),
        ({"preset": "talk"}, "meeting, podcast, call"),
        ({"speakers": "5-2"}, "range"),
        ({"speakers": "many"}, "range"),
        ({"speakers": 0}, "from 1 up"),
    ],
)
def test_conflicts_are_refused_with_the_way_out(options, words):
    with pytest.raises(BadInput, match=words):
        request(**options)


def test_all_conflicts_are_told_at_once():
    with pytest.raises(BadInput, match="exclude each other.*redact_pii_policies"):
        request(auto_chapters=True, summarization=True, redact_pii=True)


@pytest.mark.parametrize(
    "options, words",
    [
        ({"speaker_label": True}, "is speaker_labels meant"),
        ({"prompt": "x", "keyterms_prompt": ["y"]}, "together"),
        ({"summary_model": "conversational", "summary_type": "bullets", "multichannel": True}, "alone"),
    ],
)
def test_what_looks_wrong_is_a_warning(options, words):
    with pytest.warns(AudioWarning, match=words):
        assert request(**options)


@pytest.mark.parametrize("name", KNOWN)
def test_known_names_are_not_doubted(name, recwarn):
    try:
        request(**{name: True})
    except BadInput:
        pass
    assert not [w for w in recwarn if "is not known" in str(w.message)]


@given(
    st.text(st.characters(exclude_characters="="), min_size=1),
    st.recursive(st.booleans() | st.integers(), st.lists, max_leaves=5),
)
def test_settings_are_json(key, value):
    assert setting(f"{key}={json.dumps(value)}") == (key, value)


def test_settings_that_are_no_json_are_text():
    assert setting("language_code=de") == ("language_code", "de") and setting("a=b=c") == ("a", "b=c")
    for bad in ("a", "=b", ""):
        with pytest.raises(BadInput, match="KEY=VALUE"):
            setting(bad)
