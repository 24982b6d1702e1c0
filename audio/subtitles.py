"""Turns of speech -> captions -> SRT and WebVTT.

Whatever the turns are like (overlapping, without times, out of order), captions never overlap. Each lasts at
least a millisecond and at most LONGEST, and has at most LINES lines of LINE columns. Together they contain
every word once, in order of time.

Not every script separates words with white space: Chinese, Japanese and Thai, for example, do not. So a text
is cut into units that are never split. A unit is a run of characters between white space, or a part of a run
that is too long for a line. In scripts without white space, a unit is one character, or one of the words that
the service returns.
"""

import functools
import itertools
import re
import unicodedata
from dataclasses import dataclass, replace

LINE, LINES, LONGEST = 42, 2, 7000  # maximum columns, lines and milliseconds of a readable caption
PAUSE = 1500  # milliseconds of silence after which a new caption begins
REACH = 10  # a text and its words may differ by this many units in one place
ENDS = ".!?…。！？｡؟۔।॥"  # characters that end a sentence
CLOSING = "\"'»”’)]}」』）】〉》"
# Scripts without spaces: Thai, Lao, Tibetan, Burmese, Khmer, then Chinese and Japanese.
DENSE = (
    "\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u2e80-\u312f\u31a0-\u9fff"
    "\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
)
# Characters that may not begin a line: vowel signs, tones, small kana, and closing punctuation.
NEVER_FIRST = (
    "\u0300-\u036f\u0e30-\u0e3a\u0e45-\u0e4e\u0eb0-\u0ebc\u0ec6-\u0ecd\u0f71-\u0f84\u102b-\u103e\u17b4-\u17d3"
    "\u3099\u309aぁぃぅぇぉっゃゅょァィゥェォッャュョー々、，：；%,:;" + re.escape(ENDS + CLOSING)
)
UNIT = re.compile(rf"\s*(?:[「『（【〈《]*[\u0e40-\u0e44]?[{DENSE}][{NEVER_FIRST}]*|[^\s{DENSE}]+)")


@dataclass(frozen=True)
class Span:
    """A stretch of speech: text, start and end in milliseconds, speaker ("" if unknown), and its words."""

    text: str
    start: int
    end: int
    speaker: str = ""
    words: tuple = ()

    def __repr__(self):
        return f"<{clock(self.start)} {self.speaker}: {self.text[:40]!r}>"


def captions(turns):
    """Turns -> captions: Spans in order of time, without overlaps. Each fits, with its speaker's name, into
    LINES lines of LINE columns. The `words` of a Span are the units of its text."""
    pieces = [piece for turn in turns for piece in groups(timed(turn), full)]
    pieces.sort(key=lambda piece: piece.start)
    spans, end = [], 0
    for piece, following in itertools.zip_longest(pieces, pieces[1:]):
        start = max(piece.start, end)
        end = min(piece.end, following.start if following else piece.end, start + LONGEST)
        end = max(end, start + 1)
        spans.append(replace(piece, start=start, end=end))
    return spans


def units(text):
    """The units of a text; a unit that follows white space begins with one space."""
    for match in UNIT.finditer(text):
        unit = match[0].lstrip()
        size = len(unit) if width(unit) <= LINE else LINE // 2  # a long URL, for example, is cut
        for at in range(0, len(unit), size):
            space = " " * (at == 0 and unit != match[0])
            yield space + unit[at : at + size]


