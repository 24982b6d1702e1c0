"""Reports in Markdown: minutes of a meeting, notes on a podcast, a call review.

    meeting    minutes: speakers, summary, action items, key phrases
    podcast    episode notes: summary, chapters, topics, quotes
    call       a review: sentiment by speaker, negative moments, entities; personal data is redacted

A report has the parts of its preset, then a part for each further feature of the job, and last the
conversation. An empty part says that nothing was found. In a call review, and in any report of a job with
redact_pii, the personal data in the service's list of entities is redacted everywhere.
"""

import re
from collections import Counter

from audio.options import PRESETS
from audio.subtitles import DENSE, clock, ends_sentence, groups, timed
from audio.transcript import Transcript

# English phrases that express a promise or a request.
PROMISE = re.compile(r"(?i)\b((I|we)('ll| will| should| have to| need to)|let's|please|action item)\b")
SURE = 0.5  # minimum relevance of a topic that is shown
QUOTES, TOPICS = 5, 8  # at most this many are shown
TITLES = {"meeting": "Minutes", "podcast": "Episode notes", "call": "Call review"}
# Types of entities that say nothing about a person. Any other type, known here or not, may be personal.
HARMLESS = """corporate_action date date_interval day duration effect event financial_metric language
money_amount month occupation organization product project statistics time trend year""".split()
SPOKEN = "text headline gist summary bullets block_summary action_item quote speaker translated_texts".split()
WORD = re.compile(rf"([{DENSE}]|(?:(?![{DENSE}])[^\W_])+)")


def report(transcript, preset=None):
    """A transcript -> Markdown. preset: meeting, podcast, call or None."""
    title = TITLES.get(preset, "Transcript")
    if preset == "call" or transcript.raw.get("redact_pii"):
        transcript = redacted(transcript)
    more = transcript.features - PRESETS.get(preset, {}).keys()
    length = clock(int(1000 * transcript.seconds))
    sections = [f"# {title}\n\n{length}, transcript {transcript.id}\n"]
    for part in [*OWN.get(preset, ()), *(part for part in PARTS if PARTS[part] in more), conversation]:
        lines = part(transcript) or ["Nothing was found."]
        sections.append(f"## {part.__doc__}\n\n" + "\n".join(lines).rstrip() + "\n")
    return "\n".join(sections)


def speakers(transcript):
    """Speakers"""
    talk = Counter()  # milliseconds of speech
    for turn in transcript.turns:
        talk[turn.speaker] += turn.end - turn.start
    share = lambda ms: f"{100 * ms / (talk.total() or 1):.0f} %"
    return [f"- {escaped(name)}: {clock(ms)} ({share(ms)})" for name, ms in talk.items() if name]


def summary(transcript):
    """Summary"""
    return [f"- {escaped(line)}" for line in transcript.summary.splitlines()]


def chapters(transcript):
    """Chapters"""
    shown = transcript.summary.splitlines()
    more = lambda chapter: escaped(" ".join(line for line in chapter.lines if line not in shown))
    line = lambda chapter: f"- {clock(chapter.start)} **{escaped(chapter.headline)}** {more(chapter)}"
    return [line(chapter).rstrip() for chapter in transcript.chapters]


def action_items(transcript):
    """Action items"""
    lines = []
    for what, quote, start in transcript.action_items:
        time = f" ({clock(start)})" if start is not None else ""
        lines.append(f"- [ ] {escaped(what)}{time}" + (f"\n  > {escaped(quote)}" if quote else ""))
    if lines:
        return lines
    some = [span for span in sentences(transcript) if PROMISE.search(span.text)]
    lines = [f"- [ ] {who(span)}{escaped(span.text)} ({clock(span.start)})" for span in some]
    note = "The service found none. Judging by the wording (English only), these may be action items:\n"
    return lines and [note, *lines]


def topics(transcript):
    """Topics"""
    likely = [(label, value) for label, value in transcript.topics[:TOPICS] if value >= SURE]
    return [f"- {escaped(label.replace('>', ' > '))} ({value:.0%})" for label, value in likely]


def key_phrases(transcript):
    """Key phrases"""
    times = lambda starts: ", ".join(map(clock, starts))
    return [f"- {escaped(phrase)} (at {times(starts)})" for phrase, _, starts in transcript.key_phrases]


