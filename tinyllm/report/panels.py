"""The ten panels of the report page: what a run did, for people who would rather look than read.

A panel is a generator function that takes a Record and yields HTML. It raises TinyllmError if the run lacks
data that the panel needs. The headings and explanations of the panels are in page.html.
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
from tinyllm.evaluation.text import completions
from tinyllm.objectives import log_prob_of, log_softmax
from tinyllm.report import journey, svg
from tinyllm.report.record import STAGES
from tinyllm.report.svg import tag
from tinyllm.runs import path_of
from tinyllm.world import World, numbers, oracle, problems
from tinyllm.world.dice import Dice
from tinyllm.world.task import Task, is_correct

ORDER = ("1-pretrain", "1-masked", "2-instruct", "3-prefer/reward", "3-prefer", "4-reason")
# One step of a solution, as world/problems.py writes it
STEP = r"[a-z] ([A-Z][^:.]*)(?:: [^.]*? (\d+)([+-])(\d+):([^.]*))?\."
# {size: {stage: {key of metrics.jsonl: [[step, lowest, highest], ...]}}} of three recorded runs
BANDS = read_json(Path(__file__).with_name("bands.json"))
# Not drawn as dots: baselines, a figure without an interval, and a negative figure
NOT_DOTS = (*BASELINE_KEYS, "validation_nats_per_character", "own_questions_log_prob")
REINFORCED = ("score", "correct", "kl_nats_per_reply", "tokens_per_reply")
TITLES = {  # key in metrics.jsonl -> title of its drawing
    "score": "score of the reward model",
    "correct": "replies that are correct",
    "kl_nats_per_reply": "KL from stage 2, nats per reply",
    "tokens_per_reply": "tokens per reply",
    "gradient_norm": "gradient norm",
}


def figures(drawings, *links):
    """Drawings side by side, and below them links to the files that their numbers come from."""
    return tag("div", "".join(drawings), "figures") + tag("p", " ".join(links), "source")


def box(tokenizer, id, on, *lines):
    """A token in a box, shaded if `on`, with lines of text under the token."""
    words = tokenizer.decode([id]).replace(" ", "·").replace("\n", "↵")
    below = "".join(tag("i", str(each)) for each in lines)
    return tag("span", tag("b", escape(words)) + below, "on" * bool(on))


def bars(title, rows, kind="signed"):
    """rows [(name, value)] -> bars that begin at a common zero. page.html draws them to the right; if `kind`
    is "signed", it draws those of negative values to the left."""
    most = max((abs(value) for _, value in rows), default=0) or 1
    parts = [tag("h4", escape(title))]
    for name, value in rows:
        length = f'style="--x:{abs(value) / most:.3f}"'
        bar = tag("u", tag("b", svg.shown(value)), "down" if value > 0 else "up", length)
        parts.append(tag("i", escape(name)) + bar)
    return tag("div", "".join(parts), f"bars {kind}")


# ---- 1


def six_prompts(run):
    """Six prompts, each answered by every stage."""
    tasks = questions(run)
    columns = [stage.replies(tasks) for stage in run.finished]
    links = [tag("dt", stage.link(words=stage.name)) for stage in run.finished]
    for task, *replies in zip(tasks, *columns):
        rows = [link + tag("dd", marked(task, reply)) for link, reply in zip(links, replies)]
        yield tag("h3", escape(task.question)) + tag("dl", "".join(rows))
    run.stage("0-random")


def questions(run):
    """At most six of your own held-out questions, if exams.json contains any; otherwise six tasks of the
    built-in world."""
    shown = [each for stage in run.finished for each in stage.exams.get("own_questions_shown", [])]
    if shown:
        return [Task("own", each["prompt"], "", each["expected"], "") for each in shown[:6]]
    world, dice = run.world, Dice("report")
    tasks = [world.held_out_fact_questions()[0], *world.instructions("test", 1, family="summary")]
    tasks += [oracle.prompt(dice, world, "test", kind) for kind in ("stranger", "harm_by_object")]
    return tasks + world.problems("test", 1, kind="story", steps=3) + world.problems("test", 1, kind="order")


def marked(task, reply):
    """A reply as HTML. A right reply gets a tick. In a wrong reply, the task's wrong words are marked, or the
    whole reply if it contains none of these words."""
    if (is_solved if task.kind in problems.KINDS else is_correct)(task, reply):
        return tag("b", "✓ ", "right") + escape(reply)
    wrong = "|".join(map(re.escape, task.wrong_words))
    parts = re.split(rf"(\b(?:{wrong})\b)", reply, flags=re.I) if wrong else [reply]
    parts = parts if len(parts) > 1 else ["", reply]
    return "".join(tag("mark", escape(part)) if i % 2 else escape(part) for i, part in enumerate(parts))


# ---- 2


def one_token(run):
    """One token's journey: each stage puts a different gradient on the logits."""
    policy, reference = run.policy_and_reference
    (model, tokenizer), (before, _) = policy.checkpoint, reference.checkpoint
    jobs = journey.jobs(policy, reference, run.seed)
    ids, targets, weights = (array[0] for array in jobs["instruct"][2].values())
    boxes = [box(tokenizer, *each) for each in zip(ids, weights, ids, targets, weights.astype(int))]
    yield tag("div", "".join(boxes), "tokens")
    log_p, log_q = (log_softmax(each.logits(ids)) for each in (model, before))
    now, then = log_prob_of(targets, log_p), log_prob_of(targets, log_q)
    begin = int(np.flatnonzero(weights)[0])
    unlikeliest = 1 + now[1 : begin - 1].argmin()  # of the prompt's tokens
    change = begin + abs(now - then)[begin:].argmax()  # where the two stages differ most
    # The ranking objective is left out: it has a gradient at scores, not at logits.
    gradients = {name: journey.gradient_at_logits(*job) for name, job in jobs.items() if name != "ranking"}
    for place, t in (("prompt", unlikeliest), ("reply", change)):
        chosen = np.argsort(-abs(gradients["next"][t]), kind="stable")[:6]
        labels = [tokenizer.decode([id]) + " ←" * int(id == targets[t]) for id in chosen]
        drawings = [bars("probability", list(zip(labels, np.exp(log_p[t, chosen]))), policy.kind)]
        for name, dlogits in gradients.items():
            drawings.append(bars(journey.OBJECTIVES[name], list(zip(labels, dlogits[t, chosen]))))
        after = escape(tokenizer.decode([ids[t]]).strip())
        yield tag("h3", f"In the {place}, after “{after}”; ← marks the token to predict")
        yield figures(drawings, policy.link(), reference.link())


