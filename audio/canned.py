"""The answers of the sandbox: the same made-up meeting for every recording, fitted to its duration.

The sound is not transcribed. But all features agree with one another: entities, key phrases, chapters and
sentiments refer to the same words, and to their times in milliseconds."""

import io
import itertools
import json
import re
import wave
from pathlib import Path

SCRIPT = json.loads(Path(__file__).with_name("canned.json").read_text(encoding="utf-8"))
SECTIONS, MODEL = SCRIPT["sections"], "canned-words"
SAFE = {"summary": {}, "severity_score_summary": {}}
# Milliseconds per word, and roughly the most words in a transcript: in recordings over 4 minutes, each word
# lasts longer.
WORD, MOST_WORDS = 400, 600


def results(fields, heard):
    """The fields of a job -> the fields of its completed transcript, null for features not requested.
    heard: the length of the recording in seconds, and whether it is silent."""
    sentences = story(fields, heard)
    words = [word for sentence in sentences for word in sentence["words"]]
    parts = paragraphs(sentences)
    wanted = lambda *options: any(map(fields.get, options))
    transcript = {
        "text": joined(sentences),
        "words": words,
        "utterances": bare(sentences) if wanted("speaker_labels", "multichannel") else None,
        "confidence": 0.95 if words else 0.0,
        "audio_duration": -int(-heard["seconds"] // 1),
        "language_code": fields.get("language_code") or "en_us",
        "speech_model_used": MODEL,
        "translated_texts": None,
    }
    features = {
        "entity_detection": ("entities", [entity for one in sentences for entity in one["entities"]]),
        "sentiment_analysis": ("sentiment_analysis_results", bare(sentences, "sentiment")),
        "auto_highlights": ("auto_highlights_result", {"status": "success", "results": highlights(words)}),
        "iab_categories": ("iab_categories_result", categories(parts)),
        "content_safety": ("content_safety_labels", {"status": "success", "results": [], **SAFE}),
        "auto_chapters": ("chapters", [pick(part, "gist headline summary start end") for part in parts]),
        "summarization": ("summary", "\n".join(f"- {part['summary']}" for part in parts)),
    }
    transcript |= {name: value if wanted(option) else None for option, (name, value) in features.items()}
    if wanted("speech_understanding"):
        transcript["speech_understanding"] = understood(fields, transcript, sentences)
    return transcript


def understood(fields, transcript, sentences):
    """The field speech_understanding of a completed transcript: the request, and the response to it. The
    speakers' names, if requested, are already in the sentences."""
    tasks = fields["speech_understanding"]["request"]
    kind = tasks.get("summarization", {}).get("summary_type")
    body = lambda part: {"bullets": part["bullets"]} if kind == "bullets" else {"text": part["summary"]}
    summary = [pick(part, "headline start end") | body(part) for part in paragraphs(sentences)]
    item = lambda s: {"action_item": s["action"], "quote": s["text"], "timestamp": s["start"]}
    items = [item(sentence) for sentence in sentences if sentence["action"]]
    answers = {"summarization": {"summary_type": kind, "summary": summary}, "action_items": {"items": items}}
    response = {name: {"status": "success", **answers.get(name, {})} for name in tasks}
    languages = tasks.get("translation", {}).get("target_languages") or ()
    transcript["translated_texts"] = {str(code): f"[{code}] {transcript['text']}" for code in languages}
    return {**fields["speech_understanding"], "response": response}


def paragraphs(sentences):
    """The sentences, grouped by section of the script, each group with the script's data on that section."""
    parts = []
    for _, group in itertools.groupby(sentences, lambda sentence: sentence["section"]["gist"]):
        group = list(group)
        about, words = group[0]["section"], [word for sentence in group for word in sentence["words"]]
        parts.append({**about, **spoken(words), "summary": " ".join(about["bullets"])})
    return parts


def categories(parts):
    labels = lambda part: [{"label": name, "relevance": value} for name, value in part["topics"].items()]
    known = lambda part: {"text": part["text"], "timestamp": pick(part, "start end"), "labels": labels(part)}
    summary = {name: value for part in parts for name, value in part["topics"].items()}
    return {"status": "success", "results": [*map(known, parts)], "summary": summary}


def highlights(words):
    matches = [(phrase, places(phrase, words)) for phrase in SCRIPT["phrases"]]
    times = lambda at: [{"start": start, "end": end} for start, end, _ in at]
    known = lambda at: {"count": len(at), "rank": len(at) / 100, "timestamps": times(at)}
    return [{"text": phrase, **known(at)} for phrase, at in matches if at]


def story(fields, heard):
    """The sentences of a recording, at least one for each speaker. All words get equal shares of the
    recording's duration."""
    if heard["silent"]:
        return []
    lines = itertools.cycle((section, *line) for section in SECTIONS for line in section["lines"])
    duration, chosen, count = int(1000 * heard["seconds"]), [], 0
    while len(chosen) < 2 or (count * WORD < duration and count < MOST_WORDS):
        chosen.append(next(lines))
        count += len(chosen[-1][1].split())
    times = itertools.pairwise(duration * i // count for i in range(count + 1))
    sentences = []
    for i, (section, line, sentiment, names, *action) in enumerate(chosen):
        known, parts = speaker(fields, i), zip(line.split(), times)
        words = [{"text": text, "start": a, "end": b, "confidence": 0.95, **known} for text, (a, b) in parts]
        entities = []
        for kind, text in names:
            start, end, first = places(text, words)[0]
            entities.append({"entity_type": kind, "text": text, "start": start, "end": end})
            redact(fields, kind, words[first : first + len(text.split())])
        known |= {"section": section, "sentiment": sentiment, "entities": entities}
        sentences.append({**known, **spoken(words), "action": "".join(action)})
    return sentences


def joined(parts):
    return " ".join(part["text"] for part in parts)


def pick(part, keys):
    return {key: part[key] for key in keys.split()}


def bare(sentences, more="words"):
    """Sentences with only the fields that the real service returns."""
    return [pick(sentence, f"text start end confidence speaker channel {more}") for sentence in sentences]


def tone(seconds):
    """The bytes of a WAV file with a tone of 500 Hz."""
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes((b"\x00\x10" * 8 + b"\x00\xf0" * 8) * (500 * seconds))
    return file.getvalue()


def speaker(fields, i):
    """The speaker (by name, if the job has the names) and the channel of sentence i: two people alternate."""
    tasks = fields.get("speech_understanding", {}).get("request", {})
    names = dict(zip("AB", tasks.get("speaker_identification", {}).get("known_values") or ()))
    channel = "12"[i % 2] if fields.get("multichannel") else None
    label = channel or ("AB"[i % 2] if fields.get("speaker_labels") else None)
    return {"speaker": names.get(label, label), "channel": channel}


def redact(fields, kind, words):
    """Removes an entity from the words; the list of entities keeps it, as in the real service."""
    if fields.get("redact_pii") and kind in (fields.get("redact_pii_policies") or ()):
        for word in words:
            word["text"] = re.sub(r"\w+", f"[{kind.upper()}]", word["text"])


def places(phrase, words):
    """Where the words of a phrase occur in sequence -> [(start, end, index of the first word)]."""
    wanted, texts = plain(phrase), [" ".join(plain(word["text"])) for word in words]
    n, at = len(wanted), range(len(words))
    firsts = [i for i in at if wanted and texts[i : i + n] == wanted]
    return [(words[i]["start"], words[i + n - 1]["end"], i) for i in firsts]


def plain(text):
    return re.findall(r"[\w#']+", text.lower())


def spoken(words):
    """The fields that sentences and paragraphs have in common."""
    start, end = words[0]["start"], words[-1]["end"]
    return {"text": joined(words), "words": words, "confidence": 0.95, "start": start, "end": end}


def answer(messages):
    """The answer of the gateway's model: the line of its input that shares the most words with the question.

    If `messages` offer a tool `transcribe` and hold no result yet, the model calls it for the file or URL in
    the question."""
    texts = lambda ours: (str(m.get("content")) for m in messages if (m.get("role") == "system") is ours)
    system, dialogue = "\n".join(texts(True)), "\n".join(texts(False))
    question = dialogue.split("\n<tool", 1)[0].strip().rpartition("\n")[2]
    source = re.search(r"https?://\S+\w|\S+\.\w{3,4}\b", question)
    if source and '"transcribe"' in system and "<tool_response>" not in dialogue:
        arguments = json.dumps({"source": source[0]})
        return f'<tool_call>{{"name":"transcribe","arguments":{arguments}}}</tool_call>'
    lines = re.findall(r'(?:Speaker )?\w+: [^\\\n"<]+', dialogue)
    stems = {word[:4] for word in plain(question) if len(word) > 3}
    best = max(lines, key=lambda line: len(stems & {word[:4] for word in plain(line)}), default="")
    return f"Canned, closest line: {best}" if best else "Canned: the transcript does not say."
