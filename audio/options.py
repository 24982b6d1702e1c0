"""The options of a transcription: short names, presets, and which combinations are refused.

    request(speakers=2, topics=True, language="de")
        ->  {"speaker_labels": true, "speakers_expected": 2, "iab_categories": true, "language_code": "de"}

Any other option goes to the service under its own name: the service has more options than we list, and keeps
adding more. Some options are refused here, before a long upload instead of after it: options that the service
is known to refuse or ignore, values that are invalid or cannot be sent, names that look like typos, and a
short name that contradicts the field it stands for. The sandbox uses the same tables, so each rule is written
once.
"""

import difflib
import json

from audio.errors import BadInput

SWITCHES = {  # short name: the field of the service that it turns on
    "topics": "iab_categories",
    "sentiment": "sentiment_analysis",
    "entities": "entity_detection",
    "key_phrases": "auto_highlights",
    "content_safety": "content_safety",
}
TASKS = {  # short name: the task of speech_understanding that it requests
    "summary": "summarization",
    "action_items": "action_items",
    "translate": "translation",
    "speaker_names": "speaker_identification",
}
HELP = {
    "language": "the language spoken, such as de; auto lets the service detect it",
    "speakers": "the number of speakers to tell apart, or a range: 2-5",
    "speaker_names": "names for the service to assign to the speakers: Ada,Bo",
    "summary": "a summary, with chapters",
    "action_items": "the tasks agreed on, each with a quote",
    "translate": "languages to translate into: es,fr",
    "topics": "the topics of the recording",
    "sentiment": "the sentiment of each sentence",
    "entities": "names, places, dates, numbers and so on",
    "key_phrases": "the most important phrases",
    "content_safety": "sensitive content",
}
OTHER_WORDS = {  # a word that users may try: the name to suggest
    "diarization": "speakers",
    "diarize": "speakers",
    "highlights": "key_phrases",
    "feelings": "sentiment",
    "lang": "language",
    "model": "speech_models",
}
PERSONAL = """person_name person_age phone_number email_address location date_of_birth account_number
banking_information credit_card_number credit_card_expiration credit_card_cvv us_social_security_number
passport_number drivers_license ip_address password username healthcare_number vehicle_id number_sequence
medical_condition medical_process""".split()
PRESETS = {
    "meeting": {"speakers": True, "summary": "bullets", "action_items": True, "key_phrases": True},
    "podcast": {"speakers": True, "summary": "paragraph", "topics": True, "key_phrases": True},
    "call": {
        "speakers": True,
        "sentiment": True,
        "entities": True,
        "redact_pii": True,
        "redact_pii_policies": PERSONAL,
        "redact_pii_sub": "entity_name",
    },
}
FIELDS = {  # fields of the service, by the type of their values
    "true or false": """auto_chapters auto_highlights content_safety disfluencies dual_channel
        entity_detection filter_profanity format_text iab_categories language_detection multichannel punctuate
        redact_pii redact_pii_audio redact_pii_return_unredacted sentiment_analysis speaker_labels
        summarization""",
    "a number": """audio_end_at audio_start_from content_safety_confidence language_confidence_threshold
        speakers_expected speech_threshold temperature""",
    "a list": """custom_spelling keyterms_prompt language_codes redact_pii_policies speech_models
        word_boost""",
    "an object": """keyterms_prompt_options language_detection_options redact_pii_audio_options
        redact_static_entities speaker_options speech_understanding""",
    "text": """boost_param domain language_code prompt redact_pii_audio_quality redact_pii_sub
        remove_audio_tags summary_model summary_type webhook_auth_header_name webhook_auth_header_value
        webhook_url""",
}
CLASSES = {"true or false": bool, "a number": (int, float), "a list": list, "an object": dict, "text": str}
KINDS = {name: kind for kind, names in FIELDS.items() for name in names.split()}
KNOWN = [*KINDS, *HELP, "speech_model"]
# A condition holds if all its terms do. A term is NAME (the option is set, and neither false nor empty),
# NAME=TEXT (its value, as text, contains TEXT) or -TERM (the term does not hold).
REFUSED = {  # combinations that the service refuses, with its own message if we know it
    "speech_model": 'speech_model is deprecated. Use "speech_models" instead.',
    "speech_models=[]": '"speech_models" must be a non-empty list',
    "auto_chapters summarization": "Only one of the following models can be enabled at a time: "
    "auto_chapters, summarization.",
    "word_boost speech_models=universal-3": "word_boost is not supported by this model. "
    "Use keyterms_prompt instead.",
    "redact_pii -redact_pii_policies": "redact_pii needs redact_pii_policies, such as person_name",
    "summary_model -summary_type": "give both summary_model and summary_type, or neither",
    "summary_type -summary_model": "give both summary_model and summary_type, or neither",
    "summary_model=conversational -speaker_labels -dual_channel -multichannel": "summary_model="
    "conversational needs speaker_labels, dual_channel or multichannel",
    "summary_model=catchy -summary_type=gist -summary_type=headline": "summary_model=catchy needs "
    "summary_type gist or headline",
    "summary_type=gist -summary_model=catchy": "summary_type gist needs summary_model=catchy",
    "summarization punctuate=False": "summarization needs punctuate",
    "summarization format_text=False": "summarization needs format_text",
    "auto_chapters punctuate=False": "auto_chapters needs punctuate",
}
USELESS = {  # combinations that the service may accept and then partly ignore
    "redact_pii_audio -redact_pii": "redact_pii_audio needs redact_pii",
    "redact_pii_return_unredacted -redact_pii": "redact_pii_return_unredacted needs redact_pii",
    "language_code language_detection": "language_code and language_detection exclude each other",
    "speakers_expected -speaker_labels": "speakers_expected needs speaker_labels",
    "speakers_expected speaker_options": "give speakers_expected or speaker_options, not both",
    "audio_url": "audio_url is not an option: give the URL as the source",
}


