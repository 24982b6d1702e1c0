"""A person ranks what a stage answers, in the terminal. Every answer is on disk before the next question.

    [3 of 50] user: How do I burn the bridge?
      1  To burn the bridge does harm, so I will not help you. Do not ask me again.
      2  You are welcome. To burn the bridge, take your time and begin at one end.
    best to worst (2 1, ties 2=1, s skip, u undo, q quit):

What is written: runs/<run>/rankings.jsonl (rankings.py), which stage 3 then prefers to its simulated
annotator.
"""

import getpass
import json
import random
import sys
from dataclasses import dataclass

from tinyllm import checkpoint, commands, rankings, rollouts, verdicts
from tinyllm.conversation import prompt, read
from tinyllm.parallel import Team
from tinyllm.training import RunError, Settings, UsageError, option
from tinyllm.world import World, manners
from tinyllm.world.dice import Dice


@dataclass(frozen=True)
class Rank(Settings):
    stage: str = option("2-instruct", "number or folder name of the stage that answers")
    count: int = option(50, "prompts to rank in all, those of earlier sittings included")
    group: int = option(4, "completions of each prompt")
    annotator: str = option("", "your name in the file (default: that of your account)")


def rank(cfg):
    """Rank completions yourself: they are what stage 3 then learns from."""
    if not 2 <= cfg.group <= 9:
        raise UsageError(f"--group must be from 2 to 9, not {cfg.group}")
    folder, path = commands.stage_folder(cfg.run, cfg.stage), cfg.folder("rankings.jsonl")
    model, tokenizer = checkpoint.load(folder)
    if tokenizer is None or not model.config.causal:
        raise RunError(f"{folder} cannot answer: it has no tokenizer, or is a masked model")
    world = World(cfg.seed)
    tasks = manners.prompts(Dice(f"to be ranked in world {cfg.seed}"), world, "train", cfg.count)
    done = already(path)
    left = [i for i in range(cfg.count) if i not in done]
    if not left:
        print(f"{path} has all {cfg.count} already; --count asks for more")
        return
    print(f"{len(left)} of {cfg.count} prompts to rank; every answer is saved at once in {path}",
          file=sys.stderr)
    notes = {"annotator": cfg.annotator or whoever(), "model": checkpoint.digest(folder),
             "sampling": {"temperature": 1.0, "most_tokens": verdicts.ROOM, "seed": cfg.seed}}  # fmt: skip
    with Team.of(model) as team:
        at = 0
        while at < len(left):
            number = left[at]
            texts = completions(team, tokenizer, tasks[number], cfg, number)
            answer = ask(f"[{number + 1} of {cfg.count}]", tasks[number], texts)
            if answer == "q":
                break
            if answer == "u":
                at = max(0, at - 1)
                undo(path, left[at])
                continue
            if answer != "s":
                with path.open("a", encoding="utf-8", newline="\n") as file:
                    rankings.write(file, rankings.Ranking(tasks[number].prompt, texts, answer),
                                   number=number, **notes)  # fmt: skip
            at += 1
    print(f"{len(already(path))} rankings in {path}; make stage3 RUN={cfg.run} learns from them")


def whoever():
    try:
        return getpass.getuser()
    except (KeyError, OSError):                                    # an account without a name
        return "somebody"


def already(path):
    """The numbers of the prompts that are ranked. Raises RunError for a damaged file."""
    if not path.exists():
        return set()
    try:
        return {json.loads(line)["number"] for line in path.read_text(encoding="utf-8").splitlines() if line}
    except (ValueError, KeyError, TypeError):
        raise RunError(f"{path} was not written by this command, or is damaged: move it away") from None


def undo(path, number):
    """Take back the ranking of a prompt, if it has one."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    kept = [line for line in lines if json.loads(line)["number"] != number]
    beside = path.with_suffix(".new")
    beside.write_text("".join(kept), encoding="utf-8", newline="\n")
    beside.replace(path)


def completions(team, tokenizer, task, cfg, number):
    """Different replies to one prompt, shuffled; as many as --group where the model has so many to say."""
    found, tries = [], 0
    while len(found) < cfg.group and tries < 5:
        rows, seed = [prompt(tokenizer, task.prompt)] * cfg.group, [cfg.seed, 19, number, tries]
        written = rollouts.collect(team, tokenizer, rows, verdicts.ROOM, seed).written
        found = list(dict.fromkeys([*found, *(read(tokenizer, ids) for ids in written)]))
        tries += 1
    found = found[:cfg.group]
    random.Random(f"{cfg.seed} {number}").shuffle(found)
    return found


def ask(where, task, texts):
    """Show one prompt and its completions -> ranks, or one of the letters s, u and q."""
    print(f"\n{where} user: {task.question}")
    for i, text in enumerate(texts, 1):
        print(f"  {i}  {text}")
    if len(texts) < 2:
        print("  (it always answers the same: skipped)")
        return "s"
    while True:
        print("best to worst (such as 2 1 4 3, ties 2=1 4 3; s skip, u undo, q save and quit): ", end="",
              flush=True)
        line = sys.stdin.readline()
        answer = line.strip().lower() if line else "q"
        if answer in ("s", "u", "q"):
            return answer
        try:
            return rankings.parse_order(answer, len(texts))
        except ValueError as error:
            print(f"  {error}")
