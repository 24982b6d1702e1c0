"""The ten panels of the report page: what a run did, for people who would rather look than read.

A panel is a generator of HTML, panel(run, other): two Records, `other` being the run laid over the first, or
None. It raises TinyllmError if the run lacks the data. page.html has its heading and says how to read it.
"""

import math
import re
from html import escape
from pathlib import Path

import numpy as np

from tinyllm.checkpoint import safetensors
from tinyllm.checkpoint.files import read_json
from tinyllm.data import corpus
from tinyllm.data.conversation import encode_conversation, encode_prompt
from tinyllm.evaluation.generation import answers_at_once, is_solved
from tinyllm.evaluation.scoreboard import BASELINE_KEYS, BASELINES, ROWS, ROWS_MOVED_BY
from tinyllm.objectives import log_prob_of, log_softmax
from tinyllm.report import journey, svg
from tinyllm.report.svg import tag
from tinyllm.runs import path_of
from tinyllm.sampling import generate_replies
from tinyllm.world import World, numbers, oracle, problems
from tinyllm.world.dice import Dice
from tinyllm.world.task import Task, is_correct

ORDER = ("1-pretrain", "1-masked", "2-instruct", "3-prefer/reward", "3-prefer", "4-reason")
STEP = r"[a-z] ([A-Z][^:.]*)(?:: [^.]*? (\d+)([+-])(\d+):([^.]*))?\."  # of a solution, see world/problems.py
SHORT, LONG = 60, 270  # tokens of a reply, without and with a chain of thought
FILE = "model.safetensors"
BANDS = Path(__file__).with_name("bands.json")  # {size: {stage: {key: [[step, lowest, highest], ...]}}}
REINFORCED = {  # key in metrics.jsonl -> title of the drawing
    "score": "score of the reward model",
    "correct": "replies that are correct",
    "kl_nats_per_reply": "KL from stage 2, nats per reply",
    "tokens_per_reply": "tokens per reply",
}


def figures(drawings, *links):
    """Drawings side by side, and the files that their numbers come from."""
    return tag("div", "".join(drawings), "figures") + tag("p", " ".join(links), "source")


def box(tokenizer, id, on, *lines):
    """A token with lines of text under it, shaded if `on`."""
    words = tokenizer.decode([id]).replace(" ", "·").replace("\n", "↵")
    below = "".join(tag("i", str(each)) for each in lines)
    return tag("span", tag("b", escape(words)) + below, "on" * bool(on))


def bars(title, rows, kind="signed"):
    """rows [(name, value)] as bars from a common zero. page.html draws them from the left, or to both sides
    if kind is "signed"."""
    most = max((abs(value) for _, value in rows), default=0) or 1
    parts = [tag("h4", escape(title))]
    for name, value in rows:
        length = f'style="--x:{abs(value) / most:.3f}"'
        bar = tag("u", tag("b", svg.shown(value)), "down" if value > 0 else "up", length)
        parts.append(tag("i", escape(name)) + bar)
    return tag("div", "".join(parts), f"bars {kind}")


# ---- 1


def six_prompts(run, other):
    """The same six prompts, answered by every stage."""
    tasks = questions(run)
    prompts = [task.prompt for task in tasks]
    texts = [stage.replies(prompts, LONG if stage.kind == "s4" else SHORT) for stage in run.done]
    for i, replies in enumerate(zip(*texts)):
        task, links = tasks[i], [tag("dt", stage.link(FILE, stage.name)) for stage in run.done]
        rows = [link + tag("dd", marked(task, reply)) for link, reply in zip(links, replies)]
        yield tag("h3", escape(task.question)) + tag("dl", "".join(rows))


def questions(run):
    """Six tasks: those shown by the exams on your own questions (perhaps fewer), or of the built-in world."""
    shown = [each for stage in run.finished for each in stage.exams.get("own_questions_shown", [])]
    if shown:
        return [Task("own", each["prompt"], "", each["expected"], "") for each in shown[:6]]
    world, dice = run.world, Dice("report")
    tasks = [world.held_out_fact_questions()[0], *world.instructions("test", 1, family="summary")]
    tasks += [oracle.prompt(dice, world, "test", kind) for kind in ("stranger", "harm_by_object")]
    return tasks + world.problems("test", 1, kind="story", steps=3) + world.problems("test", 1, kind="order")


