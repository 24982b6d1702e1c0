"""Text <-> ids: byte-level byte-pair encoding, trained here, saved as a Hugging Face tokenizer.json.

Bytes alone make sequences long, and a fixed list of words cannot write a new one. Byte-pair encoding avoids
both problems: ids 0 to 255 are the bytes, so every text can be encoded and decodes to exactly itself; ids
from 256 on are pairs of earlier ids that were frequent in training, the most frequent pair first (Sennrich et
al. 2016; on bytes: Radford et al. 2019). The special tokens come last, and no text encodes to one.

Text is first split into words; merges never cross a word boundary. A digit is a word of its own: if "47" were
one token and "48" two, a model would have to learn the digits of every number before it could add columns.
"""

import heapq
import json
import re
from collections import Counter, defaultdict
from itertools import chain, pairwise
from pathlib import Path

from tinyllm.errors import TinyllmError, UsageError

SPECIALS = ("<|begin|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>", "<|tool|>", "<|mask|>")

# One digit, a run of letters or of other characters, each with the space before it; newlines; spaces before
# a space; a space. Every class is written out in ASCII, and whatever is not ASCII counts as a letter: \w, \s
# and \p{L} differ between regular-expression engines and Unicode versions, these classes do not. They also
# match the same text whether they run over characters or over UTF-8 bytes.
LETTER, OTHER = r"[^\x00-@\[-`{-\x7f]", r"[\x00-\x09\x0b-\x1f!-/:-@\[-`{-\x7f]"
PATTERN = rf" ?[0-9]| ?{LETTER}+| ?{OTHER}+|\n+| +(?= )| "
_words = re.compile(PATTERN.encode()).findall

CACHE_LIMIT = 2**20  # distinct words remembered while encoding
LONG = 100  # bytes; a scan of the whole word for each merge is faster below