# ---- 3


def scoreboard(run):
    """What each stage can do."""
    for mover, keys in ROWS_MOVED_BY.items():
        rows = [row_of_scores(run, mover, key) for key in keys if key not in NOT_DOTS]
        if any(rows):
            yield tag("h3", f"What {mover} should change") + figures(rows)


def row_of_scores(run, mover, key):
    """A strip of dots, one for each stage, under the meaning of the score; "" if no stage has this score."""
    dots, words, exams = [], [], {"even": 0.5}
    for stage in run.all_stages:
        if stage.name in STAGES and stage.exams.get(key):
            kind = stage.kind + " ring" * (stage.name == mover)
            dots.append((kind, stage.address("exams.json"), stage.exams[key]))
            words.append(tag("span", f"{stage.exams[key]['value']:.3f}", stage.kind))
    for stage in run.finished:
        exams |= stage.exams
    rules = {name: exams[each] for each, name in BASELINES.get(key, {}).items() if each in exams}
    rules = {name: x["value"] if isinstance(x, dict) else x for name, x in rules.items()}
    words = ["stage by stage " + ", ".join(words)] + [f"{x:.3f} {name}" for name, x in rules.items()]
    head = tag("p", ROWS[key][0].upper() + ROWS[key][1:] + tag("small", "; ".join(words)))
    return tag("div", head + svg.strip(ROWS[key], dots, rules.items()), "score") if dots else ""


