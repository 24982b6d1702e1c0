"""Text <-> ids: byte-level byte-pair encoding, trained here, saved as a Hugging Face tokenizer.json.

Bytes alone make sequences long, and a fixed list of words lacks new words. Byte-pair encoding avoids
both problems. Ids 0 to 255 are the bytes, so any text can be encoded, and decoding returns exactly that text.
Ids from 256 on stand for pairs of earlier ids that were frequent in training, the most frequent pair first
(Sennrich et al. 2016; on bytes: Radford et al. 2019). The special tokens come last, and encoding a text never
produces one.

Text is first split into words; merges never cross a word boundary. Every digit is a word of its own: if "47"
were one token and "48" two, a model would have to learn the digits of every number before it could add digit
by digit.
"""

import heapq
import re
from collections import Counter
from itertools import chain, pairwise

import numpy as np

SPECIALS = ("<|begin|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>", "<|tool|>", "<|mask|>")

# A word is one of these: a digit, a run of letters or a run of other characters, each with the space before
# it if there is one; a run of newlines; all spaces of a run but the last; a single space. The character
# classes name only ASCII characters, and all other characters count as letters. \w, \s and \p{L} differ
# between regular-expression engines and Unicode versions, but these classes do not. These
# classes also split a string and its UTF-8 bytes at the same places.
LETTER, OTHER = r"[^\x00-@\[-`{-\x7f]", r"[\x00-\x09\x0b-\x1f!-/:-@\[-`{-\x7f]"
PATTERN = rf" ?[0-9]| ?{LETTER}+| ?{OTHER}+|\n+| +(?= )| "
_words = re.compile(PATTERN.encode()).findall

CACHE_LIMIT = 2**20  # maximum number of words in a tokenizer's cache
LONG = 100  # bytes; longer words repeat too rarely to be worth caching


class Tokenizer:
    """merges: list of (left id, right id); the i-th creates id 256 + i."""

    system = ""  # default system message of a chat, "" for none

    def __init__(self, merges=()):
        self.merges = list(merges)
        self.bytes_of = [bytes([i]) for i in range(256)]
        for left, right in self.merges:
            self.bytes_of.append(self.bytes_of[left] + self.bytes_of[right])
        self.ordinary = len(self.bytes_of)  # ids below this are text
        self.special = {name: self.ordinary + i for i, name in enumerate(SPECIALS)}
        self.bytes_of += [name.encode() for name in SPECIALS]
        self._ids_of_word = _Words([(*pair, 256 + i) for i, pair in enumerate(self.merges)], range(256))

    def __len__(self):
        return len(self.bytes_of)

    def encode(self, text):
        """str or bytes -> list of ids, without special tokens. A lone surrogate becomes three bytes."""
        words = self.split(_as_bytes(text))
        return list(chain.from_iterable(map(self._ids_of_word.__getitem__, words)))

    split = staticmethod(_words)  # bytes -> list of words, which are bytes too

    def decode_bytes(self, ids):
        """Ids -> the exact bytes; a special token becomes its name."""
        return b"".join([self.bytes_of[i] for i in ids])

    def decode(self, ids):
        """Ids -> str. Invalid UTF-8, which a model may produce, becomes U+FFFD."""
        data = self.decode_bytes(ids)
        try:
            return data.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            return data.decode("utf-8", "replace")

    def to_json(self, chat_template):
        """-> the contents of tokenizer.json and tokenizer_config.json, for Hugging Face libraries."""
        names = ["".join(_NAME[byte] for byte in piece) for piece in self.bytes_of[: self.ordinary]]
        merges = [[names[left], names[right]] for left, right in self.merges]
        added = [(i, name, True) for name, i in self.special.items()]
        contents = as_json({name: i for i, name in enumerate(names)}, merges, added, PRE_TOKENIZER)
        roles = {"bos_token": "<|begin|>", "eos_token": "<|end|>"}
        return contents, CONFIG | roles | {"chat_template": chat_template}

    @classmethod
    def from_json(cls, contents):
        """The contents of a tokenizer.json of this project -> Tokenizer. Raises ValueError for any other
        tokenizer. A damaged file may also raise LookupError, TypeError or AttributeError."""
        model, vocab = contents["model"], contents["model"]["vocab"]
        tokenizer = cls([(vocab[left], vocab[right]) for left, right in model["merges"]])
        special = {token["content"]: token["id"] for token in contents["added_tokens"]}
        same = special == tokenizer.special and tokenizer.to_json("")[0]["model"]["vocab"] == vocab
        if not same or contents["normalizer"] or model["type"] != "BPE":
            raise ValueError("its type, normalizer, ids or special tokens differ from this project's")
        return tokenizer