def quotes(transcript):
    """Quotes (the sentences with the highest-ranked phrases)"""
    firsts = [starts[0] for _, _, starts in transcript.key_phrases if starts][:QUOTES]
    spans = sorted(sentences(transcript), key=lambda span: span.start)
    best = [span for span in spans if any(span.start <= start < span.end for start in firsts)]
    source = lambda span: f"{escaped(span.speaker) or 'unknown'}, {clock(span.start)}"
    return [f"> {escaped(span.text)}\n> ({source(span)})\n" for span in best[:QUOTES]]


def sentiment(transcript):
    """Sentiment by speaker"""
    kinds, totals = ("POSITIVE", "NEUTRAL", "NEGATIVE"), transcript.sentiment_by_speaker
    rows = [(escaped(name) or "everybody", *(totals[name][kind] for kind in kinds)) for name in totals]
    head = [("", *map(str.lower, kinds)), ("---",) * 4]
    return [f"| {' | '.join(map(str, row))} |" for row in head + rows] if rows else []


def moments(transcript):
    """Negative moments"""
    bad = [span for span, sentiment, _ in transcript.sentiment if sentiment == "NEGATIVE"]
    return [f"- {clock(span.start)} {who(span)}{escaped(span.text)}" for span in bad]


def entities(transcript):
    """Entities"""
    listed = lambda texts: ", ".join(map(escaped, texts))
    return [f"- {kind.replace('_', ' ')}: {listed(texts)}" for kind, texts in transcript.entities.items()]


def content_safety(transcript):
    """Sensitive content"""
    return [f"- {escaped(label)} ({value:.0%})" for label, value in transcript.content_safety]


def translate(transcript):
    """Translations"""
    return [f"**{escaped(language)}** {escaped(text)}\n" for language, text in transcript.translate.items()]


def conversation(transcript):
    """Conversation"""
    return [f"**{clock(turn.start)}** {who(turn)}{escaped(turn.text)}\n" for turn in transcript.turns]


# {part: the feature that it shows}, in the order of a report. Most parts are named after their feature.
NAMED = (action_items, topics, key_phrases, sentiment, entities, content_safety, translate)
PARTS = {summary: "summary", chapters: "summary", **{part: part.__name__ for part in NAMED}}
OWN = {
    "meeting": (speakers, summary, action_items, key_phrases),
    "podcast": (summary, chapters, topics, quotes),
    "call": (sentiment, moments, entities),
}


def redacted(transcript):
    """A copy without known personal data. On request, the service redacts the spoken words, but not its list
    of entities, its summary and so on. So every entity in that list whose type is personal is redacted
    everywhere, in one pass over the words. Personal types are those that the job was told to redact, with
    their subtypes (location: location_city), and all types that are not known to be harmless."""
    policies = transcript.raw.get("redact_pii_policies")
    policies = policies if isinstance(policies, list) else []
    labels = {}  # {words of an entity: its label}
    for kind, texts in transcript.entities.items():
        if kind not in HARMLESS or any(f"{kind}_".startswith(f"{policy}_") for policy in policies):
            labels |= {tuple(map(str.casefold, WORD.findall(text))): f"[{kind.upper()}]" for text in texts}
    longest = max(map(len, labels), default=0)

    def hide(text):
        parts, i = WORD.split(text), 1  # words have odd indices
        while i < len(parts):
            for size in range(longest, 0, -1):
                words = tuple(map(str.casefold, parts[i : i + 2 * size : 2]))
                if words in labels:
                    parts[i : i + 2 * len(words) - 1] = [labels[words]]
                    break
            i += 2
        return "".join(parts)

    def walk(value, spoken=False):
        if isinstance(value, dict):
            return {key: walk(part, spoken or key in SPOKEN) for key, part in value.items()}
        if isinstance(value, list):
            return [walk(part, spoken) for part in value]
        return hide(value) if spoken and isinstance(value, str) else value

    return Transcript(walk(transcript.raw), transcript.names)


def sentences(transcript):
    """The turns, split into sentences."""
    ended = lambda held, word: ends_sentence(held[-1].text)
    return [span for turn in transcript.turns for span in groups(timed(turn), ended)]


def who(span):
    return f"{escaped(span.speaker)}: " if span.speaker else ""


def escaped(text):
    """One line of text, escaped for Markdown and HTML."""
    line = " ".join(str(text).split())
    return re.sub(r"([\\`*<>|]|(?<!\w)_|_(?!\w)|\](?=[(\[:])|^[-+#])", r"\\\1", line)
