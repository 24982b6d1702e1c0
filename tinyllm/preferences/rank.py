"""make rank: a person ranks what a stage answers. Every ranking is saved before the next prompt.

    [3 of 50] user: How do I burn the bridge?
      1  To burn the bridge is harmful, so I will not help you. Do not ask me again.
      2  Happy to help. To burn the bridge, take your time and begin at one end.
    best to worst (e.g. 2 1 4 3, ties 2=1 4 3; s skip, u undo, q save and quit):

The rankings go to runs/<run>/rankings.jsonl (rankings.py), which stage 3 prefers to its simulated annotator.
"""

import getpass
import json
import random
import sys
from dataclasses import dataclass

from tinyllm import checkpoint
from tinyllm.checkpoint.files import replacing
from tinyllm.data.conversation import decode_reply, encode_prompt
from tinyllm.errors import TinyllmError, UsageError
from tinyllm.preferences import rankings
from tinyllm.sampling import generate_replies
from tinyllm.training import Settings, option, stage_folder
from tinyllm.world import World, oracle
from tinyllm.world.dice import Dice

REPLY_TOKENS = 64
TRIES = 5  # rounds of sampling in search of different replies


@dataclass(frozen=True)
class RankSettings(Settings):
    stage: str = option("2-instruct", "number or folder name of the stage that answers")
    count: int = option(50, "prompts to rank in total, earlier sessions included")
    group: int = option(4, "completions of each prompt")
    annotator: str = option("", "annotator name in the file (default: your account name)")


def main(settings):
    """Rank completions yourself; stage 3 then learns from your rankings."""
    if not 2 <= settings.group <= 9:
        raise UsageError(f"--group must be from 2 to 9, not {settings.group}")
    folder, path = stage_folder(settings.run, settings.stage), settings.folder("rankings.jsonl")
    model, tokenizer = checkpoint.load_language_model(folder)
    dice = Dice(f"to be ranked in world {settings.seed}")
    tasks = oracle.prompts(dice, World(settings.seed), "train", settings.count)
    done = ranked_numbers(path)
    left = [number for number in range(settings.count) if number not in done]
    if not left:
        print(f"{path} has all {settings.count} rankings already; use --count for more")
        return
    print(f"{len(left)} of {settings.count} prompts to rank; each answer is saved in {path}", file=sys.stderr)
    notes = {"annotator": settings.annotator or account_name(), "model": checkpoint.digest(folder)}
    notes["sampling"] = {"temperature": 1.0, "max_tokens": REPLY_TOKENS, "seed": settings.seed}
    with settings.pool(model) as pool:
        at = 0
        while at < len(left):
            number = left[at]
            texts = completions(pool, tokenizer, tasks[number], settings, number)
            answer = ask(f"[{number + 1} of {settings.count}]", tasks[number], texts)
            if answer == "q":
                break
            if answer == "u":
                at = max(0, at - 1)
                undo(path, left[at])
                continue
            if answer != "s":
                with path.open("a", encoding="utf-8", newline="\n") as file:
                    ranking = rankings.Ranking(tasks[number].prompt, texts, answer)
                    rankings.write(file, ranking, number=number, **notes)
            at += 1
    print(f"{len(ranked_numbers(path))} rankings in {path}; make stage3 RUN={settings.run} learns from them")


def account_name():
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # an account without a name
        return "somebody"


def ranked_numbers(path):
    """The numbers of the prompts that are ranked already. Raises TinyllmError for a damaged file."""
    if not path.exists():
        return set()
    try:
        return {json.loads(line)["number"] for line in path.read_text(encoding="utf-8").splitlines() if line}
    except (ValueError, KeyError, TypeError):
        raise TinyllmError(
            f"{path} was not written by this command, or is damaged: move it out of the way"
        ) from None


def undo(path, number):
    """Remove the ranking of a prompt, if it has one. If no ranking is left, the file is deleted."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    kept = [line for line in lines if json.loads(line)["number"] != number]
    if not kept:
        path.unlink(missing_ok=True)
    else:
        with replacing(path) as beside:
            beside.write_text("".join(kept), encoding="utf-8", newline="\n")


def completions(pool, tokenizer, task, settings, number):
    """Different replies to one prompt, shuffled; --group of them, if the model produces that many."""
    texts, tries = [], 0
    prompts = [encode_prompt(tokenizer, task.prompt)] * settings.group
    while len(texts) < settings.group and tries < TRIES:
        seed = [settings.seed, 19, number, tries]
        replies = generate_replies(pool, tokenizer, prompts, REPLY_TOKENS, seed)
        texts = list(dict.fromkeys([*texts, *(decode_reply(tokenizer, ids) for ids in replies)]))
        tries += 1
    texts = texts[: settings.group]
    random.Random(f"{settings.seed} {number}").shuffle(texts)
    return texts


def ask(place, task, texts):
    """Show one prompt and its completions -> ranks, or one of the letters s, u and q."""
    print(f"\n{place} user: {task.question}")
    for i, text in enumerate(texts, 1):
        print(f"  {i}  {text}")
    if len(texts) < 2:
        print("  (the model always gives the same reply: skipped)")
        return "s"
    while True:
        print("best to worst (e.g. 2 1 4 3, ties 2=1 4 3; s skip, u undo, q save and quit): ", end="")
        sys.stdout.flush()
        line = sys.stdin.readline()
        answer = line.strip().lower() if line else "q"
        if answer in ("s", "u", "q"):
            return answer
        try:
            return rankings.parse_order(answer, len(texts))
        except ValueError as error:
            print(f"  {error}")
