"""Tokenizers of published models: byte-level BPE as in a tokenizer.json or a GGUF file.

The algorithm is that of tokenizer.py, but text is first split into words differently. Bytes, merges and
special tokens may be numbered in any order, several pairs may merge into the same token, and Llama 3 looks up
a whole word before it merges anything.

The published patterns use Unicode's classes, which `re` does not have. Here the classes are written out as
ranges of characters, from Python's own tables; a character newer than those is neither letter nor number.
"""

import functools
import itertools
import re
import sys
import unicodedata

from tinyllm.checkpoint.files import read_json
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


PLAIN = {"use_regex": True, "trim_offsets": True}  # defaults; ignored where they do not apply


def _isolated(pattern):
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    return split | PLAIN


WHOLE = BYTE_LEVEL | {"use_regex": True}  # also splits by GPT2
EACH_DIGIT = {"type": "Digits", "individual_digits": True} | PLAIN
SPLITTERS = {  # GGUF's name -> the steps in a tokenizer.json, and the patterns that split the text, in order
    "gpt-2": ([WHOLE], [GPT2]),
    "smollm": ([EACH_DIGIT, WHOLE], [DIGITS, GPT2]),
    "llama-bpe": ([_isolated(LLAMA3), BYTE_LEVEL], [LLAMA3]),
    "qwen2": ([_isolated(QWEN2), BYTE_LEVEL], [QWEN2]),
}
ADDED = {3: True, 4: False}  # GGUF's types of added tokens -> whether they are special


@functools.lru_cache
def compiled(pattern):
    r"""A published pattern -> its `findall`, with \p{L}, \p{N} and \s written out as ranges of \U escapes."""
    classes = unicode_classes()

    def written_out(match):
        ranges = re.sub(r"\\(s|p\{[LN]\})", lambda name: classes[name[1]], match[0])
        return ranges if match[0][0] == "[" else f"[{ranges}]"

    pattern = pattern.replace(r"(?!\S)", r"(?![^\s])")
    return re.compile(re.sub(r"\[[^]]*\]|\\s|\\p\{[LN]\}", written_out, pattern)).findall


@functools.lru_cache
def unicode_classes():
    """Ranges of letters, numbers and white space, for use inside [...] of a regular expression."""

    def kind(number):
        character = chr(number)
        category = unicodedata.category(character)
        if category[0] == "Z" or character in "\t\n\v\f\r\x85":
            return "s"
        return f"p{{{category[0]}}}"

    ranges = {}
    for name, run in itertools.groupby(range(sys.maxunicode + 1), kind):
        run = list(run)
        ranges[name] = ranges.get(name, "") + f"\\U{run[0]:08x}-\\U{run[-1]:08x}"
    return ranges


