"""What can be asked of a transcription: short names for the common, presets, and what excludes what.

    request(speakers=2, topics=True, language_code="de")
        ->  {"speaker_labels": true, "speakers_expected": 2, "iab_categories": true, "language_code": "de"}

Any other option goes to the service as it is: it knows more names than we do, and learns new ones every
month. Refused here is only what the service is known to refuse, before a long upload instead of after it;
what merely looks wrong is a warning."""

import difflib
import json
import warnings

from audio.errors import AudioWarning, BadInput

SWITCHES = {
    "sentiment": "sentiment_analysis",
    "entities": "entity_detection",
    "topics": "iab_categories",
    "highlights": "auto_highlights",
}
PERSONAL = [
    "person_name",
    "phone_number",
    "email_address",
    "location",
    "date_of_birth",
    "account_number",
    "banking_information",
    "credit_card_number",
    "credit_card_expiration",
    "credit_card_cvv",
    "us_social_security_number",
    "passport_number",
    "drivers_license",
    "ip_address",
    "password",
    "username",
    "healthcare_number",
    "vehicle_id",
]
PRESETS = {
    "meeting": {"speakers": True, "summary": "bullets", "highlights": True},
    "podcast": {"speakers": True, "summary": "paragraph", "topics": True, "highlights": True},
    "call": {
        "speakers": True,
        "sentiment": True,
        "entities": True,
        "redact_pii": True,
        "redact_pii_policies": PERSONAL,
        "redact_pii_sub": "entity_name",
    },
}
LISTS = ("speech_models", "keyterms_prompt", "word_boost", "redact_pii_policies", "language_codes")
KNOWN = """audio_end_at audio_start_from auto_chapters auto_highlights boost_param content_safety
content_safety_confidence custom_spelling disfluencies domain dual_channel entity_detection
filter_profanity format_text iab_categories keyterms_prompt keyterms_prompt_options language_code
language_codes language_confidence_threshold language_detection language_detection_options multichannel
prompt punctuate redact_pii redact_pii_audio redact_pii_audio_options redact_pii_audio_quality
redact_pii_policies redact_pii_return_unredacted redact_pii_sub remove_audio_tags sentiment_analysis
speaker_labels speaker_options speakers_expected speech_models speech_threshold speech_understanding
summarization summary_model summary_type temperature webhook_auth_header_name webhook_auth_header_value
webhook_url word_boost""".split()


def request(preset=None, **options):
    """Options -> the fields of POST /v2/transcript, all but the address. Raises BadInput.

    preset: meeting, podcast or call (see reports.py). Short names: speakers (True, a number, or "2-5" for
    from 2 to 5), summary (True, "bullets" or "paragraph"), topics, sentiment, entities, highlights. None
    means not set. custom_spelling may be a dict {"SQL": ["sequel"]}."""
    if preset is not None and preset not in PRESETS:
        raise BadInput(f"there is no preset {preset!r}: use {', '.join(PRESETS)}")
    options = {key: value for key, value in options.items() if value is not None}
    wanted, fields = {**PRESETS.get(preset, {}), **options}, {}
    for name, value in wanted.items():
        if name == "speakers":
            fields |= speakers(value)
        elif name == "summary":
            if value:
                kind = value if isinstance(value, str) else "bullets"
                fields["speech_understanding"] = {"request": {"summarization": {"summary_type": kind}}}
        else:
            fields[SWITCHES.get(name, name)] = value
    for name in LISTS:
        if isinstance(fields.get(name), str):
            fields[name] = [part.strip() for part in fields[name].split(",")]
    spelling = fields.get("custom_spelling")
    if isinstance(spelling, dict):
        fields["custom_spelling"] = [
            {"from": [old] if isinstance(old, str) else list(old), "to": new} for new, old in spelling.items()
        ]
    more = wanted.get("speech_understanding")
    if more and wanted.get("summary"):  # both asked for: side by side
        asked = request(summary=wanted["summary"])["speech_understanding"]["request"]
        fields["speech_understanding"] = {**more, "request": {**asked, **more.get("request", {})}}
    check(fields)
    return fields


