"""Inspect a stage: sample from it, or see which tokens of a conversation the loss covers."""

import itertools
import sys
from dataclasses import dataclass

import numpy as np

from tinyllm import checkpoint
from tinyllm.checkpoint.files import read_json
from tinyllm.data.conversation import encode_conversation
from tinyllm.errors import UsageError
from tinyllm.sampling import generate
from tinyllm.training import Settings, option, stage_folder
from tinyllm.world import World


@dataclass(frozen=True)
class SampleSettings(Settings):
    stage: str = option("", "number or folder name of the stage (default: the last one)")
    prompt: str = option("", "text to continue (default: the beginning of a document)")
    tokens: int = option(200, "maximum tokens of a sample")
    count: int = option(1, "number of samples")
    temperature: float = option(0.8, "0 is greedy; 1 samples from the model's distribution")
    top_k: int = option(0, "choose among the k most likely tokens only (0: all)")
    top_p: float = option(1.0, "choose among the fewest tokens that together have this probability")


def sample(settings):
    """Sample a continuation of a text from a stage."""
    if not 0 < settings.top_p <= 1 or settings.tokens < 1 or settings.count < 1:
        raise UsageError("--top-p must be in (0, 1], --tokens and --count 1 or more")
    folder = stage_folder(settings.run, settings.stage)
    model, tokenizer = checkpoint.load_language_model(folder)
    # The world's documents begin with a space.
    space = "" if read_json(folder / "stage.json")["settings"].get("text") else " "
    start = [tokenizer.special["<|begin|>"], *tokenizer.encode(space + settings.prompt)]
    end = tokenizer.special["<|end|>"]
    draws = np.random.default_rng(settings.seed).random((settings.count, settings.tokens))
    how = {"temperature": settings.temperature, "top_k": settings.top_k, "top_p": settings.top_p}
    for tokens, _ in generate(model, [start] * settings.count, settings.tokens, draws, **how, stop=[end]):
        text = tokenizer.decode(tokens[:-1] if tokens[-1] == end else tokens)
        print((settings.prompt + text).removeprefix(space))


@dataclass(frozen=True)
class ShowMaskSettings(Settings):
    stage: str = option("", "number or folder name of the stage whose tokenizer is used (default: the last)")
    kind: str = option("instruction", "what to show", choices=("instruction", "problem", "calculator"))


def show_mask(settings):
    """Print a training conversation, what the loss covers in colour (in brackets outside a terminal)."""
    _, tokenizer = checkpoint.load(stage_folder(settings.run, settings.stage))
    world = World(settings.seed)
    if settings.kind == "instruction":
        (task,) = world.instructions("train", 1)
    else:
        kind = {"problem": "story", "calculator": "calculator"}[settings.kind]
        (task,) = world.problems("train", 1, kind=kind)
    ids, mask = encode_conversation(tokenizer, task.messages)
    on, off = ("\033[32m", "\033[0m") if sys.stdout.isatty() else ("[", "]")
    for covered, pairs in itertools.groupby(zip(ids, mask), key=lambda pair: pair[1]):
        text = tokenizer.decode([id for id, _ in pairs])
        print(on + text + off if covered else text, end="")
    print(f"\nthe loss covers {sum(mask)} of {len(ids)} tokens")
