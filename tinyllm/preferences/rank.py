"""make rank: a person ranks the replies of a stage. Every ranking is saved before the next prompt.

    [3 of 50] user: How do I burn the bridge?
      1  To burn the bridge is harmful, so I will not help you. Do not ask me again.
      2  Happy to help. To burn the bridge, take your time and begin at one end.
    best to worst (e.g. 2 1 4 3, ties 2=1 4 3; s skip, u undo, q save and quit):

The rankings go to runs/<run>/rankings.jsonl (rankings.py); RANKINGS= makes stage 3 learn from them.
"""

import getpass
import json
import random
import shlex
import sys
from dataclasses import dataclass

from tinyllm import checkpoint
from tinyllm.checkpoint.files import read_json, replacing
from tinyllm.data import formats
from tinyllm.data.conversation import decode_reply, encode_prompt, prompt_of
from tinyllm.errors import TinyllmError
from tinyllm.preferences import rankings
from tinyllm.runs import Settings, learned_by, make_command, option, path_of, stage_folder
from tinyllm.sampling import REPLY_TOKENS, generate_replies, printable, with_roles
from tinyllm.world import World, oracle
from tinyllm.world.dice import Dice

TRIES = 5  # rounds of sampling to find different replies


@dataclass(frozen=True)
class RankSettings(Settings):
    stage: str = option("2-instruct", "number or folder name of the stage that answers")
    count: int = option(50, "prompts to rank in total, earlier sessions included", (1, 10**6))
    group: int = option(4, "completions of each prompt", (2, 9))
    annotator: str = option("", "annotator name in the file (default: your account name)")


def main(settings):
    """Rank completions yourself, for stage 3 to learn from."""
    folder, path = stage_folder(settings.run, settings.stage), settings.folder("rankings.jsonl")
    model, tokenizer = checkpoint.load_language_model(folder)
    prompts = load_prompts(folder, settings.count)
    done = ranked_numbers(path)
    left = [number for number in range(len(prompts)) if number not in done]
    if not left:
        more = "; use --count for more" if len(prompts) == settings.count else ": there are no more prompts"
        print(f"{path} has all {len(prompts)} rankings already{more}")
        print(next_command(settings, folder, path))
        return
    print(f"{len(left)} of {len(prompts)} prompts to rank; each answer is saved in {path}", file=sys.stderr)
    notes = {"annotator": settings.annotator or account_name(), "model": checkpoint.digest(folder)}
    notes["sampling"] = {"temperature": 1.0, "max_tokens": REPLY_TOKENS, "seed": settings.seed}
    with settings.pool(model) as pool:
        at = 0
        while at < len(left):
            number = left[at]
            texts = completions(pool, tokenizer, prompts[number], settings, number)
            answer = ask(f"[{number + 1} of {len(prompts)}]", prompts[number], texts)
            if answer == "q":
                break
            if answer == "u":
                at = max(0, at - 1)
                undo(path, left[at])
                continue
            if answer != "s":
                with path.open("a", encoding="utf-8", newline="\n") as file:
                    ranking = rankings.Ranking(prompts[number], texts, answer)
                    rankings.write(file, ranking, number=number, **notes)
            at += 1
    ranked = len(ranked_numbers(path))
    print(f"{ranked or 'no'} rankings in {path}")
    if ranked:
        print(next_command(settings, folder, path))


def load_prompts(folder, count):
    """At most `count` prompts like those that the stage in `folder` has learned to answer."""
    seed, source = (
        read_json(folder / "stage.json")["settings"]["seed"],
        path_of(learned_by(folder), "instructions"),
    )
    if source is None:
        raise TinyllmError(f"{folder} has not learned to answer: rank replies of stage 2 or a later one")
    if source:
        # Held-out questions too: their rankings are held out in stage 3.
        return [prompt_of(messages) for messages in formats.instructions(source)[:count]]
    tasks = oracle.prompts(Dice(f"to be ranked in world {seed}"), World(seed), "train", count)
    return [task.prompt for task in tasks]


def next_command(settings, folder, path):
    """The command that trains on the rankings. An existing stage 3 is kept: the new one gets its own run."""
    made, new = read_json(folder / "stage.json")["settings"], settings.folder("3-prefer").exists()
    command = make_command(Settings(settings.run, made["size"], made["seed"]), "3-prefer", new=new)
    start = f" FROM={shlex.quote(str(folder))}" if new else ""
    return f"To learn from them: {command}{start} RANKINGS={shlex.quote(str(path))}"


def account_name():
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # an account without a name
        return "somebody"


def ranked_numbers(path):
    """The numbers of the prompts that are already ranked. Raises TinyllmError for a damaged file."""
    if not path.exists():
        return set()
    try:
        return {json.loads(line)["number"] for line in path.read_text(encoding="utf-8").split("\n") if line}
    except (ValueError, KeyError, TypeError):
        raise TinyllmError(
            f"{path} was not written by this command, or is damaged: move it out of the way"
        ) from None


def undo(path, number):
    """Remove the ranking of a prompt, if it has one. If no ranking is left, the file is deleted."""
    lines = path.read_text(encoding="utf-8").split("\n") if path.exists() else []
    kept = [f"{line}\n" for line in lines if line and json.loads(line)["number"] != number]
    if not kept:
        path.unlink(missing_ok=True)
    else:
        with replacing(path) as beside:
            beside.write_text("".join(kept), encoding="utf-8", newline="\n")


def completions(pool, tokenizer, prompt, settings, number):
    """Different replies to one prompt, shuffled: --group replies, if the model produces that many."""
    texts, tries = [], 0
    prompts = [encode_prompt(tokenizer, prompt)] * settings.group
    while len(texts) < settings.group and tries < TRIES:
        seed = [settings.seed, 19, number, tries]
        replies = generate_replies(pool, tokenizer, prompts, REPLY_TOKENS, seed)
        texts = list(dict.fromkeys([*texts, *(decode_reply(tokenizer, ids) for ids in replies)]))
        tries += 1
    texts = texts[: settings.group]
    random.Random(f"{settings.seed} {number}").shuffle(texts)
    return texts


def ask(place, prompt, texts):
    """Show one prompt and its completions -> ranks, or one of the letters s, u and q."""
    print(f"\n{place} {with_roles(prompt)}")
    for i, text in enumerate(texts, 1):
        print(f"  {i}  " + printable(text).replace("\n", "\n     "))
    if len(texts) < 2:
        print("  (the model always gives the same reply: skipped)")
        return "s"
    while True:
        print("best to worst (e.g. 2 1 4 3, ties 2=1 4 3; s skip, u undo, q save and quit): ", end="")
        sys.stdout.flush()
        try:
            line = sys.stdin.readline()
        except UnicodeDecodeError:
            print("  the input is not UTF-8")
            continue
        answer = line.strip().lower() if line else "q"
        if answer in ("s", "u", "q"):
            return answer
        try:
            return rankings.parse_order(answer, len(texts))
        except ValueError as error:
            print(f"  {error}")
