"""Inspect a stage: sample from it, or see which tokens of a conversation the loss covers."""

import itertools
import sys
from dataclasses import dataclass

import numpy as np

from tinyllm import checkpoint
from tinyllm.checkpoint.files import read_json
from tinyllm.data import formats
from tinyllm.data.conversation import encode_conversation
from tinyllm.errors import TinyllmError
from tinyllm.runs import Settings, learned_by, option, path_of, stage_folder
from tinyllm.sampling import generate, printable
from tinyllm.world import World


@dataclass(frozen=True)
class SampleSettings(Settings):
    stage: str = option("", "number or folder name of the stage (default: the last one)")
    prompt: str = option("", "text to continue (default: begin a new document)")
    tokens: int = option(200, "maximum number of tokens in a sample", (1, 10**6))
    temperature: float = option(0.8, "0 is greedy; 1 samples from the model's distribution", (0, 100))
    top_k: int = option(0, "choose among the k most likely tokens only (0: all)")
    top_p: float = option(
        1.0, "choose among the most likely tokens that together have this probability", (1e-6, 1)
    )


def sample(settings):
    """Sample a continuation of a prompt from a stage."""
    folder = stage_folder(settings.run, settings.stage)
    model, tokenizer = checkpoint.load_language_model(folder)
    # The built-in world's documents begin with a space, so the prompt needs one, too.
    space = " " if path_of(learned_by(folder), "text") == "" else ""
    start = [tokenizer.special["<|begin|>"], *tokenizer.encode(space + settings.prompt)]
    end = tokenizer.special["<|end|>"]
    draws = np.random.default_rng(settings.seed).random((1, settings.tokens))
    how = {"temperature": settings.temperature, "top_k": settings.top_k, "top_p": settings.top_p}
    (tokens,) = generate(model, [start], settings.tokens, draws, **how, stop=end)
    text = tokenizer.decode(tokens[:-1] if tokens[-1] == end else tokens)
    print(printable(settings.prompt + text).removeprefix(space))


def show_mask(settings):
    """Print a training conversation of each kind. Tokens that the loss covers are in colour (outside a
    terminal, in brackets)."""
    folder = stage_folder(settings.run, "")
    _, tokenizer = checkpoint.load(folder)
    on, off = ("\033[32m", "\033[0m") if sys.stdout.isatty() else ("[", "]")
    for messages in training_examples(folder):
        ids, mask = encode_conversation(tokenizer, messages)
        for covered, pairs in itertools.groupby(zip(ids, mask), key=lambda pair: pair[1]):
            text = tokenizer.decode([id for id, _ in pairs])
            print(on + text + off if covered else text, end="")
        print(f"\nthe loss covers {sum(mask)} of {len(ids)} tokens\n")


def training_examples(folder):
    """One conversation of each kind: from your files, if the stage in `folder` has learned from any, or else
    from the built-in world. Raises TinyllmError if those files hold no conversations."""
    learned = learned_by(folder)
    if not any(source["path"] for source in learned.values()):
        world = World(read_json(folder / "stage.json")["settings"]["seed"])
        problems = [world.problems("train", 1, kind=kind)[0] for kind in ("story", "calculator")]
        return [task.messages for task in [*world.instructions("train", 1), *problems]]
    readers = {"instructions": formats.instructions, "problems": formats.problems}
    paths = {kind: path_of(learned, kind) for kind in readers if path_of(learned, kind)}
    if not paths:
        raise TinyllmError(
            f"{folder} holds a model that has seen no conversations: run make stage2 with DATA= first"
        )
    return [formats.split(readers[kind](path))[0][0] for kind, path in paths.items()]