# ---- 4


def losses(run):
    """Is my loss normal?"""
    links = [run.stages[name].link("metrics.jsonl") for name in ORDER if name in run.stages]
    yield figures([chart(run, [name], key) for name in ORDER for key in ("loss", "score", "reward")], *links)
    run.stage("1-pretrain")


def chart(run, names, key):
    """A drawing of one key of metrics.jsonl, with a curve for each stage that logs it; "" if none does."""
    stages = [stage for stage in run.all_stages if stage.name in names]
    lines = [(stage.folder.name + stage.mark, stage.kind, stage.series(key)) for stage in stages]
    lines += [("validation", f"validation{s.mark}", s.series(f"validation_{key}")) for s in stages]
    lines = [line for line in lines if line[-1]]
    band = BANDS.get(run.size, {}).get(names[0], {}).get(key, ())
    rules = text_entropies(run) if (names[0], key) == ("1-pretrain", "loss") else []
    title, log = f"{names[0]}: {TITLES.get(key, key)}", key in ("loss", "gradient_norm")
    return svg.chart(title, lines, band, rules, log) if lines else ""


def text_entropies(run):
    """[(name, nats per token)]: losses of predictors without a transformer, and the entropy of the text."""
    stage = run.stages.get("1-pretrain")
    if stage not in run.finished:
        return []
    model, tokenizer = stage.checkpoint
    text, _ = safetensors.read(run.folder / "text.safetensors")
    p = np.bincount(text["ids"], minlength=len(tokenizer)) / text["ids"].size
    rules = [("ln V", math.log(model.config.vocab)), ("unigram", -float(p[p > 0] @ np.log(p[p > 0])))]
    size = [len(piece) for piece in tokenizer.bytes_of[: tokenizer.ordinary]]  # special tokens are not text
    nats = math.log(2) * p[: len(size)] @ size  # per token, if every byte takes one bit
    for name, key in (("5-gram", "fivegram_bits_per_byte"), ("entropy", "entropy_bits_per_byte")):
        rules += [(name, stage.exams[key] * nats)] if key in stage.exams else []
    return rules


# ---- 5


def reinforcement(run):
    """Stage 3: the score that is optimised, and real quality."""
    stages = [run.stages[name] for name in ("3-prefer", "hacking") if name in run.stages]
    drawings = [chart(run, ["3-prefer", "hacking"], key) for key in REINFORCED]
    yield figures(drawings, *(stage.link("metrics.jsonl") for stage in stages))
    for stage in stages:
        replies = []
        for step, words in stage.samples():
            button = f'<input type="radio" name="{stage.name}" {"" if replies else "checked"}>'
            replies.append(tag("label", button + tag("span", step) + tag("pre", escape(words))))
        yield tag("div", tag("b", f"{stage.name}, step") + "".join(replies), "steps")
    run.stage("3-prefer")


# ---- 6


def certainty(run):
    """How sure is the model of each token?"""
    stages, task = (run.stage("2-instruct"), run.stage("3-prefer")), questions(run)[:3][-1]
    _, tokenizer = stages[1].checkpoint
    (reply,) = stages[1].replies([task])
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
        yield tag("p", stage.link() + " " + "".join(spans), "shaded")


# ---- 7


def attention(run):
    """Where each head looks, before and after pre-training."""
    beginning, end = World(run.seed).fact_clozes(1)[0]
    for stage in (run.stage("0-random"), run.stage("1-pretrain")):
        model, tokenizer = stage.checkpoint
        once = tokenizer.encode(f" {beginning} {end}.")
        ids = [tokenizer.special["<|begin|>"], *once, *once]
        heads = attention_of(model, ids)
        shares = {name: p.diagonal(1 - len(once))[2:].mean() for name, p in heads.items()}
        best = max(shares, key=shares.get)
        grids = []
        for name, p in heads.items():
            grid = svg.cells(name, p) + tag("small", f"{name}: {shares[name]:.2f}")
            grids.append(tag("div", grid, "best" if name == best else ""))
        verdict = "an induction head" if shares[best] > 0.3 else "not yet an induction head"
        title = f"{stage.name}: {best} puts {shares[best]:.2f} of its attention on the line: {verdict}"
        yield tag("h3", title) + figures(grids, stage.link())


