"""What the sandbox answers: the same made-up meeting for every recording, told within its real duration.

Nobody listens to the sound. But all features describe the same words: entities, key phrases, chapters and
sentiments are found where the words say them, at the times of these words (milliseconds)."""

import json
import re
from pathlib import Path

SCRIPT = json.loads(Path(__file__).with_name("canned.json").read_text(encoding="utf-8"))
SECTIONS = SCRIPT["sections"]
WORD, MOST_WORDS = 400, 600  # milliseconds of a word, as people talk; the rest of a long recording is pauses


def results(fields, seconds, silent=False):
    """The fields of a completed transcript, for a recording of so many seconds and the options of a job."""
    told = [] if silent else story(fields, int(1000 * seconds))
    sections, words = by_section(told), [word for sentence in told for word in sentence["words"]]
    found = {
        "text": " ".join(sentence["text"] for sentence in told),
        "words": words,
        "sentences": told,
        "confidence": 0.95 if words else 0.0,
        "audio_duration": -int(-seconds // 1),
        "language_code": fields.get("language_code") or "en_us",
        "language_confidence": 0.99 if fields.get("language_detection") else None,
        "speech_model_used": (fields.get("speech_models") or ["universal-2"])[0],
    }
    features = (
        ("speaker_labels", "utterances", bare(told)),
        ("multichannel", "utterances", bare(told)),
        ("entity_detection", "entities", [entity for sentence in told for entity in sentence["entities"]]),
        ("sentiment_analysis", "sentiment_analysis_results", bare(told, "sentiment")),
        ("auto_highlights", "auto_highlights_result", {"status": "success", "results": highlights(words)}),
        ("iab_categories", "iab_categories_result", categories(sections)),
        (
            "content_safety",
            "content_safety_labels",
            {"status": "success", "results": [], "summary": {}, "severity_score_summary": {}},
        ),
        (
            "auto_chapters",
            "chapters",
            [
                {key: about(part)[key] for key in ("gist", "headline")}
                | {"summary": whole(part), **span(part)}
                for part in sections
            ],
        ),
        ("summarization", "summary", "\n".join(f"- {whole(part)}" for part in sections)),
    )
    found |= {field: value for option, field, value in features if fields.get(option)}
    if fields.get("speech_understanding"):
        found["speech_understanding"] = understood(fields["speech_understanding"], found, sections)
    return found


def highlights(words):
    found = [(phrase, places(phrase, words)) for phrase in SCRIPT["phrases"]]
    return [
        {
            "text": phrase,
            "count": len(at),
            "rank": round(len(at) / (1 + len(words) ** 0.5), 2),
            "timestamps": [{"start": start, "end": end} for start, end, _ in at],
        }
        for phrase, at in sorted(found, key=lambda pair: -len(pair[1]))
        if at
    ]


def categories(sections):
    parts = [
        {
            "text": " ".join(s["text"] for s in part),
            "timestamp": span(part),
            "labels": [
                {"label": label, "relevance": value} for label, value in about(part)["topics"].items()
            ],
        }
        for part in sections
    ]
    summary = {label["label"]: label["relevance"] for part in parts for label in part["labels"]}
    return {"status": "success", "results": parts, "summary": summary}


def understood(wanted, found, sections):
    """speech_understanding with its response; names found for speakers are written into the sentences."""
    tasks = wanted["request"]
    response = {name: {"status": "success"} for name in tasks}
    if "summarization" in tasks:
        kind = tasks["summarization"]["summary_type"]
        response["summarization"] |= {
            "summary_type": kind,
            "summary": [
                {
                    "headline": about(part)["headline"],
                    **span(part),
                    **({"bullets": about(part)["bullets"]} if kind == "bullets" else {"text": whole(part)}),
                }
                for part in sections
            ],
        }
    if "speaker_identification" in tasks:
        speakers = sorted({s["speaker"] for s in found["sentences"] if s["speaker"]})
        mapping = dict(zip(speakers, tasks["speaker_identification"].get("known_values") or ()))
        response["speaker_identification"]["mapping"] = mapping
        for part in [*found["sentences"], *found["words"], *found.get("utterances", ())]:
            part["speaker"] = mapping.get(part["speaker"], part["speaker"])
    if "translation" in tasks:
        languages = tasks["translation"]["target_languages"]
        found["translated_texts"] = {code: f"[{code}] {found['text']}" for code in languages}
    return {**wanted, "response": response}


def story(fields, duration):
    """Sentences that fill a duration, their words spread over it; two at least, for two people talk."""
    lines = [(n, line) for n, section in enumerate(SECTIONS) for line in section["lines"]]
    told, count = [], 0
    while len(told) < 2 or (count * WORD < duration and count < MOST_WORDS):
        section, (text, *more) = lines[len(told) % len(lines)]
        told.append((section + len(told) // len(lines) * len(SECTIONS), text.split(), *more))
        count += len(text.split())
    found, at = [], 0
    for i, (section, texts, sentiment, entities) in enumerate(told):
        who = speaker(fields, i)
        edges = [duration * (at + j) // count for j in range(len(texts) + 1)]
        words = [
            {"text": text, "start": start, "end": end, "confidence": 0.95, **who}
            for text, start, end in zip(texts, edges, edges[1:])
        ]
        at += len(texts)
        named = []
        for kind, text in entities:
            start, end, first = places(text, words)[0]
            named.append({"entity_type": kind, "text": text, "start": start, "end": end})
            redact(fields, kind, words[first : first + len(text.split())])
        found.append(
            {
                "text": " ".join(word["text"] for word in words),
                **span(words),
                "confidence": 0.95,
                **who,
                "words": words,
                "sentiment": sentiment,
                "section": section,
                "entities": named,
            }
        )
    return found


def bare(told, *more):
    """Sentences with the fields that are the service's too."""
    keys = ("text", "start", "end", "confidence", "speaker", "channel", *(more or ["words"]))
    return [{key: sentence[key] for key in keys} for sentence in told]


def by_section(told):
    return [[s for s in told if s["section"] == n] for n in dict.fromkeys(s["section"] for s in told)]


def paragraphs(told):
    return [
        {
            "text": " ".join(s["text"] for s in part),
            **span(part),
            "confidence": 0.95,
            "words": [word for s in part for word in s["words"]],
        }
        for part in by_section(told)
    ]


def speaker(fields, i):
    least = (fields.get("speaker_options") or {}).get("min_speakers_expected", 2)
    label = "ABCDEFGHIJ"[i % (fields.get("speakers_expected") or max(2, least)) % 10]
    if not fields.get("multichannel"):
        return {"speaker": label if fields.get("speaker_labels") else None, "channel": None}
    channel = str(1 + i % 2)
    return {"speaker": channel + "A" * bool(fields.get("speaker_labels")), "channel": channel}


def redact(fields, kind, words):
    """Takes an entity out of the words; the list of entities keeps it, as that of the service does."""
    if fields.get("redact_pii") and kind in (fields.get("redact_pii_policies") or ()):
        named = fields.get("redact_pii_sub") == "entity_name"
        for word in words:
            hidden = lambda found: f"[{kind.upper()}]" if named else "#" * len(found[0])
            word["text"] = re.sub(r"\w+", hidden, word["text"])


def places(phrase, words):
    """Where words follow one another as in a phrase -> [(start, end, index of the first word)]."""
    wanted, texts = plain(phrase), [" ".join(plain(word["text"])) for word in words]
    n = len(wanted)
    return [
        (words[i]["start"], words[i + n - 1]["end"], i)
        for i in range(len(words) - n + 1)
        if wanted and texts[i : i + n] == wanted
    ]


def plain(text):
    return re.findall(r"[\w#']+", text.lower())


def span(parts):
    return {"start": parts[0]["start"], "end": parts[-1]["end"]}


def about(part):
    return SECTIONS[part[0]["section"] % len(SECTIONS)]


def whole(part):
    return " ".join(about(part)["bullets"])


def answer(messages):
    """What the model of the gateway says: the line of what it was told that has most words of the question.

    Told of a tool `transcribe`, and not yet what it returned, it calls it for the file or URL asked about."""
    system, told = (
        "\n".join(
            str(message.get("content")) for message in messages if (message.get("role") == "system") is ours
        )
        for ours in (True, False)
    )
    question = told.split("\n<tool", 1)[0].strip().rpartition("\n")[2]
    source = re.search(r"https?://\S+\w|\S+\.\w{3,4}\b", question)
    if source and '"transcribe"' in system and "<tool_response>" not in told:
        arguments = json.dumps({"source": source[0]})
        return f'<tool_call>{{"name":"transcribe","arguments":{arguments}}}</tool_call>'
    lines = re.findall(r'(?:Speaker )?\w+: [^\\\n"<]+', told)
    asked = {word[:4] for word in plain(question) if len(word) > 3}
    best = max(lines, key=lambda line: len(asked & {word[:4] for word in plain(line)}), default="")
    return f"Canned, by shared words: {best}" if best else "Canned: the transcript does not tell."