def request(preset=None, **options):
    """Options (those of audio.transcribe) -> the fields of POST /v2/transcript, except audio_url. None
    means not set. Raises BadInput; its message lists all the problems found."""
    if preset is not None and preset not in PRESETS:
        raise BadInput(f"there is no preset {preset!r}: use {', '.join(PRESETS)}")
    given = {name: value for name, value in options.items() if value is not None}
    wrong = [f"{name} is not known: did you mean {near}?" for name in given if (near := meant(name, KNOWN))]
    fields, tasks = {}, {}
    for name, value in (PRESETS.get(preset, {}) | given).items():
        if name in ("speakers", "language"):
            made = speakers(value) if name == "speakers" else language(value)
        elif name not in TASKS:
            made = {SWITCHES.get(name, name): as_list(value) if KINDS.get(name) == "a list" else value}
        else:
            tasks |= {} if value is False else {TASKS[name]: task(name, value)}
            made = {"speaker_labels": True} if name == "speaker_names" and value is not False else {}
        twice = [key for key in made if name in given and given.get(key, made[key]) not in (made[key], value)]
        wrong += [f"{name} and {key} set the same thing: give only one of them" for key in twice]
        fields |= made
    wrong += mistyped(fields, {field: name for name, field in SWITCHES.items() if name in given})
    if tasks and not wrong:
        more = fields.get("speech_understanding", {})
        fields["speech_understanding"] = {**more, "request": {**tasks, **more.get("request", {})}}
    try:
        json.dumps(fields, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        wrong.append(f"the options cannot be sent as JSON: {error}")
    wrong += [*refusals(fields, REFUSED), *refusals(fields, USELESS)]
    if wrong:
        raise BadInput("; ".join(dict.fromkeys(wrong)))
    return fields


def mistyped(fields, names):
    """Errors in the values of the service's fields. names: {field: the user's name for it}."""
    wrong = []
    for field, value in fields.items():
        kind, name = KINDS.get(field), names.get(field, field)
        if kind and (not isinstance(value, CLASSES[kind]) or (kind == "a number" and value is True)):
            wrong.append(f"{name} must be {kind}, not {value!r}")
        elif field == "speech_understanding":
            tasks = value.get("request")
            if not (isinstance(tasks, dict) and all(isinstance(task, dict) for task in tasks.values())):
                wrong.append("speech_understanding must have a request of the form {task: {...}, ...}")
    return wrong


def refusals(fields, rules):
    """The messages of the rules whose conditions hold for the fields."""

    def holds(term):
        name, _, text = term.lstrip("-").partition("=")
        present = text in str(fields.get(name)) if text else bool(fields.get(name))
        return present is not term.startswith("-")

    return [text for condition, text in rules.items() if all(map(holds, condition.split()))]


def meant(name, known):
    """The known name that the user probably meant; None if `name` is known, or if nothing is similar."""
    if name in known:
        return None
    return OTHER_WORDS.get(name) or next(iter(difflib.get_close_matches(name, known, 1, 0.8)), None)


def task(name, value):
    """The value of a short name -> the options of its task in speech_understanding. A dict is returned
    unchanged."""
    if isinstance(value, dict):
        return value
    if name == "summary" and value in (True, "bullets", "paragraph"):
        return {"summary_type": "bullets" if value is True else value}
    if name == "action_items" and value is True:
        return {}
    parts = as_list(value)
    if isinstance(parts, list) and parts and all(isinstance(part, str) and part for part in parts):
        if name == "translate":
            return {"target_languages": parts}
        if name == "speaker_names":
            return {"speaker_type": "name", "known_values": parts}
    kinds = {"summary": "bullets or paragraph", "action_items": "true or false"}
    raise BadInput(f"{name} must be {kinds.get(name, 'a list of strings')}, not {value!r}")


def as_list(value):
    """Comma-separated text, or a tuple -> list; anything else is returned unchanged."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",")]
    return list(value) if isinstance(value, tuple) else value


def language(value):
    if not (isinstance(value, str) and value.strip()):
        raise BadInput(f"language must be a code such as de, or auto, not {value!r}")
    return {"language_detection": True} if value == "auto" else {"language_code": value}


def speakers(value):
    if value is True or value is False:
        return {"speaker_labels": value}
    least, dash, most = str(value).partition("-")
    if not least.isdecimal() or (dash and not most.isdecimal()) or not 1 <= int(least) <= int(most or least):
        raise BadInput(f"speakers must be a number of at least 1, or a range such as 2-5, not {value!r}")
    if not dash:
        return {"speaker_labels": True, "speakers_expected": int(least)}
    bounds = {"min_speakers_expected": int(least), "max_speakers_expected": int(most)}
    return {"speaker_labels": True, "speaker_options": bounds}


def setting(text):
    """KEY=VALUE from the command line -> (key, value). The value is JSON, or else text: a=true, b=["x"], c=x.
    Raises BadInput."""
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise BadInput(f"{text!r} must be KEY=VALUE, such as language_code=de or A=Ada")
    try:
        return key, json.loads(value.lower() if value in ("True", "False") else value)
    except (ValueError, RecursionError):
        return key, value


def nested(options):
    """[("a.b", 1)] -> {"a": {"b": 1}}. Raises BadInput if "a" also has a value, or "a.b" is given twice."""
    fields = {}
    for key, value in options:
        *path, last = key.split(".")
        place = fields
        for part in path:
            place = place.setdefault(part, {})
            if not isinstance(place, dict):
                raise BadInput(f"{key}: {part} already has the value {place!r}")
        if last in place:
            raise BadInput(f"{key} is given twice")
        place[last] = value
    return fields