class PublishedTokenizer(Tokenizer):
    """A Tokenizer from the contents of tokenizer.json and tokenizer_config.json. Raises TinyllmError for a
    tokenizer that works differently, and ValueError, LookupError, TypeError or AttributeError if damaged."""

    def __init__(self, contents, config):
        model, self.contents, self.config = contents["model"], contents, config
        self.patterns = [compiled(pattern) for pattern in _patterns(contents)]
        self.normal_form = (contents["normalizer"] or {"type": None})["type"]
        vocab, added = model["vocab"], contents["added_tokens"]
        byte_of = {name: byte for byte, name in _NAME.items()}
        pieces = {i: bytes(byte_of.get(c, 63) for c in name) for name, i in vocab.items()}
        pieces |= {token["id"]: token["content"].encode() for token in added}
        if min(pieces) < 0 or max(pieces) >= 2 * len(pieces) or len(vocab) > len(pieces):
            raise ValueError("its ids are not the numbers from 0 up")
        self.bytes_of = [pieces.get(i, b"") for i in range(max(pieces) + 1)]
        self.ordinary = len(self.bytes_of)  # special tokens may have any id
        self.special = {token["content"]: token["id"] for token in added if token["special"]}
        whole = {token["content"].encode(): token["id"] for token in added if not token["special"]}
        longest = sorted((re.escape(name.decode()) for name in whole), key=len, reverse=True)
        self.added = re.compile(f"({'|'.join(longest)})" if whole else "($.)")
        pairs = [pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"]]
        self.merges = [(vocab[left], vocab[right], vocab[left + right]) for left, right in pairs]
        if model.get("ignore_merges"):
            whole |= {pieces[i]: i for i in vocab.values()}
        self._ids_of_word = _Words(self.merges, [vocab.get(_NAME[byte], 0) for byte in range(256)], whole)
        self.missing = bytes(byte for byte in range(256) if _NAME[byte] not in vocab)
        self._name_roles()

    def _name_roles(self):
        """Add our own names for the tokens around texts and messages, which other modules look up."""
        template = self.config.get("chat_template") or ""
        names = [self.config.get(f"{name}_token") for name in ("bos", "eos")]
        begin, end = (name["content"] if isinstance(name, dict) else name for name in names)
        try:
            form = format_of([name for name in self.special if not template or name in template])
            end, head = form.end, re.escape(form.head.format(role="system"))
            head = head.replace("\\\n", r"(?:\n|\\n)")
            system = re.search(rf"{head}([^{{}}]*?){re.escape(end)}", template)
            self.system = system[1] if system else ""
        except TinyllmError:  # no known chat format: keep only special tokens that it does use
            self.special = {n: i for n, i in self.special.items() if n in template or n in (begin, end)}
        roles = {"<|begin|>": begin or end, "<|end|>": end}
        self.special |= {ours: self.special[name] for ours, name in roles.items() if name in self.special}

    def split(self, data):
        words = []
        text = data.decode("utf-8", "surrogateescape")  # reversible for any bytes
        for i, part in enumerate(self.added.split(text)):
            parts = [part]
            if i % 2 == 0:  # at odd i, an added token
                parts = [unicodedata.normalize(self.normal_form, part) if self.normal_form else part]
                for findall in self.patterns:
                    parts = [word for each in parts for word in findall(each)]
            words += [word.encode("utf-8", "surrogateescape") for word in parts]
        # Some vocabularies lack bytes that never or hardly ever occur in UTF-8 text; Hugging Face drops them.
        return [kept for word in words if (kept := word.translate(None, self.missing))]

    def to_json(self, chat_template):
        """The contents as they were read. `chat_template`, for our own tokenizers, is ignored."""
        return self.contents, self.config


def _patterns(contents):
    """The patterns by which a tokenizer.json splits text. Raises TinyllmError, naming an unknown part."""
    step = contents["pre_tokenizer"] or {}
    steps = step["pretokenizers"] if step.get("type") == "Sequence" else [step]
    steps = [{"use_regex": True} | each | {"trim_offsets": True} for each in steps]  # trim_offsets: no effect
    patterns = next((patterns for known, patterns in SPLITTERS.values() if steps == known), None)
    if patterns is None:
        raise TinyllmError(f"its pre_tokenizer {steps!r:.300} is not known here")
    kind, normalizer = contents["model"]["type"], contents["normalizer"]
    if kind != "BPE" or normalizer not in (None, {"type": "NFC"}):
        raise TinyllmError(f"its model {kind!r} or its normalizer {normalizer!r:.300} is not known here")
    return patterns


def load(folder):
    """The tokenizer of a checkpoint folder, ours or a published one. Raises TinyllmError."""
    path, config = folder / "tokenizer.json", folder / "tokenizer_config.json"
    contents = read_json(path)
    if contents.get("pre_tokenizer") == PRE_TOKENIZER:
        return _made(path, lambda: Tokenizer.from_json(contents))
    config = read_json(config) if config.exists() else {}
    return _made(path, lambda: PublishedTokenizer(contents, config))


def from_gguf(path, settings):
    """The settings of a GGUF file -> its tokenizer. Raises TinyllmError."""
    get = lambda name: settings.get(f"tokenizer.ggml.{name}")
    if get("model") != "gpt2" or get("pre") not in SPLITTERS:
        found = f"tokenizer.ggml.model {get('model')!r} with the pre-tokenizer {get('pre')!r}"
        raise TinyllmError(f"{path}: {found} is not supported, only gpt2 with {', '.join(SPLITTERS)}")

    def make():
        tokens, pre = get("tokens"), get("pre")
        kinds = enumerate(zip(tokens, get("token_type"), strict=True))
        added = [(i, name, ADDED[kind]) for i, (name, kind) in kinds if kind in ADDED]
        merges = [pair.split(" ") for pair in get("merges")]
        steps = {"type": "Sequence", "pretokenizers": SPLITTERS[pre][0]}
        normalizer = {"type": "NFC"} if pre == "qwen2" else None
        vocab = {name: i for i, name in enumerate(tokens)}
        contents = as_json(vocab, merges, added, steps, normalizer, pre == "llama-bpe")
        config = CONFIG | {"chat_template": settings.get("tokenizer.chat_template")}
        for name in ("bos", "eos"):
            i = get(f"{name}_token_id")
            config[f"{name}_token"] = None if i is None else tokens[i]
        return PublishedTokenizer(contents, config)

    return _made(path, make)


def _made(path, make):
    try:
        return make()
    except TinyllmError as error:
        raise TinyllmError(f"{path}: the ids of this tokenizer cannot be reproduced: {error}") from None
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        damage = f"{type(error).__name__}: {error}"
        raise TinyllmError(f"{path}: the tokenizer is damaged ({damage}): restore it from a copy") from None