CONFIG = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}


def as_json(vocab, merges, added, pre_tokenizer, normalizer=None, ignore_merges=False):
    """The contents of a tokenizer.json. added: [(id, name, whether it is special)]."""
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    model = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None}
    model |= {"end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False}
    model |= {"ignore_merges": ignore_merges, "vocab": vocab, "merges": merges}
    contents = {"version": "1.0", "truncation": None, "padding": None}
    contents["added_tokens"] = [{"id": i, "content": name, **flags, "special": s} for i, name, s in added]
    contents |= {"normalizer": normalizer, "pre_tokenizer": pre_tokenizer, "post_processor": None}
    return contents | {"decoder": BYTE_LEVEL, "model": model}


def _as_bytes(text):
    return text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text


class _Words(dict):
    """A cache: word (bytes) -> ids.

    merges: (left id, right id, new id), in order of priority; of_byte: the id of each byte; whole:
    {word: id} of words that are looked up instead of merged.
    """

    def __init__(self, merges, of_byte, whole=()):
        super().__init__()
        self.of_byte, self.whole = of_byte, dict(whole)
        self.rank = {(left, right): i for i, (left, right, _) in enumerate(merges)}
        self.new = [new for _, _, new in merges]

    def __missing__(self, word):
        """Merge the n bytes of a word in O(n log n), because a word may be a whole line of Chinese."""
        if word in self.whole:
            return [self.whole[word]]
        # A linked list of ids. The None at its end is also ids[-1], so it stands at both ends of the word.
        ids, rank = [self.of_byte[byte] for byte in word] + [None], self.rank.get
        before, after = [*range(-1, len(word))], [*range(1, len(ids))]
        heap = [(rank(pair), i) for i, pair in enumerate(pairwise(ids)) if pair in self.rank]
        heapq.heapify(heap)
        while heap:
            best, i = heapq.heappop(heap)
            j = after[i]
            if rank((ids[i], ids[j])) != best:  # outdated by another merge
                continue
            ids[i], ids[j], after[i] = self.new[best], None, after[j]
            before[after[i]] = i
            for left, right in ((before[i], i), (i, after[i])):
                possible = rank((ids[left], ids[right]))
                if possible is not None:
                    heapq.heappush(heap, (possible, left))
        ids = [i for i in ids if i is not None]
        if len(word) <= LONG:
            if len(self) >= CACHE_LIMIT:
                self.clear()
            self[word] = ids
        return ids


def train(documents, vocab):
    """Learn a Tokenizer of `vocab` ids (256 bytes, then merges) from documents (an iterable of str or bytes).

    `vocab` does not include the special tokens. With vocab 256 there are no merges: ids are bytes. Training
    ends early if no pair occurs twice. Of equally frequent pairs, the one with the smaller ids (first left,
    then right) is merged first.

    Recounting all pairs for each merge would take hours. So each merge updates only the counts that it
    changes, and a heap finds the next pair to merge. The count of an existing pair never rises, so an
    outdated entry in the heap need not be corrected before it reaches the top.
    """
    if isinstance(documents, (str, bytes)):
        documents = [documents]
    seen = Counter()
    for document in documents:
        seen.update(_words(_as_bytes(document)))
    row, merges = _Row(seen), []
    count = dict(row.pairs())  # a pair is one number, left << 32 | right
    heap = [(-n, pair) for pair, n in count.items()]
    heapq.heapify(heap)
    while heap and len(merges) < vocab - 256:
        n, pair = heapq.heappop(heap)
        if -n < 2:
            break
        if -n != count[pair]:  # outdated
            heapq.heappush(heap, (-count[pair], pair))
            continue
        merges.append(divmod(pair, 2**32))
        for other, difference in row.merge(*merges[-1], 255 + len(merges)):
            count[other] = count.get(other, 0) + difference
            if difference > 1:
                heapq.heappush(heap, (-difference, other))
    return Tokenizer(merges)


class _Row:
    """The words of a text in one row of bytes, so that NumPy can merge a pair in all of them at once.

    There is a -1 on both sides of each word. An id covers as many places as it has bytes: `head` holds the id
    at the first of these places and -1 at the others, and `tail` holds the id at the last of them.
    """

    def __init__(self, seen):
        row = np.frombuffer(b"\0".join([b"", *seen, b""]), np.uint8)
        ends = np.cumsum([0] + [len(word) + 1 for word in seen])
        self.times = np.repeat([0, *seen.values()], np.diff(ends, prepend=-1))
        self.head = row.astype(np.int64)
        self.head[ends] = -1
        self.tail = self.head.copy()
        places = np.argsort(row, kind="stable")
        # id -> the places where it begins, in order; some of these places may be outdated
        self.where = np.split(places, np.cumsum(np.bincount(row, minlength=256)))[:256]
        self.size = [1] * 256

    def pairs(self):
        return _sums(self.head[:-1] << 32 | self.head[1:], self.times[:-1])

    def merge(self, left, right, new):
        """Replace the pair with `new` everywhere -> (pair, change of its count) for all pairs affected."""
        first = self.find(left, right)
        second = first + self.size[left]
        end = second + self.size[right]
        around = lambda left, right: [self.tail[first - 1] << 32 | left, right << 32 | self.head[end]]
        old = around(left, right)
        self.head[first] = self.tail[end - 1] = new
        self.head[second] = -1
        self.where.append(first)
        self.size.append(self.size[left] + self.size[right])
        times = self.times[first]
        once = times * (self.head[end] != new)  # two merges side by side share a pair: count it once
        changes = np.concatenate([-times, -once, times, once])
        return _sums(np.concatenate(old + around(new, new)), changes)

    def find(self, left, right):
        """The places where the pair begins."""
        at = self.where[left]
        at = self.where[left] = at[self.head[at] == left]
        first = at[self.head[at + self.size[left]] == right]
        if left == right:  # "aaaa": every second place of a run
            place = np.arange(len(first))
            starts = np.diff(first, prepend=-1) != self.size[left]
            first = first[(place - np.maximum.accumulate(place * starts)) % 2 == 0]
        return first


def _sums(pairs, changes):
    """(pair, sum of its changes) for each distinct pair; negative numbers (pairs with a -1) are left out."""
    pairs, at = np.unique(pairs, return_inverse=True)
    inside = np.searchsorted(pairs, 0)
    return zip(pairs[inside:].tolist(), np.bincount(at, changes)[inside:].tolist(), strict=True)


# ---- the file format -----------------------------------------------------------------------------

SPLIT = {"type": "Split", "pattern": {"Regex": PATTERN}, "behavior": "Isolated", "invert": False}
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
PRE_TOKENIZER = {"type": "Sequence", "pretokenizers": [SPLIT, BYTE_LEVEL]}

# In tokenizer.json every byte is written as a printable character, as in GPT-2. A byte that is printable in
# Latin-1 stays that character, and the other 68 bytes become the characters from 256 on, in order.
_PRINTABLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_NAME = {b: chr(b) for b in _PRINTABLE}
_NAME |= {b: chr(256 + i) for i, b in enumerate(sorted(set(range(256)) - set(_PRINTABLE)))}