def marked(task, reply):
    """A reply, with a tick if right; otherwise with its wrong words marked, or all of it if it has none."""
    if (is_solved if task.kind in problems.KINDS else is_correct)(task, reply):
        return tag("b", "✓ ", "right") + escape(reply)
    wrong = "|".join(map(re.escape, task.wrong_words))
    parts = re.split(rf"(\b(?:{wrong})\b)", reply, flags=re.I) if wrong else [reply]
    parts = parts if len(parts) > 1 else ["", reply]
    return "".join(tag("mark", escape(part)) if i % 2 else escape(part) for i, part in enumerate(parts))


# ---- 2


def one_token(run, other):
    """One token's journey: each stage is a different gradient at the logits."""
    policy, reference = run.policy_and_reference
    (model, tokenizer), (before, _) = policy.checkpoint, reference.checkpoint
    jobs = journey.jobs(model, before, tokenizer, run.seed)
    ids, targets, weights = (array[0] for array in jobs["instruct"][2].values())
    boxes = [box(tokenizer, *each) for each in zip(ids, weights, ids, targets, weights.astype(int))]
    yield tag("div", "".join(boxes), "tokens")
    now, then = (log_prob_of(targets, log_softmax(each.logits(ids))) for each in (model, before))
    begin = int(np.flatnonzero(weights)[0])
    surprise = 1 + now[1 : begin - 1].argmin()
    change = begin + abs(now - then)[begin:].argmax()  # where the two stages differ most
    names = [name for name in journey.OBJECTIVES if name != "ranking"]  # its gradient is at the scores
    gradients = {name: journey.gradient_at_logits(*jobs[name]) for name in names}
    p = np.exp(log_softmax(model.logits(ids)))
    for place, t in (("prompt", surprise), ("reply", change)):
        chosen = np.argsort(-abs(gradients["next"][t]), kind="stable")[:6]
        labels = [tokenizer.decode([id]) + " ←" * int(id == targets[t]) for id in chosen]
        drawings = [bars("probability", list(zip(labels, p[t, chosen])), policy.kind)]
        for name, dlogits in gradients.items():
            drawings.append(bars(journey.OBJECTIVES[name], list(zip(labels, dlogits[t, chosen]))))
        after = escape(tokenizer.decode([ids[t]]).strip())
        yield tag("h3", f"In the {place}, after “{after}”; ← marks the token to predict")
        yield figures(drawings, policy.link(FILE), reference.link(FILE))


# ---- 3


def scoreboard(run, other):
    """What each stage can do."""
    for mover, keys in ROWS_MOVED_BY.items():
        rows = [row_of_scores(run, other, mover, key) for key in keys if key not in BASELINE_KEYS]
        if any(rows):
            yield tag("h3", f"Moved by {mover}") + figures(rows)


def row_of_scores(run, other, mover, key):
    """A sentence and a strip of dots; "" if no stage has a result for this exam, or its values have no
    interval or are negative, as log-probs are."""
    dots, words, exams = [], [], {"even": 0.5}
    for stage in run.finished + (other.finished if other else []):
        result, mine = stage.exams.get(key), stage in run.finished
        if isinstance(result, dict) and result["value"] >= 0:
            kind = stage.kind + " ring" * (stage.name == mover) + " other" * (not mine)
            dots.append((kind, stage.address("exams.json"), result))
            words += [tag("span", f"{result['value']:.3f}", stage.kind)] * mine
        exams = exams | stage.exams if mine else exams
    rules = {name: exams[each] for each, name in BASELINES.get(key, {}).items() if each in exams}
    rules = {name: x["value"] if isinstance(x, dict) else x for name, x in rules.items()}
    words = ["stage by stage " + ", ".join(words)] + [f"{x:.3f} {name}" for name, x in rules.items()]
    head = tag("p", ROWS[key][0].upper() + ROWS[key][1:] + tag("small", "; ".join(words)))
    return tag("div", head + svg.strip(ROWS[key], dots, rules.items()), "score") if dots else ""


# ---- 4


def losses(run, other):
    """Is my loss normal?"""
    known = read_json(BANDS).get(run.size, {})
    drawings, stages = [], [run.stages[name] for name in ORDER if name in run.stages]
    for stage in stages:
        for key in ("loss", "score", "reward"):
            lines, rules = curves(run, other, [stage.name], key), []
            if key == "loss":
                lines += curves(run, None, [stage.name], "validation_loss", "validation")
                rules = text_entropies(run, stage) if stage.name == "1-pretrain" else []
            band = known.get(stage.name, {}).get(key, ())
            title = f"{stage.name}: {key}"
            drawings += [svg.chart(title, lines, band, rules, key == "loss")] if lines else []
    yield figures(drawings, *(stage.link("metrics.jsonl") for stage in stages))
    run.stage(ORDER[0])


