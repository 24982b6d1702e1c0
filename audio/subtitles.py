"""Turns of speech -> captions -> SRT and WebVTT.

Whatever the turns (overlapping, without times, out of order), captions never overlap, each lasts at least a
millisecond, and together they have every word once, in the order of their times."""

from dataclasses import dataclass, replace

LINE, LINES = 42, 2  # characters of a line and lines of a caption that can be read in time
PAUSE = 1500  # milliseconds of silence after which a new caption begins


@dataclass(frozen=True)
class Span:
    """Something said: text, start and end in milliseconds, and who said it ("" for nobody known)."""

    text: str
    start: int
    end: int
    speaker: str = ""
    words: tuple = ()


def captions(turns, most=LINE * LINES):
    """Turns -> Spans of at most `most` characters, one after the other."""
    pieces = [piece for turn in turns for piece in cut(timed(turn), most)]
    pieces.sort(key=lambda piece: piece.start)
    found, end = [], 0
    for i, piece in enumerate(pieces):
        start = max(piece.start, end)
        last = pieces[i + 1].start if i + 1 < len(pieces) else piece.end
        end = max(start + 1, min(piece.end, max(last, start + 1)))
        found.append(replace(piece, start=start, end=end))
    return found


def timed(turn):
    """The words of a turn, each a Span. Where the service gave none, or others than those of the text, the
    time is shared out by length."""
    texts = turn.text.split()
    if [text for word in turn.words for text in word.text.split()] == texts:
        said = [word for word in turn.words if word.text.strip()]
        return [replace(word, text=word.text.strip(), speaker=turn.speaker) for word in said]
    total, at, words = sum(map(len, texts)) or 1, 0, []
    for text in texts:
        start, at = at, at + len(text)
        edges = [turn.start + (turn.end - turn.start) * place // total for place in (start, at)]
        words.append(Span(text, *edges, turn.speaker))
    return words


def cut(words, most):
    """Words of one speaker -> captions of at most so many characters and LINES lines; a word stays whole."""
    found, held = [], []
    for word in words:
        together = " ".join(w.text for w in [*held, word])
        long = len(together) > most or len(lines(together)) > LINES
        if held and (long or word.start - held[-1].end > PAUSE):
            found.append(joined(held))
            held = []
        held.append(word)
    return [*found, joined(held)] if held else found


def joined(words):
    start = min(word.start for word in words)
    return Span(
        " ".join(" ".join(word.text for word in words).split()),
        start,
        max(start, *(word.end for word in words)),
        words[0].speaker,
    )


def lines(text):
    """Filled up to LINE characters; a longer word has a line of its own."""
    found = []
    for word in text.split():
        if found and len(found[-1]) + 1 + len(word) <= LINE:
            found[-1] += " " + word
        else:
            found.append(word)
    return found


def render(spans, format="srt", *, speakers=True):
    """Captions -> the text of an SRT or WebVTT file (W3C), speakers as "Ada: " or as voice tags."""
    if format not in ("srt", "vtt"):
        raise ValueError(f"subtitles are srt or vtt, not {format!r}")
    blocks = ["WEBVTT\n"] if format == "vtt" else []
    for i, span in enumerate(spans, 1):
        speaker = " ".join(span.speaker.split()) if speakers else ""
        if format == "vtt":
            text = "\n".join(lines(escaped(span.text)))
            text = f"<v {escaped(speaker)}>{text}" if speaker else text
            blocks.append(f"{clock(span.start)} --> {clock(span.end)}\n{text}\n")
        else:
            text = "\n".join(lines(f"{speaker}: {span.text}" if speaker else span.text))
            times = f"{clock(span.start)} --> {clock(span.end)}".replace(".", ",")
            blocks.append(f"{i}\n{times}\n{text}\n")
    return "\n".join(blocks)


def escaped(text):
    """Text for WebVTT, where & and < mean something, and --> may not stand in a caption."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("\0", "\ufffd")


def clock(ms):
    """Milliseconds -> 01:02:03.456"""
    seconds, ms = divmod(ms, 1000)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}.{ms:03}"
