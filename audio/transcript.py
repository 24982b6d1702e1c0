"""A transcript: the raw answer of the service, and attributes for the parts that people want.

    transcript.raw              the whole answer, even fields unknown to us
    transcript.turns            who said what: [Span(text, start, end, speaker)]

The option and the attribute of a feature share a name: transcribe(..., topics=True).topics. Every start and
end is in milliseconds, as in the API; only `seconds` is in seconds. Any field may be null or missing: then
lists are empty and strings are "" (but id, status and error are None).
"""

import re
from collections import Counter, defaultdict, namedtuple

from audio.errors import RequestRefused, TranscriptFailed
from audio.options import SWITCHES, TASKS
from audio.subtitles import Span, captions, render

LABEL = re.compile(r"[A-Z]|\d\d?[A-Z]?")  # a label that the service gives a speaker; anything else is a name
SHOWN = (*SWITCHES, "summary", "action_items", "translate")  # the option and the attribute have the same name
DELETED = "http://deleted_by_user"  # the audio_url of a job whose text was deleted
SERVER_FAULTS = ("internal server error", "server error, developers")  # phrases in the error of a failed job

# A part of the recording: start and end in milliseconds, a headline, and the content as a tuple of lines.
Chapter = namedtuple("Chapter", "start end headline lines")


