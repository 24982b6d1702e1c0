"""What the sandbox answers: the same made-up meeting for every recording, told within its real duration.

Nobody listens to the sound. But all features describe the same words: entities, key phrases, chapters and
sentiments are found where the words say them, at the times of these words (milliseconds)."""

import json
import re
from pathlib import Path

SCRIPT = json.loads(Path(__file__).with_name("canned.json").read_text(encoding="utf-8"))
SECTIONS, MODEL = SCRIPT["sections"], "canned-words"
WORD, MOST_WORDS = 400, 600  # milliseconds of a word, as people talk; the rest of a long recording is pauses


def results(fields, seconds, silent=False):
    """The fields of a completed transcript, for a recording of so many seconds and the options of a job."""
    told = [] if silent else story(fields, int(1000 * seconds))
    numbers = dict.fromkeys(sentence["section"] for sentence in told)
    sections = [[sentence for sentence in told if sentence["section"] == n] for n in numbers]
    words, headlines = [word for sentence in told for word in sentence["words"]], map(about, sections)
    labels = {label: value for part in sections for label, value in about(part)["topics"].items()}
    categories = [
        {
            "text": " ".join(sentence["text"] for sentence in part),
            "timestamp": span(part),
            "labels": [
                {"label": label, "relevance": about(part)["topics"][label]} for label in about(part)["topics"]
            ],
        }
        for part in sections
    ]
    chapters = [
        {
            "gist": head["gist"],
            "headline": head["headline"],
            "summary": " ".join(head["bullets"]),
            **span(part),
        }
        for head, part in zip(headlines, sections)
    ]
    safety = {"status": "success", "results": [], "summary": {}, "severity_score_summary": {}}
    features = {
        "speaker_labels": ("utterances", bare(told)),
        "multichannel": ("utterances", bare(told)),
        "entity_detection": ("entities", [entity for sentence in told for entity in sentence["entities"]]),
        "sentiment_analysis": ("sentiment_analysis_results", bare(told, "sentiment")),
        "auto_highlights": ("auto_highlights_result", {"status": "success", "results": highlights(words)}),
        "iab_categories": (
            "iab_categories_result",
            {"status": "success", "results": categories, "summary": labels},
        ),
        "content_safety": ("content_safety_labels", safety),
        "auto_chapters": ("chapters", chapters),
        "summarization": ("summary", "\n".join(f"- {chapter['summary']}" for chapter in chapters)),
    }
    found = {
        "text": " ".join(sentence["text"] for sentence in told),
        "words": words,
        "sentences": told,
        "paragraphs": [joined(part, [word for s in part for word in s["words"]]) for part in sections],
        "confidence": 0.95 if words else 0.0,
        "audio_duration": -int(-seconds // 1),
        "language_code": fields.get("language_code") or "en_us",
        "language_confidence": 0.99 if fields.get("language_detection") else None,
        "speech_model_used": MODEL,
        **{name: value for option, (name, value) in features.items() if fields.get(option)},
    }
    if fields.get("speech_understanding"):
        found["speech_understanding"] = understood(fields["speech_understanding"], found, chapters, sections)
    return found


def understood(wanted, found, chapters, sections):
    """speech_understanding with its response; names found for speakers are written into the sentences."""
    tasks, told = wanted["request"], found["sentences"]
    response = {name: {"status": "success"} for name in tasks}
    if "summarization" in tasks:
        kind = tasks["summarization"].get("summary_type")
        response["summarization"] |= {
            "summary_type": kind,
            "summary": [
                {
                    **chapter,
                    **(
                        {"bullets": about(part)["bullets"]}
                        if kind == "bullets"
                        else {"text": chapter["summary"]}
                    ),
                }
                for chapter, part in zip(chapters, sections)
            ],
        }
    if "action_items" in tasks:
        response["action_items"]["items"] = [
            {"action_item": sentence["action"], "quote": sentence["text"], "timestamp": sentence["start"]}
            for sentence in told
            if sentence["action"]
        ]
    if "speaker_identification" in tasks:
        labels = sorted({sentence["speaker"] for sentence in told if sentence["speaker"]})
        mapping = dict(zip(labels, tasks["speaker_identification"].get("known_values") or ()))
        response["speaker_identification"]["mapping"] = mapping
        for part in [*told, *found["words"], *found.get("utterances", ())]:
            part["speaker"] = mapping.get(part["speaker"], part["speaker"])
    if "translation" in tasks:
        languages = tasks["translation"].get("target_languages") or ()
        found["translated_texts"] = {str(code): f"[{code}] {found['text']}" for code in languages}
    return {**wanted, "response": response}


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


def story(fields, duration):
    """Sentences that fill a duration, their words spread over it; two at least, for two people talk."""
    lines = [(n, *line) for n, section in enumerate(SECTIONS) for line in section["lines"]]
    told, count = [], 0
    while len(told) < 2 or (count * WORD < duration and count < MOST_WORDS):
        section, text, *more = lines[len(told) % len(lines)]
        told.append((section + len(told) // len(lines) * len(SECTIONS), text.split(), *more))
        count += len(text.split())
    found, at = [], 0
    for i, (section, texts, sentiment, entities, *action) in enumerate(told):
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
        known = {"sentiment": sentiment, "section": section, "entities": named, "action": "".join(action)}
        found.append({**joined(words, words), **who, **known})
    return found


def joined(parts, words):
    text = " ".join(part["text"] for part in parts)
    return {"text": text, **span(parts), "confidence": 0.95, "words": words}


def bare(told, *more):
    """Sentences with the fields that are the service's too."""
    keys = ("text", "start", "end", "confidence", "speaker", "channel", *(more or ["words"]))
    return [{key: sentence[key] for key in keys} for sentence in told]


def speaker(fields, i):
    least = (fields.get("speaker_options") or {}).get("min_speakers_expected") or 2
    label = "ABCDEFGHIJ"[i % int(fields.get("speakers_expected") or max(2, least)) % 10]
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


def answer(messages):
    """What the model of the gateway says: the line of what it was told that has most words of the question.

    Told of a tool `transcribe`, and not yet what it returned, it calls it for the file or URL asked about."""
    texts = lambda ours: (str(m.get("content")) for m in messages if (m.get("role") == "system") is ours)
    system, told = "\n".join(texts(True)), "\n".join(texts(False))
    question = told.split("\n<tool", 1)[0].strip().rpartition("\n")[2]
    source = re.search(r"https?://\S+\w|\S+\.\w{3,4}\b", question)
    if source and '"transcribe"' in system and "<tool_response>" not in told:
        arguments = json.dumps({"source": source[0]})
        return f'<tool_call>{{"name":"transcribe","arguments":{arguments}}}</tool_call>'
    lines = re.findall(r'(?:Speaker )?\w+: [^\\\n"<]+', told)
    asked = {word[:4] for word in plain(question) if len(word) > 3}
    best = max(lines, key=lambda line: len(asked & {word[:4] for word in plain(line)}), default="")
    return f"Canned, by shared words: {best}" if best else "Canned: the transcript does not tell."
