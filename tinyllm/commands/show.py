"""What `python -m tinyllm` can do besides single stages: several in a row, and looking at one.

Each command is a settings dataclass and a function that takes it.
"""

import dataclasses
import itertools
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tinyllm import checkpoint, exams, report
from tinyllm.conversation import spell
from tinyllm.parallel import Team
from tinyllm.sampling import generate
from tinyllm.stages import FOLDERS, s0_random, s1_pretrain, s2_instruct, s3_prefer, s4_reason
from tinyllm.training import RunError, Settings, UsageError, option, read_json
from tinyllm.world import World


@dataclass(frozen=True)
class Train(Settings):
    text: str = option("", "file or folder of text to pre-train on (default: the built-in world)")


def train(cfg):
    """All stages in order, then the scoreboard. Stages that are finished already are left as they are."""
    common = vars(cfg)
    s0_random.main(s0_random.Random(**common))
    s1_pretrain.main(s1_pretrain.Pretrain(**common))
    if not cfg.text:
        s2_instruct.main(s2_instruct.Instruct(**common))
        s3_prefer.main(s3_prefer.Prefer(**common))
        s4_reason.main(s4_reason.Reason(**common))
    print(report.scoreboard(cfg.run))


def control(cfg):
    """Stage 4 on the same problems for as many steps, but without the chains: what they are worth."""
    s4_reason.main(dataclasses.replace(cfg, chains="left-out"), "4-control")
    print(report.scoreboard(cfg.run))


@dataclass(frozen=True)
class ShowMask(Settings):
    stage: str = option("", "number or folder name of the stage whose tokenizer is used (default: the last)")
    kind: str = option("instruction", "what conversation", choices=("instruction", "problem", "calculator"))


def show_mask(cfg):
    """One conversation as it is trained on, what is learned coloured (in brackets outside a terminal)."""
    _, tokenizer = checkpoint.load(stage_folder(cfg.run, cfg.stage))
    world = World(cfg.seed)
    (task,) = (world.instructions("train", 1) if cfg.kind == "instruction"
               else world.problems("train", 1, kind="story" if cfg.kind == "problem" else "calculator"))
    ids, learned = spell(tokenizer, task.messages)
    on, off = ("\033[32m", "\033[0m") if sys.stdout.isatty() else ("[", "]")
    names = {id: name for name, id in tokenizer.special.items()}
    for weight, run in itertools.groupby(zip(ids, learned), key=lambda pair: pair[1]):
        text = "".join(names.get(id) or tokenizer.decode([id]) for id, _ in run)
        print(on + text + off if weight else text, end="")
    print(f"\n{sum(learned)} of {len(ids)} tokens are learned")


@dataclass(frozen=True)
class Shakespeare(Settings):
    run: str = option("shakespeare", "name of the run: everything is written to runs/<run>/")
    text: str = option("", "the text: 1.1 MB of Shakespeare, or any other")
    steps: int = option(2000, "batches of 12 windows of 64 characters")
    method: str = option("muon", "optimizer of the block matrices", choices=("muon", "adamw"))


def shakespeare(cfg):
    """The real-text example, at the budget of nanoGPT's CPU recipe: 0.8 M parameters, 1.5 M characters."""
    if not cfg.text:
        raise UsageError("which text? make shakespeare TEXT=path/to/input.txt")
    common = {key: getattr(cfg, key) for key in ("run", "seed", "workers", "resume", "text")}
    s0_random.main(s0_random.Random(
        **common, vocab=256, layers=4, width=128, heads=4, hidden=344, context=64))
    s1_pretrain.main(s1_pretrain.Pretrain(
        **common, rows=12, steps=cfg.steps, method=cfg.method, muon_rate=0.008, adamw_rate=3e-3))
    print(report.scoreboard(cfg.run))


@dataclass(frozen=True)
class Sample(Settings):
    stage: str = option("", "number or folder name of the stage (default: the last there is)")
    prompt: str = option("", "text to continue (default: the beginning of a document)")
    tokens: int = option(200, "tokens to write at most")
    count: int = option(1, "how many samples")
    temperature: float = option(0.8, "0 takes the likeliest token; 1 samples as the model believes")
    top_k: int = option(0, "choose among the k likeliest tokens only (0: all)")
    top_p: float = option(1.0, "choose among the fewest tokens that have this probability together")


def sample(cfg):
    """Let a stage continue a text."""
    if not 0 <= cfg.temperature or not 0 < cfg.top_p <= 1 or cfg.top_k < 0 or cfg.tokens < 1 or cfg.count < 1:
        raise UsageError("--temperature and --top-k must be 0 or more, --top-p in (0, 1], "
                         "--tokens and --count 1 or more")
    folder = stage_folder(cfg.run, cfg.stage)
    model, tokenizer = checkpoint.load(folder)
    if tokenizer is None or not model.config.causal:
        raise RunError(f"{folder} cannot write: it has no tokenizer, or is a masked model")
    notes = folder / "stage.json"                                   # the world's texts begin with a space
    space = " " if notes.exists() and not read_json(notes).get("settings", {}).get("text") else ""
    start = [tokenizer.special["<|begin|>"], *tokenizer.encode(space + cfg.prompt)]
    rows = generate(model, [start] * cfg.count, cfg.tokens, np.random.default_rng(cfg.seed), cfg.temperature,
                    cfg.top_k, cfg.top_p, stop=[tokenizer.special["<|end|>"]])
    for tokens, _ in rows:
        ended = tokens[-1] == tokenizer.special["<|end|>"]
        print((cfg.prompt + tokenizer.decode(tokens[:-1] if ended else tokens)).removeprefix(space))


def take_exams(cfg):
    """Run every exam again on every finished stage of a run, and write the scoreboard."""
    for folder in finished(cfg.run):
        model, tokenizer = checkpoint.load(folder)
        made = read_json(folder / "stage.json")["settings"]
        made = s1_pretrain.Pretrain(size=made["size"], seed=made["seed"], text=made["text"])
        with Team.of(model, cfg.team_size()) as team:
            print(f"exams of {folder}", file=sys.stderr)
            exams.run(team, tokenizer, made, folder)
    print(report.scoreboard(cfg.run))


def stage_folder(run, stage):
    """A stage's number or folder name -> its folder, the last finished one where none is named.

    Raises RunError where there is none.
    """
    there = finished(run)
    wanted = [folder for folder in there if stage in (folder.name, folder.name.split("-")[0])]
    wanted = wanted if stage else there[-1:]
    if not wanted:
        names = ", ".join(folder.name for folder in there)
        instead = f"there is {names}" if there else f"make one with: make train RUN={run}"
        raise RunError(f"runs/{run} has no {f'stage {stage}' if stage else 'finished stage'}; {instead}")
    return wanted[-1]                      # 1 means 1-pretrain, where there is 1-masked too


def finished(run):
    """The folders of the finished stages of a run, in order."""
    folders = [Path("runs") / run / name for name in FOLDERS]
    for folder in folders:
        checkpoint.recover(folder)
    return [folder for folder in folders if (folder / "model.safetensors").exists()]
