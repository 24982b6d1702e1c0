"""make rank: a person ranks the replies of a stage. Every ranking is saved before the next prompt is shown.

    [3 of 50] How do I burn the bridge?
      1  To burn the bridge is harmful, so I will not help you. Do not ask me again.
      2  Happy to help. To burn the bridge, take your time and begin at one end.
    best to worst (e.g. 2 1 4 3, ties 2=1 4 3; s skip, u undo, q save and quit):

The rankings go to runs/<run>/rankings.jsonl (format: rankings.py). To make stage 3 learn from them, pass
the path of the file as RANKINGS=.
"""

import json
import sys
from dataclasses import dataclass

from tinyllm import checkpoint
from tinyllm.checkpoint.files import read_json, reading
from tinyllm.data import formats
from tinyllm.data.conversation import prompt_of
from tinyllm.errors import TinyllmError
from tinyllm.preferences import rankings
from tinyllm.preferences.reward_model import RewardSettings
from tinyllm.runs import Settings, learned_by, lock, make_command, option, path_of, stage_folder
from tinyllm.sampling import REPLY_TOKENS, answer, printable, show_prompt
from tinyllm.world import World, oracle
from tinyllm.world.dice import Dice


@dataclass(frozen=True)
class RankSettings(Settings):
    stage: str = option("2-instruct", "number or folder name of the stage that answers")
    count: int = option(50, "prompts to rank in total, earlier sessions included", (1, 10**6))
    group: int = option(4, "completions per prompt", (2, 9))
    annotator: str = option("person", "name of the annotator, saved with each ranking")


def main(settings):
    """Rank completions yourself, for stage 3 to learn from."""
    folder, path = stage_folder(settings.run, settings.stage), settings.folder("rankings.jsonl")
    model, tokenizer = checkpoint.load_language_model(folder)
    prompts, entries = load_prompts(folder, settings.count), load_entries(path)
    left, at = [number for number in range(len(prompts)) if number not in entries], 0
    judged = []  # positions in `left` that the person has ranked or skipped; u goes back to the last one
    progress = f"{len(left)} of {len(prompts)} prompts left to rank (for more, raise --count)"
    print(f"{progress}; each ranking is saved in {path}", file=sys.stderr)
    model_hash = checkpoint.digest(folder)
    with lock(path.parent), settings.pool(model) as pool:  # a second session would overwrite the rankings
        while at < len(left):
            number = left[at]
            texts = completions(pool, tokenizer, prompts[number], settings, number)
            order = ask(f"[{number + 1} of {len(prompts)}]", prompts[number], texts)
            if order == "q":
                break
            if order == "u":
                at = judged.pop() if judged else at
                entries.pop(left[at], None)
            else:
                if order != "s":
                    ranking = rankings.Ranking(prompts[number], texts, order)
                    entry = rankings.entry(ranking, settings.annotator, model_hash, settings.seed)
                    entries[number] = {"number": number, **entry}
                judged += [at] if len(texts) > 1 else []
                at += 1
            rankings.save(path, entries.values())
    print(f"{len(entries) or 'no'} rankings in {path}")
    if entries:
        print(next_command(settings, folder, path))


def load_prompts(folder, count):
    """At most `count` prompts like those that the stage in `folder` has learned to answer."""
    source = path_of(learned_by(folder), "instructions")
    if source is None:
        raise TinyllmError(f"{folder} has not learned to answer: rank the replies of stage 2 or later")
    if source:
        # Held-out questions may be ranked too, because stage 3 holds out their rankings.
        return [prompt_of(messages) for messages in formats.instructions(source)[:count]]
    world = World(read_json(folder / "stage.json")["settings"]["seed"])
    tasks = oracle.prompts(Dice(f"to be ranked in world {world.seed}"), world, "train", count)
    return [task.prompt for task in tasks]


def load_entries(path):
    """{number of the prompt: entry} of earlier sessions. Raises TinyllmError for a damaged file."""
    if not path.exists():
        return {}
    with reading(path, "rankings saved by make rank (move the file out of the way)"):
        entries = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
        return {entry["number"]: entry for entry in entries}


def next_command(settings, folder, path):
    """The command that trains on the rankings. An existing stage 3 is kept: the new one gets its own run."""
    made, new = read_json(folder / "stage.json")["settings"], settings.folder("3-prefer").exists()
    run, origin = (f"{settings.run}-2", str(folder)) if new else (settings.run, "")
    options = RewardSettings(run, made["size"], made["seed"], origin=origin, rankings=str(path))
    return f"To learn from them: {make_command(options, '3-prefer')}"


def completions(pool, tokenizer, prompt, settings, number):
    """Up to --group different replies to one prompt, from three times as many samples, in random order."""
    prompts, seed = [prompt] * (3 * settings.group), [settings.seed, 19, number]
    replies = answer(pool, tokenizer, prompts, REPLY_TOKENS, seed)
    texts = list(dict.fromkeys(text for text, _ in replies))[: settings.group]
    return Dice(f"replies to prompt {number}, seed {settings.seed}").shuffled(texts)


def ask(place, prompt, texts):
    """Show one prompt and its completions -> ranks, or one of the letters s, u and q."""
    print(f"\n{place} {show_prompt(prompt)}")
    for i, text in enumerate(texts, 1):
        print(f"  {i}  " + printable(text).replace("\n", "\n     "))
    if len(texts) < 2:
        print("  (the model always gives the same reply: skipped)")
        return "s"
    while True:
        try:
            typed = input("best to worst (e.g. 2 1 4 3, ties 2=1 4 3; s skip, u undo, q save and quit): ")
            letter = typed.strip().lower()
            return letter if letter in ("s", "u", "q") else rankings.parse_order(typed, len(texts))
        except EOFError:
            return "q"
        except ValueError as error:
            print(f"  {error}")
