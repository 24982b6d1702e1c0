"""Reports in Markdown: what a meeting, a podcast or a call leaves behind.

    meeting    minutes: speakers, summary, action points, what was talked about
    podcast    episode notes: chapters, topics, quotes
    call       a review: sentiment by speaker, entities, the conversation, with personal data redacted

Without a preset a report has every part that the transcript has something for."""

import re

from audio.options import PERSONAL
from audio.subtitles import joined, timed

PROMISE = re.compile(  # English: what somebody will do, or is asked to do
    r"\b((I|we) (will|should|have to|need to)|(I|we)'ll|let's|please|action item)\b", re.I
)
SURE = 0.5  # relevance of a topic worth telling
QUOTES, TOPICS = 5, 8  # so many at most


def report(transcript, preset=None):
    """A transcript -> Markdown. preset: meeting, podcast, call or None."""
    parts = {
        "meeting": (speakers, summary, action_points, key_phrases, conversation),
        "podcast": (summary, chapters, topics, quotes, conversation),
        "call": (feelings, moments, entities, safety, conversation),
    }
    everything = (
        speakers,
        summary,
        chapters,
        action_points,
        topics,
        key_phrases,
        feelings,
        entities,
        safety,
        conversation,
    )
    titles = {"meeting": "Minutes", "podcast": "Episode notes", "call": "Call review"}
    title = titles.get(preset, "Transcript")
    about = f"{length(1000 * transcript.seconds)}, transcript {transcript.id}"
    if not transcript.text.strip():
        return f"# {title}\n\n{about}\n\nNothing was said in this recording.\n"
    written = [
        (part.__doc__.splitlines()[0].rstrip("."), part(transcript)) for part in parts.get(preset, everything)
    ]
    sections = [f"## {heading}\n\n" + "\n".join(lines).rstrip() + "\n" for heading, lines in written if lines]
    text = "\n".join([f"# {title}\n\n{about}\n", *sections])
    return redacted(text, transcript) if preset == "call" else text


def speakers(transcript):
    """Speakers"""
    whole = sum(transcript.talk.values()) or 1
    return [
        f"- {plain(name)}: {length(ms)} ({100 * ms / whole:.0f} %)"
        for name, ms in transcript.talk.items()
        if name
    ]


def summary(transcript):
    """Summary"""
    return [f"- {plain(line)}" for line in transcript.summary.splitlines()]


def chapters(transcript):
    """Chapters"""
    return [
        f"- {clock(chapter.start)} **{plain(chapter.headline)}**: {plain(' '.join(chapter.lines))}"
        for chapter in transcript.chapters
    ]


def action_points(transcript):
    """Action points (found by their wording)"""
    return [
        f"- [ ] {who(span)}{plain(span.text)} ({clock(span.start)})"
        for span in sentences(transcript)
        if PROMISE.search(span.text)
    ]


def topics(transcript):
    """Topics"""
    return [
        f"- {plain(label.replace('>', ' > '))} ({value:.0%})"
        for label, value in transcript.topics[:TOPICS]
        if value >= SURE
    ]


def key_phrases(transcript):
    """Key phrases"""
    return [
        f"- {plain(phrase)} (at {', '.join(map(clock, starts))})"
        for phrase, _, starts in transcript.key_phrases
    ]


def quotes(transcript):
    """Quotes (the sentences with the highest ranked phrases)"""
    found = {}
    for phrase, _, _ in transcript.key_phrases:
        for span in sentences(transcript):
            if phrase.lower() in span.text.lower() and len(found) < QUOTES:
                found.setdefault(span.start, span)
                break
    return [
        f"> {plain(span.text)}\n> ({who(span).rstrip(': ') or 'unknown'}, {clock(span.start)})\n"
        for _, span in sorted(found.items())
    ]


def feelings(transcript):
    """Sentiment by speaker"""
    kinds = ("POSITIVE", "NEUTRAL", "NEGATIVE")
    rows = [
        f"| {plain(name) or 'everybody'} | " + " | ".join(str(counts[kind]) for kind in kinds) + " |"
        for name, counts in transcript.feelings_by_speaker.items()
    ]
    return ["| | positive | neutral | negative |", "| --- | --- | --- | --- |", *rows] if rows else []


def moments(transcript):
    """What displeased"""
    return [
        f"- {clock(span.start)} {who(span)}{plain(span.text)}"
        for span, sentiment, _ in transcript.feelings
        if sentiment == "NEGATIVE"
    ]


def entities(transcript):
    """Entities"""
    return [
        f"- {kind.replace('_', ' ')}: {', '.join(map(plain, texts))}"
        for kind, texts in transcript.entities.items()
    ]


def redacted(text, transcript):
    """The text without personal data. The service takes it out of what was said, where asked to, but not out
    of its list of entities; so whatever is in that list is taken out here, wherever it stands."""
    asked = transcript.raw.get("redact_pii_policies")
    kinds = [*PERSONAL, *(asked if isinstance(asked, list) else ())]
    found = [
        (plain(one), kind) for kind, texts in transcript.entities.items() if kind in kinds for one in texts
    ]
    for one, kind in sorted(found, key=lambda pair: -len(pair[0])):
        if one:
            text = re.sub(rf"(?<!\w){re.escape(one)}(?!\w)", f"[{kind.upper()}]", text, flags=re.I)
    return text


def safety(transcript):
    """Sensitive content"""
    return [f"- {plain(label)} ({value:.0%})" for label, value in transcript.content_safety]


def conversation(transcript):
    """Conversation"""
    return [f"**{clock(turn.start)}** {who(turn)}{plain(turn.text)}\n" for turn in transcript.turns]


def sentences(transcript):
    """Spans of one sentence each: those of the sentiment analysis, or the turns cut at full stops."""
    if transcript.feelings:
        return [span for span, _, _ in transcript.feelings]
    found = []
    for turn in transcript.turns:
        held = []
        for word in timed(turn):
            held.append(word)
            if word.text[-1] in ".!?":
                found.append(joined(held))
                held = []
        found += [joined(held)] if held else []
    return found


def who(span):
    return f"{plain(span.speaker)}: " if span.speaker else ""


def plain(text):
    """One line of text that means nothing to Markdown or HTML."""
    line = " ".join(str(text).split())
    return re.sub(r"([\\`*<>|]|(?<!\w)_|_(?!\w)|\](?=[(\[:])|^[-+#])", r"\\\1", line)


def clock(ms):
    """Milliseconds -> 1:02:03, or 2:03 within the first hour"""
    minutes, seconds = divmod(ms // 1000, 60)
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}" if minutes >= 60 else f"{minutes}:{seconds:02}"


def length(ms):
    """Milliseconds -> "2 min 5 s" """
    seconds = round(ms / 1000)
    return f"{seconds // 60} min {seconds % 60} s" if seconds >= 60 else f"{seconds} s"