def curves(run, other, names, key, label=""):
    """[(name, class, points)] for svg.chart: one key of metrics.jsonl, of stages of both runs."""
    return [
        (label or stage.folder.name + mark, (label or stage.kind) + mark, stage.series(key))
        for record, mark in ((run, ""), (other, " other"))
        for name, stage in (record.stages.items() if record else ())
        if name in names and stage.series(key)
    ]


def text_entropies(run, stage):
    """[(name, nats per token)] of predictors of the training text that need no transformer."""
    path = run.folder / "text.safetensors"
    if stage not in run.finished or not path.exists():
        return []
    model, tokenizer = stage.checkpoint
    p = np.bincount(safetensors.read(path)[0]["ids"], minlength=len(tokenizer))
    p = p / p.sum()
    rules = [("ln V", math.log(model.config.vocab)), ("unigram", -float(p[p > 0] @ np.log(p[p > 0])))]
    size = [len(piece) for piece in tokenizer.bytes_of[: tokenizer.ordinary]]  # special tokens are not text
    nats = math.log(2) * p[: len(size)] @ size  # per token, at one bit per byte
    for name, key in (("5-gram", "fivegram_bits_per_byte"), ("entropy", "entropy_bits_per_byte")):
        rules += [(name, stage.exams[key] * nats)] if key in stage.exams else []
    return rules


# ---- 5


def reinforcement(run, other):
    """Stage 3: the score that is optimised, and the quality it stands for."""
    stages = [run.stages[name] for name in ("3-prefer", "hacking") if name in run.stages]
    lines = {title: curves(run, other, ("3-prefer", "hacking"), key) for key, title in REINFORCED.items()}
    drawings = [svg.chart(title, each) for title, each in lines.items() if each]
    yield figures(drawings, *(stage.link("metrics.jsonl") for stage in stages))
    for stage in stages:
        replies = []
        for step, words in stage.samples():
            button = f'<input type="radio" name="{stage.name}" {"" if replies else "checked"}>'
            replies.append(tag("label", button + tag("span", step) + tag("pre", escape(words))))
        yield tag("div", tag("b", f"{stage.name}, step") + "".join(replies), "steps")
    run.stage("3-prefer")


# ---- 6


def certainty(run, other):
    """How sure is the model of each token?"""
    stages, task = (run.stage("2-instruct"), run.stage("3-prefer")), questions(run)[:3][-1]
    _, tokenizer = stages[1].checkpoint
    (reply,) = stages[1].replies([task.prompt], SHORT)
    reply = tokenizer.encode(f" {reply}") + [tokenizer.special["<|end|>"]]
    ids = encode_prompt(tokenizer, task.prompt) + reply
    yield tag("h3", escape(task.question))
    for stage in stages:
        rows = np.exp(log_softmax(stage.checkpoint[0].logits(ids)))[-len(reply) - 1 : -1]
        spans = []
        for id, p in zip(reply, rows):
            five = ", ".join(f"{tokenizer.decode([i])} {p[i]:.3f}" for i in np.argsort(-p)[:5])
            more = f'style="--doubt:{1 - p[id]:.2f}" title="{p[id]:.3f}; likeliest:{escape(five)}"'
            spans.append(tag("span", escape(tokenizer.decode([id])), more=more))
        yield tag("p", stage.link(FILE) + " " + "".join(spans), "shaded")


# ---- 7


def attention(run, other):
    """Where each head looks, before and after pre-training."""
    beginning, end = World(run.seed).fact_clozes(1)[0]
    for stage in (run.stage("0-random"), run.stage("1-pretrain")):
        model, tokenizer = stage.checkpoint
        once = tokenizer.encode(f" {beginning} {end}.")
        ids = [tokenizer.special["<|begin|>"], *once, *once]
        heads = [
            (p.diagonal(1 - len(once))[2:].mean(), f"layer {i} head {h}", p)
            for i, layer in enumerate(attention_of(model, ids))
            for h, p in enumerate(layer)
        ]
        best, where, _ = max(heads, key=lambda head: head[0])
        grids = [svg.cells(name, p) + tag("small", f"{name}: {share:.2f}") for share, name, p in heads]
        grids = [tag("div", grid, "best" if head[0] == best else "") for grid, head in zip(grids, heads)]
        verdict = "an induction head" if best > 0.3 else "not yet an induction head"
        title = f"{stage.name}: {where} puts {best:.2f} on the line: {verdict}"
        yield tag("h3", title) + figures(grids, stage.link(FILE))