class Transcript:
    """names: display names of speakers, {"A": "Ada"}; may be set later."""

    def __init__(self, raw, names=None):
        self.raw, self.names = raw, names or {}

    def __repr__(self):
        return f"<Transcript {self.id} {self.status}: {self.text[:40]!r}>"

    id = property(lambda self: self.raw.get("id"))
    status = property(lambda self: self.raw.get("status"))
    error = property(lambda self: self.raw.get("error"))
    text = property(lambda self: str(self.raw.get("text") or ""))
    labels = property(lambda self: {str(part.get("speaker")) for part in dicts(self.raw.get("utterances"))})
    words = property(lambda self: [self._span(word) for word in dicts(self.raw.get("words"))])
    deleted = property(lambda self: self.raw.get("audio_url") == DELETED)

    def done(self):
        """Whether the job is completed. Raises TranscriptFailed for a failed job (the service answers with
        HTTP status 200 even then) and RequestRefused for a job that was deleted."""
        if self.deleted:
            raise RequestRefused(f"transcript {self.id} was deleted", status=404, transcript_id=self.id)
        if self.status == "error":
            words = str(self.error or "no reason is given.")
            fault = any(text in words.lower() for text in SERVER_FAULTS)
            hint = "The service failed: submit the recording again" if fault else "Trying again will not help"
            message = f"transcript {self.id} failed: {words} {hint}"
            raise TranscriptFailed(message, transcript_id=self.id, retryable=fault)
        return self.status == "completed"

    @property
    def seconds(self):
        """Length of the recording; 0 if unknown."""
        return number(self.raw.get("audio_duration"))

    @property
    def features(self):
        """The short names (see options) of the features that this job requested or has results for."""
        tasks = table(table(self.raw.get("speech_understanding")).get("request"))
        wanted = lambda name: self.raw.get(SWITCHES.get(name)) is True or TASKS.get(name) in tasks
        return {name for name in SHOWN if getattr(self, name) or wanted(name)}

    def named(self, speaker):
        """The name to show for a speaker: the one you chose, "Speaker A", or the name the service found."""
        if not speaker:
            return ""
        return self.names.get(speaker) or (f"Speaker {speaker}" if LABEL.fullmatch(speaker) else speaker)

    @property
    def turns(self):
        """Who said what. Without speakers, a single turn holds all the text."""
        turns = [self._span(part) for part in dicts(self.raw.get("utterances"))]
        if not turns and self.text.strip():
            end = max([int(1000 * self.seconds), *(word.end for word in self.words)])
            turns = [Span(self.text, 0, end, "", tuple(self.words))]
        return turns

    def _span(self, part):
        text, speaker = str(part.get("text") or ""), self.named(str(part.get("speaker") or ""))
        return Span(text, *times(part), speaker, tuple(map(self._span, dicts(part.get("words")))))

    def labelled(self):
        """The text, one line per turn. A line begins with the name of the speaker, if there is one."""
        return "".join(f"{f'{turn.speaker}: ' if turn.speaker else ''}{turn.text}\n" for turn in self.turns)

    def subtitles(self, format="srt"):
        """Subtitles in SRT or VTT, made locally so that they can name the speakers."""
        return render(captions(self.turns), format)

    def _understood(self, task):
        """The service's answer to one task of speech_understanding."""
        return table(table(table(self.raw.get("speech_understanding")).get("response")).get(task))

    @property
    def summary(self):
        """The summary of speech_understanding or of the legacy options; "" if there is none."""
        whole = flat(self._understood("summarization").get("block_summary")) or flat(self.raw.get("summary"))
        return whole or "\n".join(line for chapter in self.chapters for line in chapter.lines)

    @property
    def chapters(self):
        """The sections of the summary, or the legacy chapters."""
        parts = dicts(self._understood("summarization").get("summary")) or dicts(self.raw.get("chapters"))
        headline = lambda part: flat(part.get("headline") or part.get("gist"))
        lines = lambda part: flat(part.get("bullets") or part.get("text") or part.get("summary")).splitlines()
        return [Chapter(*times(part), headline(part), tuple(lines(part))) for part in parts]

    @property
    def action_items(self):
        """Things to do: [(what to do, a quote or "", its start in milliseconds or None)]."""
        items = dicts(self._understood("action_items").get("items"))
        when = lambda time: int(number(time)) if isinstance(time, (int, float)) else None
        texts = [(flat(i.get("action_item")), flat(i.get("quote")), when(i.get("timestamp"))) for i in items]
        return [(what or quote, quote, start) for what, quote, start in texts if what or quote]

    @property
    def translate(self):
        """{language: the translated text}"""
        texts = table(self.raw.get("translated_texts"))
        return {language: str(text) for language, text in texts.items() if text}

    @property
    def topics(self):
        """[(label, relevance from 0 to 1)], the most relevant first; IAB labels such as "Travel>Hotels"."""
        return ranked(self.raw.get("iab_categories_result"))

    @property
    def key_phrases(self):
        """[(phrase, count, [start of each occurrence in milliseconds])], the highest rank first."""
        results = dicts(table(self.raw.get("auto_highlights_result")).get("results"))
        results.sort(key=lambda result: -number(result.get("rank")))
        starts = lambda result: [times(place)[0] for place in dicts(result.get("timestamps"))]
        return [(str(one.get("text") or ""), int(number(one.get("count"))), starts(one)) for one in results]

    @property
    def entities(self):
        """{type: [text, ...]}: each text once, in the order of the recording."""
        groups = defaultdict(dict)
        for entity in dicts(self.raw.get("entities")):
            groups[str(entity.get("entity_type") or "other")][str(entity.get("text") or "")] = None
        return {kind: list(texts) for kind, texts in groups.items()}

    @property
    def sentiment(self):
        """[(Span, "POSITIVE" | "NEUTRAL" | "NEGATIVE", confidence)], one for each sentence."""
        parts = dicts(self.raw.get("sentiment_analysis_results"))
        kind = lambda part: str(part.get("sentiment") or "")
        return [(self._span(part), kind(part), number(part.get("confidence"))) for part in parts]

    @property
    def sentiment_by_speaker(self):
        """{speaker: Counter of the sentiments of their sentences}."""
        totals = defaultdict(Counter)
        for span, sentiment, _ in self.sentiment:
            totals[span.speaker][sentiment] += 1
        return dict(totals)

    @property
    def content_safety(self):
        """[(label, confidence from 0 to 1)], the highest confidence first."""
        return ranked(self.raw.get("content_safety_labels"))


def number(value):
    """The value, if it is a number below 1e12 in size; 0 for anything else, such as null or NaN."""
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e12
    return value if good else 0


def times(part):
    """The start and end of a part in milliseconds; the end is never before the start."""
    start = int(number(part.get("start")))
    return start, max(start, int(number(part.get("end"))))


def ranked(result):
    """The `summary` of a result, {label: number} -> [(label, number)], the highest number first."""
    pairs = [(label, number(value)) for label, value in table(table(result).get("summary")).items()]
    return sorted(pairs, key=lambda pair: (-pair[1], pair[0]))


def dicts(value):
    return [part for part in value if isinstance(part, dict)] if isinstance(value, list) else []


def table(value):
    return value if isinstance(value, dict) else {}


def flat(value):
    """Text, or a list of lines -> text; bullet characters are removed."""
    lines = value if isinstance(value, list) else str(value or "").splitlines()
    return "\n".join(line for part in lines if (line := str(part).strip().lstrip("-*•").strip()))
