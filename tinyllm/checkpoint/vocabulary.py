"""Tokenizers of published models: byte-level BPE as in a tokenizer.json or a GGUF file.

The algorithm is that of tokenizer.py, except for how text is split into words. In these tokenizers, bytes,
merges and special tokens may be numbered in any order, several pairs may merge into the same token, and Llama
3 looks up a whole word before it merges anything.

The published patterns that split text use Unicode classes, which `re` does not support. This file writes each
class out as ranges of characters, taken from Python's own tables. A character newer than these tables counts
as neither a letter nor a number."""

import functools
import itertools
import re
import sys
import unicodedata

from tinyllm.checkpoint.files import read_json, reading
from tinyllm.data.conversation import format_of
from tinyllm.errors import TinyllmError
from tinyllm.tokenizer import _NAME, BYTE_LEVEL, CONFIG, PRE_TOKENIZER, Tokenizer, _Words, as_json

CONTRACTIONS = "'s|'t|'re|'ve|'m|'ll|'d"
GPT2 = CONTRACTIONS + r"| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
DIGITS = r"\p{N}|[^\p{N}]+"
LLAMA3 = (
    rf"(?i:{CONTRACTIONS})"
    r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace("{1,3}", "")


FULL = {"use_regex": True, "trim_offsets": True}  # a splitter's defaults; ignored where they do not apply
SPLIT = {"type": "Split", "behavior": "Isolated", "invert": False} | FULL
WHOLE = BYTE_LEVEL | {"use_regex": True}  # also splits text by the pattern GPT2
EACH_DIGIT = {"type": "Digits", "individual_digits": True} | FULL
SPLITTERS = {  # GGUF's name -> the steps in a tokenizer.json, and the patterns that split the text, in order
    "gpt-2": ([WHOLE], [GPT2]),
    "smollm": ([EACH_DIGIT, WHOLE], [DIGITS, GPT2]),
    "llama-bpe": ([SPLIT | {"pattern": {"Regex": LLAMA3}}, BYTE_LEVEL], [LLAMA3]),
    "qwen2": ([SPLIT | {"pattern": {"Regex": QWEN2}}, BYTE_LEVEL], [QWEN2]),
}
ADDED = {3: True, 4: False}  # GGUF's types of added tokens -> whether they are special


def compiled(pattern):
    r"""A published pattern -> its `findall`, with \p{L}, \p{N} and \s written out as ranges of characters."""
    pattern = pattern.replace(r"\S", r"[^\s]").replace(r"\s", r"\p{Z}")
    pattern = re.sub(r"(\[.*?\])|(\\p\{.\})", lambda part: part[1] or f"[{part[2]}]", pattern)
    for name, ranges in unicode_classes().items():
        pattern = pattern.replace(rf"\p{{{name}}}", ranges)
    return re.compile(pattern).findall


@functools.lru_cache
def unicode_classes():
    """{"L": letters, "N": numbers, "Z": white space, ...}, as ranges for [...] in a regular expression."""

    def kind(character):
        return "Z" if character in "\t\n\v\f\r\x85" else unicodedata.category(character)[0]

    ranges = {}
    for name, run in itertools.groupby(map(chr, range(sys.maxunicode + 1)), kind):
        numbers = [*map(ord, run)]
        ranges[name] = ranges.get(name, "") + f"\\U{numbers[0]:08x}-\\U{numbers[-1]:08x}"
    return ranges


class PublishedTokenizer(Tokenizer):
    """A Tokenizer from the contents of tokenizer.json and tokenizer_config.json.

    Raises ValueError for an unsupported tokenizer; for damaged contents also LookupError, TypeError or
    AttributeError.
    """

    def __init__(self, contents, config):
        model, self.contents, self.config = contents["model"], contents, config
        self.patterns = [compiled(pattern) for pattern in _patterns(contents)]
        vocab, added = model["vocab"], contents["added_tokens"]
        byte_of = {name: byte for byte, name in _NAME.items()}
        pieces = {i: bytes(byte_of.get(c, 63) for c in name) for name, i in vocab.items()}
        pieces |= {token["id"]: token["content"].encode() for token in added}
        self.bytes_of = [pieces[i] for i in range(len(pieces))]
        self.ordinary = len(self.bytes_of)  # includes special tokens, because these may have any id
        self.special = {token["content"]: token["id"] for token in added if token["special"]}
        whole = {token["content"].encode(): token["id"] for token in added if not token["special"]}
        longest = sorted((re.escape(name.decode()) for name in whole), key=len, reverse=True)
        self.added = re.compile(f"({'|'.join(longest)})" if whole else "($.)")
        # A merge is "a b" in GGUF files and older JSON files, and ["a", "b"] in newer ones.
        pairs = [pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"]]
        self.merges = [(vocab[left], vocab[right], vocab[left + right]) for left, right in pairs]
        if model.get("ignore_merges"):
            whole |= {pieces[i]: i for i in vocab.values()}
        self._ids_of_word = _Words(self.merges, [vocab.get(_NAME[byte], 0) for byte in range(256)], whole)
        self.missing = bytes(byte for byte in range(256) if _NAME[byte] not in vocab)
        self._name_roles()

    def _name_roles(self):
        """Add the names that other modules use for the tokens around texts and messages."""
        template = (self.config.get("chat_template") or "").replace("\\n", "\n")
        names = [self.config.get(f"{name}_token") for name in ("bos", "eos")]
        begin, end = (name["content"] if isinstance(name, dict) else name for name in names)
        used = {n: i for n, i in self.special.items() if not template or n in template or n in (begin, end)}
        try:
            form = format_of(used)
            end, head = form.end, form.head.format(role="system")
            system = re.search(rf"{re.escape(head)}([^{{}}]*?){re.escape(end)}", template)
            self.system = system[1] if system else ""
        except TinyllmError:  # drop unused tokens, from which format_of could later infer a wrong format
            self.special = used
        roles = {"<|begin|>": begin or end, "<|end|>": end}
        self.special |= {ours: self.special[name] for ours, name in roles.items() if name in self.special}

    def split(self, data):
        words = []
        text = data.decode("utf-8", "surrogateescape")  # reversible for any bytes
        for i, part in enumerate(self.added.split(text)):
            parts = [part]
            if i % 2 == 0:  # parts with odd i are added tokens
                parts = [unicodedata.normalize("NFC", part) if self.contents["normalizer"] else part]
                for findall in self.patterns:
                    parts = [word for each in parts for word in findall(each)]
            words += [word.encode("utf-8", "surrogateescape") for word in parts]
        # Some vocabularies lack bytes that are rare or invalid in UTF-8. Hugging Face drops such bytes.
        return [kept for word in words if (kept := word.translate(None, self.missing))]

    def to_json(self, chat_template):
        """The contents as they were read. `chat_template` is ignored: it is for our own tokenizers."""
        return self.contents, self.config


def _patterns(contents):
    """The patterns by which a tokenizer.json splits text. Raises ValueError for an unknown component."""
    kind, normalizer, step = contents["model"]["type"], contents["normalizer"], contents["pre_tokenizer"]
    if kind != "BPE" or normalizer not in (None, {"type": "NFC"}):
        raise ValueError(f"its model {kind!r} or its normalizer {normalizer!r:.300} is not supported")
    steps = step["pretokenizers"] if step["type"] == "Sequence" else [step]
    steps = [FULL | each | {"trim_offsets": True} for each in steps]  # trim_offsets: no effect on the ids
    for known, patterns in SPLITTERS.values():
        if steps == known:
            return patterns
    raise ValueError(f"its pre_tokenizer {steps!r:.300} is not supported")


def load(folder):
    """The tokenizer of a checkpoint folder, ours or a published one. Raises TinyllmError."""
    path, config = folder / "tokenizer.json", folder / "tokenizer_config.json"
    with reading(path, "a tokenizer whose ids we can reproduce"):
        contents = read_json(path)
        if contents.get("pre_tokenizer") == PRE_TOKENIZER:
            return Tokenizer.from_json(contents)
        return PublishedTokenizer(contents, read_json(config) if config.exists() else {})


def from_gguf(path, settings):
    """The settings of a GGUF file -> its tokenizer. Raises TinyllmError."""
    get = lambda name: settings.get(f"tokenizer.ggml.{name}")
    with reading(path, "a GGUF file with a tokenizer"):
        pre, tokens = get("pre"), get("tokens")
        if get("model") != "gpt2" or pre not in SPLITTERS:
            kind = f"tokenizer.ggml.model {get('model')!r} with the pre-tokenizer {pre!r}"
            raise ValueError(f"{kind} is not supported, only gpt2 with one of {', '.join(SPLITTERS)}")
        kinds = enumerate(zip(tokens, get("token_type"), strict=True))
        added = [(i, name, ADDED[kind]) for i, (name, kind) in kinds if kind in ADDED]
        vocab = {name: i for i, name in enumerate(tokens)}
        steps = {"type": "Sequence", "pretokenizers": SPLITTERS[pre][0]}
        normalizer = {"type": "NFC"} if pre == "qwen2" else None
        contents = as_json(vocab, get("merges"), added, steps, normalizer, pre == "llama-bpe")
        config = CONFIG | {"chat_template": settings.get("tokenizer.chat_template")}
        for name in ("bos", "eos"):
            i = get(f"{name}_token_id")
            config[f"{name}_token"] = None if i is None else tokens[i]
        return PublishedTokenizer(contents, config)