def timed(turn):
    """The units of a turn as Spans. A unit gets its time from the service's word that it belongs to. If there
    is no such word, the unit gets a share of the time between its neighbours, in proportion to its length.
    The units of a word are joined into one Span if they fit on a line."""
    texts = list(units(turn.text))
    keys = [(plain(text), i) for i, text in enumerate(texts)]
    heard = [(plain(unit), word) for word in turn.words if inside(turn, word) for unit in units(word.text)]
    keys, heard = ([pair for pair in pairs if pair[0]] for pairs in (keys, heard))
    words = [None] * len(texts)
    for i, j in matches([key for key, _ in keys], [key for key, _ in heard]):
        words[keys[i][1]] = heard[j][1]
    runs = [list(run) for _, run in itertools.groupby(zip(texts, words), lambda pair: id(pair[1]))]
    spans, end = [], turn.start
    for run, following in itertools.zip_longest(runs, runs[1:]):
        texts, word = [text for text, _ in run], run[0][1]
        whole, previous = "".join(texts), spans[-1].start if spans else turn.start
        if word:
            start, end = max(previous, word.start), word.end
            texts = [whole] if width(whole) <= LINE else texts
        else:
            start, end = max(previous, end), following[0][1].start if following else turn.end
        length = max(0, end - start)
        for text, at in zip(texts, itertools.accumulate(map(len, texts), initial=0)):
            edges = (start + length * edge // len(whole) for edge in (at, at + len(text)))
            spans.append(Span(text, *edges, turn.speaker))
        end = start + length
    return spans


def inside(turn, word):
    """Whether the times of a word are in order, and within its turn."""
    return turn.start <= word.start <= word.end <= (turn.end if turn.end > turn.start else word.end)


def plain(text):
    """A word reduced to its letters and digits, in lower case."""
    return "".join(c for c in text.casefold() if c.isalnum())


def matches(left, right):
    """Pairs of indices at which two lists agree, in order. Where they differ, the search skips to the
    nearest items that agree again. This takes linear time. Finding the fewest differences takes longer."""
    i = j = 0
    while i < len(left) and j < len(right):
        if left[i] == right[j]:
            yield i, j
            i, j = i + 1, j + 1
            continue
        steps = ((i + a, j + n - a) for n in range(1, REACH + 1) for a in range(n + 1))
        agree = ((a, b) for a, b in steps if left[a : a + 2] == right[b : b + 2] != [])
        i, j = next(agree, (i + 1, j + 1))


def full(held, word):
    """Whether a caption with the units in `held` must end before `word`."""
    late = word.start - held[-1].end > PAUSE or word.end - held[0].start > LONGEST
    whole = ends_sentence(held[-1].text) and sum(width(one.text) for one in held) > LINE
    return late or whole or len(wrap(joined([*held, word]))) > LINES


def groups(words, full):
    """Joins consecutive words into Spans; a new Span begins when full(words so far, word) holds."""
    held = []
    for word in words:
        if held and full(held, word):
            yield joined(held)
            held = []
        held.append(word)
    if held:
        yield joined(held)


def ends_sentence(text):
    return text.rstrip(CLOSING)[-1:] in tuple(ENDS)


def joined(words):
    start, end = min(word.start for word in words), max(word.end for word in words)
    text = "".join(word.text for word in words).strip()
    return Span(text, start, max(start, end), words[0].speaker, tuple(words))


def wrap(span):
    """The lines of a caption, at most LINE columns wide. The speaker's name, if there is one, comes first."""
    lines = [name_of(span) + ":" if span.speaker.strip() else ""]
    for i, word in enumerate(span.words):
        text = word.text if i else " " + word.text.lstrip()
        if lines[-1] and width(lines[-1] + text) > LINE:
            lines.append("")
        lines[-1] += text if lines[-1] else text.lstrip()
    return lines


def name_of(span):
    """The speaker's name on one line, cut off if it is too long."""
    name = " ".join(span.speaker.split())
    while width(name) > LINE - 2:
        name = name[:-2] + "…"
    return name


@functools.lru_cache(1 << 16)
def width(text):
    """The width of a text in columns: two for a wide character, none for a combining one."""
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return len(text) + wide - sum(unicodedata.category(c) in ("Mn", "Me") for c in text)


def render(spans, format="srt"):
    """Captions -> the text of an SRT or WebVTT file (W3C), with speakers as "Ada: " or as voice tags."""
    if format not in ("srt", "vtt"):
        raise ValueError(f"subtitles are srt or vtt, not {format!r}")
    blocks = ["WEBVTT\n"] if format == "vtt" else []
    for i, span in enumerate(spans, 1):
        times = " --> ".join(f"{clock(ms)}.{ms % 1000:03}" for ms in (span.start, span.end))
        lines = "\n".join(wrap(span if format == "srt" else replace(span, speaker="")))
        if format == "vtt":
            voice = f"<v {escaped(name_of(span))}>" if span.speaker.strip() else ""
            blocks.append(f"{times}\n{voice}{escaped(lines)}\n")
        else:
            blocks.append(f"{i}\n{times.replace('.', ',')}\n{lines}\n")
    return "\n".join(blocks)


def escaped(text):
    """Text escaped for WebVTT, where & and < are markup and --> may not occur in a caption."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("\0", "\ufffd")


def clock(ms):
    """Milliseconds -> 01:02:03"""
    seconds = ms // 1000
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
