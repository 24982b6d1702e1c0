"""Manners, measured on held-out prompts of five kinds (world/manners.py), greedily; and against stage 2, both
at temperature 1, by the true judge."""

from tinyllm import checkpoint, reward, rollouts
from tinyllm.conversation import prompt, read
from tinyllm.intervals import mean, share
from tinyllm.interviews import asked, hits_by_kind
from tinyllm.parallel import Team
from tinyllm.world import manners
from tinyllm.world.dice import Dice

EACH, DUELS, ROOM = 200, 60, 64
KEYS = {"harm": "refuses_unsafe", "harm_by_object": "refuses_by_object", "harmless": "answers_harmless",
        "stranger": "admits_unknown"}


def prompts(world, split, count, what):
    """-> {kind: `count` tasks}. `what` makes others of the same kinds."""
    dice = lambda kind: Dice(f"{what} {kind} {split} of world {world.seed}")
    return {kind: manners.prompts(dice(kind), world, split, count, kind) for kind in manners.KINDS}


def judged(team, tokenizer, world, split, count):
    """Replies to `count` prompts of each kind -> {kind: share right}, share polite, the replies."""
    tasks = prompts(world, split, count, "manners")
    said = asked(team, tokenizer, sum(tasks.values(), []), ROOM)
    return hits_by_kind(tasks, said), share(sum(manners.is_polite(text) for text, _ in said), len(said)), said


def behaviour(team, tokenizer, world):
    right, polite, said = judged(team, tokenizer, world, "test", EACH)
    return {"polite": polite, **{key: right[kind] for kind, key in KEYS.items()},
            "mean_words": mean([len(text.split()) for text, _ in said])}


def worst(team, tokenizer, world, count):
    """On `count` prompts of each kind for validation -> (the least figure of all, all of them, the mean of
    the kinds)."""
    right, polite, _ = judged(team, tokenizer, world, "val", count)
    found = {kind: figure["value"] for kind, figure in (right | {"polite": polite}).items()}
    return min(found.values()), found, sum(found[kind] for kind in right) / len(right)


def win_rate(tasks, ours, theirs):
    """How often the true judge prefers our reply to theirs, ties left out."""
    pairs = [(manners.verdict(task, a), manners.verdict(task, b)) for task, a, b in zip(tasks, ours, theirs)]
    return share(sum(a > b for a, b in pairs), sum(a != b for a, b in pairs))


def duel(team, reference, tokenizer, world):
    """Against the reference (a Team), reply by reply."""
    tasks = sum(prompts(world, "test", DUELS, "duels").values(), [])
    asked = [prompt(tokenizer, task.prompt) for task in tasks]
    ours, theirs = (rollouts.collect(who, tokenizer, asked, ROOM, [side]) for side, who in
                    ((21, team), (22, reference)))
    texts = [[read(tokenizer, ids) for ids in side.written] for side in (ours, theirs)]
    _, _, away, _ = rollouts.against(team, reference, ours.ids, ours.targets)
    return {"win_rate": win_rate(tasks, *texts),
            "kl_nats_per_reply": mean((away * ours.mask).sum(axis=1).tolist())}


def best_of_8(reference, judge, tokenizer, world):
    """What the judge is worth without any training: the best of eight replies, against the first of eight
    others."""
    tasks = sum(prompts(world, "test", DUELS, "duels").values(), [])
    asked = [prompt(tokenizer, task.prompt) for task in tasks]
    first = rollouts.collect(reference, tokenizer, asked, ROOM, [22]).written
    many = [rollouts.collect(reference, tokenizer, asked, ROOM, [23, i]).written for i in range(8)]
    rows = [p + w for written in many for p, w in zip(asked, written)]
    best = judge.scores(rows).reshape(8, -1).argmax(axis=0)
    chosen = [read(tokenizer, many[take][i]) for i, take in enumerate(best)]
    return {"best_of_8_win_rate": win_rate(tasks, chosen, [read(tokenizer, ids) for ids in first])}


def run(team, tokenizer, world, folder):
    """All of them for the stage in `folder`; what is measured against stage 2 from stage 3 on."""
    found, start = behaviour(team, tokenizer, world), folder.parent / "2-instruct"
    if folder.name[0] in "34" and (start / checkpoint.WEIGHTS).exists():
        with Team.of(checkpoint.load(start)[0], team.workers) as reference:
            found |= duel(team, reference, tokenizer, world)
            if (folder / "reward" / checkpoint.WEIGHTS).exists():
                with reward.Judge(folder / "reward", team.workers) as judge:
                    found |= reward.accuracy(judge, tokenizer, world)
                    found |= best_of_8(reference, judge, tokenizer, world)
    return found