def speakers(value):
    if value is True or value is False:
        return {"speaker_labels": value}
    least, dash, most = str(value).partition("-")
    if not least.isdecimal() or (dash and not most.isdecimal()) or not 1 <= int(least) <= int(most or least):
        raise BadInput(f"speakers must be a number from 1 up, or a range such as 2-5, not {value!r}")
    if not dash:
        return {"speaker_labels": True, "speakers_expected": int(least)}
    return {
        "speaker_labels": True,
        "speaker_options": {"min_speakers_expected": int(least), "max_speakers_expected": int(most)},
    }


def setting(text):
    """KEY=VALUE of a command line -> (key, value). The value is JSON, or else text: a=true, b=["x"], c=x.
    Raises BadInput."""
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise BadInput(f"{text!r} must be KEY=VALUE, such as language_code=de")
    try:
        return key, json.loads(value)
    except (ValueError, RecursionError):
        return key, value


def check(fields):
    """Raises BadInput with every conflict the service is known to refuse; warns of what looks wrong."""
    on = fields.get
    wrong = [
        reason
        for found, reason in (
            ("speech_model" in fields, "speech_model is no longer accepted: give speech_models, a list"),
            (
                on("auto_chapters") and on("summarization"),
                "auto_chapters and summarization exclude each other",
            ),
            (
                ("summary_model" in fields) != ("summary_type" in fields),
                "give both summary_model and summary_type, or neither",
            ),
            (
                on("summary_model") == "conversational"
                and not (on("speaker_labels") or on("dual_channel") or on("multichannel")),
                "summary_model=conversational needs speaker_labels",
            ),
            (
                on("summary_model") == "catchy" and on("summary_type") not in ("gist", "headline"),
                "summary_model=catchy has the types gist and headline",
            ),
            (
                on("summary_model") in ("informative", "conversational") and on("summary_type") == "gist",
                "the type gist needs summary_model=catchy",
            ),
            (
                on("summarization") and (on("punctuate") is False or on("format_text") is False),
                "summarization needs punctuate and format_text",
            ),
            (on("auto_chapters") and on("punctuate") is False, "auto_chapters needs punctuate"),
            (
                on("word_boost") and any("universal-3" in str(model) for model in on("speech_models") or ()),
                "word_boost is not accepted by universal-3 models: use keyterms_prompt",
            ),
            (
                on("redact_pii") and not on("redact_pii_policies"),
                "redact_pii needs redact_pii_policies, a list such as person_name,phone_number",
            ),
            (
                not on("redact_pii") and (on("redact_pii_audio") or on("redact_pii_return_unredacted")),
                "redact_pii_audio and redact_pii_return_unredacted need redact_pii",
            ),
            (
                on("language_code") and on("language_detection"),
                "language_code and language_detection exclude each other",
            ),
            (on("speakers_expected") and not on("speaker_labels"), "speakers_expected needs speaker_labels"),
            (
                on("speakers_expected") and on("speaker_options"),
                "give speakers_expected or speaker_options, not both",
            ),
            (
                not between(on("content_safety_confidence", 25), 25, 100),
                "content_safety_confidence must be from 25 to 100",
            ),
            (not between(on("speech_threshold", 0), 0, 1), "speech_threshold must be from 0 to 1"),
            (
                not between(on("language_confidence_threshold", 0), 0, 1),
                "language_confidence_threshold must be from 0 to 1",
            ),
            ("speech_models" in fields and not on("speech_models"), "speech_models must name a model"),
        )
        if found
    ]
    if wrong:
        raise BadInput("; ".join(wrong))
    doubts = [
        f"{name} is not known here: is {near[0]} meant?"
        for name in fields
        if name not in KNOWN and (near := difflib.get_close_matches(name, KNOWN, 1, 0.8))
    ]
    if on("prompt") and on("keyterms_prompt"):
        doubts.append("some models refuse prompt and keyterms_prompt together")
    if on("summary_model") == "conversational" and on("multichannel") and not on("speaker_labels"):
        doubts.append("summary_model=conversational may be refused with multichannel alone")
    for doubt in doubts:
        warnings.warn(doubt, AudioWarning, stacklevel=4)


def between(value, low, high):
    return isinstance(value, (int, float)) and low <= value <= high