def attention_of(model, ids):
    """ids (T,), at most one block of queries -> for each layer, the attention (H, T queries, T keys)."""
    _, (*_, caches, _, _) = model.forward(np.array([ids]))
    # The blocks of layers.attention_forward, whose p is (B, K, G, keys, queries).
    blocks = [attention[3] for _, _, attention, *_ in caches]
    return [p.reshape(-1, len(ids), len(ids)).swapaxes(1, 2) for ((_, _, _, p),) in blocks]


# ---- 8


def chain_of_thought(run, other):
    """Problems, step by step and at once."""
    stage, tasks = run.stage("4-reason"), run.world.problems("test", 12, kind="story", steps=5)
    chains = stage.replies([task.prompt for task in tasks], LONG)
    solved = [is_solved(task, chain) for task, chain in zip(tasks, chains)]
    for i in [solved.index(wanted) for wanted in (True, False) if wanted in solved]:
        title = f"{'Solved' if solved[i] else 'Not solved'}: {tasks[i].question}"
        ((at_once, _),) = answers_at_once(stage.pool, stage.checkpoint[1], [tasks[i]])
        yield tag("h3", escape(title)) + tree(chains[i])
        yield tag("p", escape(f"Right: {tasks[i].answer}. Answered at once: {at_once}"))
    yield figures([], stage.link(FILE))


def tree(solution):
    """A solution in the form of world/problems.py as a list, with the computation of each step below it."""
    chain, _, answer = solution.partition(". ")[2].partition("####")
    branches, total = [], None
    for sentence, a, sign, b, columns in re.findall(STEP, chain):
        leaf = ""
        if a:
            right = total in (None, a) and columns == numbers.columns(int(a), sign, int(b))
            total = columns.split(",")[-1]
            leaf = tag("ul", tag("li", tag("b" if right else "mark", f"{a} {sign} {b}") + f": {columns}"))
        branches.append(tag("li", escape(sentence) + leaf))
    branches.append(tag("li", tag("b" if answer.strip() == total else "mark", escape(answer))))
    return tag("ul", "".join(branches), "tree")


# ---- 9


def memory(run, other):
    """The tokens of one conversation that the loss covers, and the facts that each stage has forgotten."""
    stage = run.stage("2-instruct")
    _, tokenizer = stage.checkpoint
    conversations, _ = corpus.load_conversations(path_of(stage.notes["sources"], "instructions"), run.seed, 1)
    pairs = zip(*encode_conversation(tokenizer, conversations[0]))
    yield tag("div", "".join(box(tokenizer, *each) for each in pairs), "tokens")
    facts, before = run.world.fact_clozes(300), set()
    openings = [corpus.encode_opening(tokenizer, beginning) for beginning, _ in facts]
    for stage in run.finished:
        endings = map(tokenizer.decode, generate_replies(stage.pool, tokenizer, openings, 8))
        known = {f"{a} {b}" for (a, b), ending in zip(facts, endings) if ending.startswith(f" {b}.")}
        lost = "; ".join(sorted(before - known)[:20]) or "nothing"
        yield tag("p", f"{stage.link(FILE)} knows {len(known)} of {len(facts)}. Forgotten: {escape(lost)}.")
        before = known


# ---- 10


def how_it_was_made(run, other):
    """How it was made."""
    charts = [curves(run, other, [name], "gradient_norm") for name in ORDER]
    yield figures([svg.chart(f"{each[0][0]}: gradient norm", each, log=True) for each in charts if each])
    drawings, seconds, rows = [], [], []
    for stage in run.finished:
        model, tokenizer = stage.checkpoint
        job = journey.jobs(model, model, tokenizer, run.seed)["next"]
        _, gradient = journey.gradient_of_parameters(*job)
        layers = {f"layer {i}": block.values() for i, block in enumerate(gradient.blocks)}
        layers = {"embedding": [gradient["embedding"]]} | layers
        norms = [(name, math.sqrt(sum(np.vdot(g, g) for g in layer))) for name, layer in layers.items()]
        drawings.append(bars(f"{stage.name}: gradient norm", norms, stage.kind))
        seconds += [(stage.name, stage.notes["wall_seconds"]), ("exams", stage.exams.get("seconds", 0))]
        versions = " ".join(f"{name} {version}" for name, version in stage.notes["versions"].items())
        words = tag("small", escape(f"{versions}; weights {stage.notes['sha256']}"))
        words = tag("code", escape(stage.command())) + words
        rows.append(tag("dt", stage.link("stage.json", stage.name)) + tag("dd", words))
    yield figures([*drawings, bars("seconds", seconds, "s1")]) + tag("dl", "".join(rows))
