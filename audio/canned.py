"""What the sandbox answers: the same made-up meeting for every recording, told within its real duration.

Nobody listens to the sound. But all features describe the same words: entities, key phrases, chapters and
sentiments are found where the words say them, at the times of these words (milliseconds)."""

import json
import re
from pathlib import Path

SCRIPT = json.loads(Path(__file__).with_name("canned.json").read_text(encoding="utf-8"))
WORD, MOST_WORDS = 400, 600  # milliseconds of a word, as people talk; the rest of a long recording is pauses


def results(fields, seconds, silent=False):
    """The fields of a completed transcript, for a recording of so many seconds and the options of a job."""
    on = fields.get
    told = [] if silent else story(fields, int(1000 * seconds))
    sections = [[s for s in told if s["section"] == n] for n in dict.fromkeys(s["section"] for s in told)]
    words = [word for sentence in told for word in sentence["words"]]
    found = {
        "text": " ".join(sentence["text"] for sentence in told), "words": words,
        "confidence": 0.95 if words else 0.0, "audio_duration": -int(-seconds // 1),
        "language_code": on("language_code") or "en_us", "sentences": told,
        "language_confidence": 0.99 if on("language_detection") else None,
        "speech_model_used": (on("speech_models") or ["universal-2"])[0]}  # fmt: skip
    if on("speaker_labels") or on("multichannel"):
        found["utterances"] = bare(told)
    if on("entity_detection"):
        found["entities"] = [entity for sentence in told for entity in sentence["entities"]]
    if on("sentiment_analysis"):
        found["sentiment_analysis_results"] = bare(told, "sentiment")
    if on("auto_highlights"):
        phrases = [(phrase, places(phrase, words)) for phrase in SCRIPT["phrases"]]
        phrases = sorted(((phrase, at) for phrase, at in phrases if at), key=lambda pair: -len(pair[1]))
        found["auto_highlights_result"] = {"status": "success", "results": [
            {"text": phrase, "count": len(at), "rank": round(len(at) / (1 + len(words) ** 0.5), 2),
             "timestamps": [{"start": start, "end": end} for start, end, _ in at]} for phrase, at in phrases]}  # fmt: skip
    if on("iab_categories"):
        parts = [{"text": " ".join(s["text"] for s in part), "timestamp": span(part),
                  "labels": [{"label": label, "relevance": value} for label, value in about(part)["topics"].items()]}
                 for part in sections]  # fmt: skip
        summary = {label["label"]: label["relevance"] for part in parts for label in part["labels"]}
        found["iab_categories_result"] = {"status": "success", "results": parts, "summary": summary}
    if on("content_safety"):
        found["content_safety_labels"] = {"status": "success", "results": [], "summary": {},
                                          "severity_score_summary": {}}  # fmt: skip
    if on("auto_chapters"):
        found["chapters"] = [{"gist": about(part)["gist"], "headline": about(part)["headline"],
                              "summary": " ".join(about(part)["bullets"]), **span(part)} for part in sections]  # fmt: skip
    if on("summarization"):
        found["summary"] = "\n".join(f"- {line}" for part in sections for line in about(part)["bullets"])
    if on("speech_understanding"):
        found["speech_understanding"] = understood(on("speech_understanding"), found, sections)
    return found


def understood(wanted, found, sections):
    """speech_understanding with its response; names found for speakers are written into the sentences."""
    response = {task: {"status": "success"} for task in wanted["request"]}
    if task := wanted["request"].get("summarization"):
        bullets = task.get("summary_type") == "bullets"
        response["summarization"] |= {
            "summary_type": task.get("summary_type"), "effort": task.get("effort", "low"),
            "summary": [{"headline": about(part)["headline"], **span(part), **(
                {"bullets": about(part)["bullets"]} if bullets else {"text": " ".join(about(part)["bullets"])})}
                for part in sections]}  # fmt: skip
    if task := wanted["request"].get("speaker_identification"):
        speakers = sorted({s["speaker"] for s in found["sentences"] if s["speaker"]})
        mapping = dict(zip(speakers, task.get("known_values") or ()))
        response["speaker_identification"]["mapping"] = mapping
        for part in [*found["sentences"], *found["words"], *(found.get("utterances") or ())]:
            part["speaker"] = mapping.get(part["speaker"], part["speaker"])
    if task := wanted["request"].get("translation"):
        found["translated_texts"] = {code: f"[{code}] {found['text']}" for code in task["target_languages"]}
    return {**wanted, "response": response}


def story(fields, duration):
    """Sentences that fill a duration, their words spread over it; two at least, for two people talk."""
    lines = [(n, line) for n, section in enumerate(SCRIPT["sections"]) for line in section["lines"]]
    told, count = [], 0
    while len(told) < 2 or count * WORD < duration and count < MOST_WORDS:
        section, (text, sentiment, entities) = lines[len(told) % len(lines)]
        section += len(told) // len(lines) * len(SCRIPT["sections"])
        told.append((section, text.split(), sentiment, entities))
        count += len(text.split())
    found, at = [], 0
    for i, (section, texts, sentiment, entities) in enumerate(told):
        who = speaker(fields, i)
        words = [{"text": text, "start": duration * (at + j) // count, "end": duration * (at + j + 1) // count,
                  "confidence": 0.95, **who} for j, text in enumerate(texts)]  # fmt: skip
        at += len(texts)
        where = [(kind, text, places(text, words)[0]) for kind, text in entities]
        named = [{"entity_type": kind, "text": text, "start": start, "end": end}
                 for kind, text, (start, end, _) in where]  # fmt: skip
        for kind, text, (*_, first) in where:
            redact(fields, kind, words[first:first + len(text.split())])
        found.append({"text": " ".join(word["text"] for word in words), **span(words), "confidence": 0.95, **who,
                      "words": words, "sentiment": sentiment, "section": section, "entities": named})  # fmt: skip
    return found


def bare(told, *more):
    """Sentences with the fields that are the service's too."""
    keys = ("text", "start", "end", "confidence", "speaker", "channel", *(more or ["words"]))
    return [{key: sentence[key] for key in keys} for sentence in told]


def paragraphs(told):
    """The sentences of each section together."""
    parts = [[s for s in told if s["section"] == n] for n in dict.fromkeys(s["section"] for s in told)]
    return [{"text": " ".join(s["text"] for s in part), **span(part), "confidence": 0.95,
             "words": [word for s in part for word in s["words"]]} for part in parts]  # fmt: skip


def speaker(fields, i):
    channel = str(1 + i % 2) if fields.get("multichannel") else None
    least = (fields.get("speaker_options") or {}).get("min_speakers_expected", 2)
    label = "ABCDEFGHIJ"[i % (fields.get("speakers_expected") or max(2, least)) % 10]
    if channel:
        label = channel + ("A" if fields.get("speaker_labels") else "")
    return {"speaker": label if channel or fields.get("speaker_labels") else None, "channel": channel}


def redact(fields, kind, words):
    """Takes an entity out of the words; the list of entities keeps it, as that of the service does."""
    if fields.get("redact_pii") and kind in (fields.get("redact_pii_policies") or ()):
        for word in words:
            name = f"[{kind.upper()}]" if fields.get("redact_pii_sub") == "entity_name" else None
            word["text"] = re.sub(r"\w+", lambda found: name or "#" * len(found[0]), word["text"])


def places(phrase, words):
    """Where words follow one another as in a phrase -> [(start, end, index of the first word)]."""
    wanted, texts = plain(phrase), [" ".join(plain(word["text"])) for word in words]
    n = len(wanted)
    return [(words[i]["start"], words[i + n - 1]["end"], i) for i in range(len(words) - n + 1)
            if wanted and texts[i:i + n] == wanted]  # fmt: skip


def plain(text):
    return re.findall(r"[\w#']+", text.lower())


def span(parts):
    return {"start": parts[0]["start"], "end": parts[-1]["end"]}


def about(part):
    return SCRIPT["sections"][part[0]["section"] % len(SCRIPT["sections"])]


def answer(messages):
    """What the model of the gateway says: the line of what it was told that has most words of the question.

    Told that there is a tool `transcribe`, and not yet what it returned, it calls it for the file named."""
    system = "".join(str(message.get("content")) for message in messages if message.get("role") == "system")
    told = "\n".join(str(message.get("content")) for message in messages if message.get("role") != "system")
    question = told.split("\n<tool", 1)[0].strip().rpartition("\n")[2]
    source = re.search(r"https?://\S+\w|\S+\.\w{3,4}\b", question)
    if source and '"transcribe"' in system and "<tool_response>" not in told:
        return '<tool_call>{"name":"transcribe","arguments":%s}</tool_call>' % json.dumps({"source": source[0]})
    lines = re.findall(r'(?:Speaker )?\w+: [^\\\n"<]+', told)
    asked = {word[:4] for word in plain(question) if len(word) > 3}
    best = max(lines, key=lambda line: len(asked & {word[:4] for word in plain(line)}), default="")
    return f"Canned, by shared words: {best}" if best else "Canned: the transcript does not tell."
