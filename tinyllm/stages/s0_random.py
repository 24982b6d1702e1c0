"""Stage 0: a vocabulary learned from the text, and a model that has learned nothing.

The weights are random, and the loss is about ln V, as for a uniform guess among V tokens. Whatever the model
can do later, it has learned in a later stage.
"""

from dataclasses import dataclass

import numpy as np

from tinyllm import tokenizer
from tinyllm.data import corpus
from tinyllm.errors import UsageError
from tinyllm.runs import Settings, nothing_to_do, option, path_of, sources
from tinyllm.stages.sizes import SIZES
from tinyllm.training import Run
from tinyllm.transformer import Config, Transformer

STAGE = "0-random"


@dataclass(frozen=True)
class RandomSettings(Settings):
    text: str = option("", "file or folder of text (default: the built-in world)", source="text")
    vocab: int = option(0, "vocabulary size (256: only bytes; default: set by --size)", (256, 10**6))
    layers: int = option(0, "number of layers (default: set by --size)", (1, 1000))
    width: int = option(0, "channels of the residual stream (default: set by --size)", (1, 2**14))
    heads: int = option(0, "query heads (default: set by --size)")
    kv_heads: int = option(0, "key/value heads (default: as many as query heads)")
    context: int = option(0, "longest sequence in tokens (default: set by --size)")
    untied: bool = option(False, "give the head its own matrix; otherwise it reuses the embedding")


def main(settings):
    """Stage 0: make a vocabulary and a random model."""
    folder, size = settings.folder(STAGE), SIZES[settings.size]
    if nothing_to_do(settings, STAGE):
        return folder
    path = path_of(sources(settings, None), "text")
    documents, _ = corpus.load(path, settings.seed, size.characters)
    spoken = [] if path else corpus.conversations_for_vocabulary(settings.seed)
    try:
        words = tokenizer.train(documents[:10_000] + spoken, settings.vocab or size.vocab)
        names = ("context", "layers", "width", "heads")
        shape = {name: getattr(settings, name) or getattr(size, name) for name in names}
        config = Config(len(words), kv_heads=settings.kv_heads, tied=not settings.untied, **shape)
    except ValueError as error:
        raise UsageError(str(error)) from None
    rng = np.random.default_rng(settings.seed)
    with Run(settings, STAGE, Transformer(config).initialise(rng), words, steps=0):
        pass
    return folder