class Tokenizer:
    """merges: list of (left id, right id); the i-th creates id 256 + i."""

    def __init__(self, merges=()):
        self.merges = list(merges)
        self.bytes_of = [bytes([i]) for i in range(256)]
        for left, right in self.merges:
            self.bytes_of.append(self.bytes_of[left] + self.bytes_of[right])
        self.ordinary = len(self.bytes_of)  # ids below this one are text
        self.special = {name: self.ordinary + i for i, name in enumerate(SPECIALS)}
        self.bytes_of += [name.encode() for name in SPECIALS]
        self._ids_of_word = _Words(self.merges)

    def __len__(self):
        return len(self.bytes_of)

    def encode(self, text):
        """str or bytes -> list of ids, never a special one. Lone surrogates are kept (as three bytes)."""
        return list(chain.from_iterable(map(self._ids_of_word.__getitem__, _words(_as_bytes(text)))))

    def decode_bytes(self, ids):
        """Ids -> the exact bytes, special tokens as their names. Raises TinyllmError for an unknown id."""
        unknown = [i for i in ids if not 0 <= i < len(self)]
        if unknown:
            raise TinyllmError(f"id {unknown[0]} is not in this vocabulary of {len(self)}")
        return b"".join([self.bytes_of[i] for i in ids])

    def decode(self, ids):
        """Ids -> str. Bytes that are not UTF-8, as a model may produce, become U+FFFD."""
        data = self.decode_bytes(ids)
        try:
            return data.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            return data.decode("utf-8", "replace")

    def to_json(self, chat_template):
        """-> tokenizer.json and tokenizer_config.json as Hugging Face libraries read them."""
        names = [_printable(piece) for piece in self.bytes_of[: self.ordinary]]
        flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
        model = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None}
        model |= {
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
        }
        model["vocab"] = {name: i for i, name in enumerate(names)}
        model["merges"] = [[names[left], names[right]] for left, right in self.merges]
        contents = {"version": "1.0", "truncation": None, "padding": None}
        contents["added_tokens"] = [{"id": i, "content": name, **flags} for name, i in self.special.items()]
        contents |= {"normalizer": None, "pre_tokenizer": PRE_TOKENIZER, "post_processor": None}
        contents |= {"decoder": BYTE_LEVEL, "model": model}
        config = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
        config |= {"bos_token": "<|begin|>", "eos_token": "<|end|>", "chat_template": chat_template}
        return contents, config

    @classmethod
    def load(cls, folder):
        """Read a tokenizer.json of this project. Raises TinyllmError for others, saying what differs."""
        path = Path(folder) / "tokenizer.json"
        try:
            contents = json.loads(path.read_text(encoding="utf-8"))
            model, vocab = contents["model"], contents["model"]["vocab"]
            ours = model["type"] == "BPE" and contents["pre_tokenizer"] == PRE_TOKENIZER
            if not ours or contents["normalizer"]:
                raise TinyllmError(
                    f"{path} splits text differently from the tokenizers of this project, "
                    "so its ids cannot be reproduced here"
                )
            pairs = [pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"]]
            tokenizer = cls([(vocab[left], vocab[right]) for left, right in pairs])
            expected = {
                _printable(piece): i for i, piece in enumerate(tokenizer.bytes_of[: tokenizer.ordinary])
            }
            special = {token["content"]: token["id"] for token in contents["added_tokens"]}
            if expected != vocab or special != tokenizer.special:
                raise TinyllmError(f"{path} numbers its tokens differently from this project")
        except TinyllmError:
            raise
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise TinyllmError(
                f"{path} is damaged ({type(error).__name__}: {error}): restore it from a copy"
            ) from None
        return tokenizer


def _as_bytes(text):
    return text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text


class _Words(dict):
    """A cache: word (bytes) -> ids.

    During merging a word is a str with one character per id, because str.replace merges all occurrences of a
    pair at C speed. Merging all occurrences of the earliest pair at once equals merging them one at a time
    from the left: a merge only creates pairs with its new id, and those were all learned later than the pair
    itself.
    """

    def __init__(self, merges):
        super().__init__()
        self.rank = {(chr(left), chr(right)): 256 + i for i, (left, right) in enumerate(merges)}

    def __missing__(self, word):
        if len(word) > LONG:  # too long and too rare for the cache
            return self.merge_long(word)
        ids = word.decode("latin-1")
        rank = self.rank.get
        while len(ids) > 1:
            best, left, right = min([(rank(pair, _NEVER), *pair) for pair in set(zip(ids, ids[1:]))])
            if best == _NEVER:
                break
            ids = ids.replace(left + right, chr(best))
        if len(self) >= CACHE_LIMIT:
            self.clear()
        self[word] = [ord(character) for character in ids]
        return self[word]

    def merge_long(self, word):
        """The same ids in n log n, for a line of Chinese: each merge only looks at its neighbours."""
        ids, rank = list(word.decode("latin-1")), self.rank.get
        before, after = [*range(-1, len(ids) - 1)], [*range(1, len(ids)), -1]  # linked list; -1: none
        heap = [(rank(pair, _NEVER), i) for i, pair in enumerate(pairwise(ids))]
        heapq.heapify(heap)
        while heap and heap[0][0] != _NEVER:
            best, i = heapq.heappop(heap)
            j = after[i]
            if j < 0 or ids[i] is None or rank((ids[i], ids[j])) != best:  # merged since
                continue
            ids[i], ids[j], after[i] = chr(best), None, after[j]
            if after[i] >= 0:
                before[after[i]] = i
                heapq.heappush(heap, (rank((ids[i], ids[after[i]]), _NEVER), i))
            if before[i] >= 0:
                heapq.heappush(heap, (rank((ids[before[i]], ids[i]), _NEVER), before[i]))
        return [ord(character) for character in ids if character is not None]


_NEVER = 0x110000  # above every character code: no merge


def train(documents, vocab):
    """Learn a Tokenizer of `vocab` ids (256 bytes, then merges) from documents (an iterable of str or bytes).

    The special tokens come on top. With vocab 256 there are no merges: ids are bytes. Training ends early
    if no pair occurs twice. Ties go to the smaller pair. Raises UsageError for vocab below 256.

    Recounting all pairs for each merge would take hours. A merge only changes the counts of its neighbours,
    in the words that contain it, and a heap with some outdated entries finds the next pair.
    """
    if vocab < 256:
        raise UsageError(
            f"a vocabulary of {vocab} cannot hold the 256 bytes: choose 256 (plain bytes) or more"
        )
    if isinstance(documents, (str, bytes)):
        documents = [documents]
    seen = Counter()
    for document in documents:
        seen.update(_words(_as_bytes(document)))
    words, times = [list(word) for word in seen], list(seen.values())
    count, where = defaultdict(int), defaultdict(set)  # pair -> occurrences; pair -> its words
    for w, ids in enumerate(words):
        for pair in pairwise(ids):
            count[pair] += times[w]
            where[pair].add(w)
    heap = [(-n, pair) for pair, n in count.items()]
    heapq.heapify(heap)
    merges = []
    while heap and len(merges) < vocab - 256:
        n, pair = heapq.heappop(heap)
        if -n != count[pair]:  # outdated: the current entry follows
            continue
        if -n < 2:
            break
        new, changed = 256 + len(merges), defaultdict(int)
        merges.append(pair)
        for w in where.pop(pair):
            _merge(words[w], pair, new, times[w], changed, where, w)
        del count[pair]
        changed.pop(pair, None)
        for other, difference in changed.items():
            if difference:
                count[other] += difference
                heapq.heappush(heap, (-count[other], other))
    return Tokenizer(merges)


def _merge(ids, pair, new, times, changed, where, w):
    """Replace pair by new in one word, in place; record how the counts of neighbouring pairs change."""
    left, right = pair
    merged, start, i = [], 0, 0  # ids[start:] is not yet in `merged`
    while True:
        try:
            i = ids.index(left, i, -1)
        except ValueError:
            break
        if ids[i + 1] != right:
            i += 1
            continue
        merged += ids[start:i]
        if merged:
            changed[merged[-1], left] -= times
            changed[merged[-1], new] += times
            where[merged[-1], new].add(w)
        if i + 2 < len(ids):
            changed[right, ids[i + 2]] -= times
            changed[new, ids[i + 2]] += times
            where[new, ids[i + 2]].add(w)
        merged.append(new)
        start = i = i + 2
    ids[:] = merged + ids[start:]


# ---- the file format -----------------------------------------------------------------------------

BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
PRE_TOKENIZER = {
    "type": "Sequence",
    "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": PATTERN}, "behavior": "Isolated", "invert": False},
        BYTE_LEVEL,
    ],
}

# In the file every byte is a printable character. Printable Latin-1 stands for itself, the other 68 bytes
# become the characters from 256 on, in order: the convention of GPT-2.
_PRINTABLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_NAME = {b: chr(b) for b in _PRINTABLE}
_NAME |= {b: chr(256 + i) for i, b in enumerate(sorted(set(range(256)) - set(_PRINTABLE)))}


def _printable(piece):
    return "".join(_NAME[b] for b in piece)