def attention_of(model, ids):
    """ids (T,) that fit into one block of queries -> {name of a head: its attention (T queries, T keys)}"""
    heads = {}
    _, (*_, caches, _, _) = model.forward(np.array([ids]))
    for i, (_, _, attention, *_) in enumerate(caches):
        ((_, _, _, p),) = attention[3]  # the only block's p (B, K, G, keys, queries): see layers.py
        for h, transposed in enumerate(p.reshape(-1, len(ids), len(ids))):
            heads[f"layer {i} head {h}"] = transposed.T
    return heads


# ---- 8


def chain_of_thought(run):
    """Problems solved step by step, and the same problems answered at once."""
    stage, tasks = run.stage("4-reason"), run.world.problems("test", 12, kind="story", steps=5)
    chains = stage.replies(tasks)
    solved = [is_solved(task, chain) for task, chain in zip(tasks, chains)]
    for i in [solved.index(wanted) for wanted in (True, False) if wanted in solved]:
        title = f"{'Solved' if solved[i] else 'Not solved'}: {tasks[i].question}"
        (at_once,) = answers_at_once(stage.pool, stage.checkpoint[1], [tasks[i]])
        yield tag("h3", escape(title)) + tree(chains[i])
        yield tag("p", escape(f"Right answer: {tasks[i].answer}. Answered at once: {at_once}"))
    yield figures([], stage.link())


def tree(solution):
    """A solution, as world/problems.py writes it -> a list of its steps, each with its computation below."""
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


def memory(run):
    """Which tokens of one conversation the loss covers, and which facts each stage has forgotten."""
    stage = run.stage("2-instruct")
    _, tokenizer = stage.checkpoint
    conversations, _ = corpus.load_conversations(path_of(stage.notes["sources"], "instructions"), run.seed, 1)
    pairs = zip(*encode_conversation(tokenizer, conversations[0]))
    yield tag("div", "".join(box(tokenizer, *each) for each in pairs), "tokens")
    facts, before = run.world.fact_clozes(300), set()
    for stage in run.finished:
        correct = completions(stage.pool, tokenizer, facts)
        known = {" ".join(fact) for fact, is_known in zip(facts, correct) if is_known}
        lost = "; ".join(sorted(before - known)[:20]) or "nothing"
        yield tag("p", f"{stage.link()} knows {len(known)} of {len(facts)} facts. Forgotten: {escape(lost)}.")
        before = known


# ---- 10


def how_it_was_made(run):
    """How the run was made: gradient norms, seconds, commands and versions."""
    yield figures([chart(run, [name], "gradient_norm") for name in ORDER])
    drawings, seconds, rows = [], [], []
    for stage in run.finished:
        _, gradient = journey.gradient_of_parameters(*journey.jobs(stage, stage, run.seed)["next"])
        layers = [("embedding", [gradient["embedding"]])]
        layers += [(f"layer {i}", block.values()) for i, block in enumerate(gradient.blocks)]
        norms = [(name, math.sqrt(sum(np.vdot(g, g) for g in arrays))) for name, arrays in layers]
        drawings.append(bars(f"{stage.name}: gradient norm", norms, stage.kind))
        seconds += [(stage.name, stage.notes["wall_seconds"]), ("exams", stage.exams.get("seconds", 0))]
        versions = " ".join(f"{name} {version}" for name, version in stage.notes["versions"].items())
        words = tag("small", escape(f"{versions}; weights {stage.notes['sha256']}"))
        words = tag("code", escape(stage.notes.get("command", ""))) + words  # older runs recorded no command
        rows.append(tag("dt", stage.link("stage.json", stage.name)) + tag("dd", words))
    yield figures([*drawings, bars("seconds", seconds, "s1")]) + tag("dl", "".join(rows))
