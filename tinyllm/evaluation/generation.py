"""Held-out questions, asked: instructions, problems, calls. A reply is right or it is not (world/task.py)."""

import re
from collections import Counter

import numpy as np

from tinyllm.calls import CallMask
from tinyllm.conversation import prompt, read
from tinyllm.corpus import opening
from tinyllm.intervals import share
from tinyllm.sampling import generate
from tinyllm.world.instructions import MEASURED
from tinyllm.world.problems import LOGIC, follows
from tinyllm.world.task import final_answer, right
from tools.builtin import TOOLS
from tools.protocol import Call, parse, render_result
from tools.registry import Registry

# Tokens that a reply may have: more than any solution has.
ROOM = {"story": 235, "longer": 270, "order": 40, "truth": 48, "mistake": 235}


def write_replies(replica, job):
    """Replies to prompts, up to a token of `stop` where one comes in time -> lists of ids."""
    prompts, tokens, stop, temperature, seed, masked_by = job
    mask = masked_by and CallMask(masked_by, Registry(TOOLS), [tokens] * len(prompts), only=True)
    rng = np.random.default_rng(seed)
    found = generate(replica.model, prompts, tokens, rng, temperature, stop=stop, mask=mask)
    return [new for new, _ in found]


def replies(team, tokenizer, prompts, tokens, temperature=0.0, masked=False, line=False):
    """Prompts (lists of ids) -> [(text, whether it ended by itself)], in their order. With `line`, the end of
    a line ends a reply too."""
    end, order = tokenizer.special["<|end|>"], sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    parts = [part.tolist() for part in np.array_split(order, 2 * -(-len(order) // 256) or 1) if part.size]
    stop = [end, *tokenizer.encode("\n" * line)]
    jobs = [([prompts[i] for i in part], tokens, stop, temperature, [11, n], tokenizer if masked else None)
            for n, part in enumerate(parts)]
    found = [None] * len(prompts)
    for part, written in zip(parts, team.run(write_replies, jobs)):
        for i, ids in zip(part, written):
            found[i] = read(tokenizer, ids), ids[-1:] == [end]
    return found


def asked(team, tokenizer, tasks, tokens, **how):
    return replies(team, tokenizer, [prompt(tokenizer, task.prompt) for task in tasks], tokens, **how)


def hits(tasks, said, is_right=right):
    return share(sum(bool(is_right(task, text)) for task, (text, _) in zip(tasks, said)), len(tasks))


def hits_by_kind(tasks, said):
    """{kind: tasks}, and the replies to all of them in that order -> {kind: how many are right}."""
    said = iter(said)
    return {kind: hits(some, [next(said) for _ in some]) for kind, some in tasks.items()}


def solved(task, text):
    return final_answer(text) == task.answer.lower()


def instructions(team, tokenizer, world):
    """Questions whose content was never trained; then in wordings that were never trained; then facts that
    were read but never asked about."""
    kinds = {kind: world.instructions("test", 50, family=kind) for kind in MEASURED}
    tasks = sum(kinds.values(), [])
    said = asked(team, tokenizer, tasks, 64)
    unseen = sum((world.instructions("test", 50, family=kind, unseen=True) for kind in MEASURED), [])
    return {"instruction_exact": hits(tasks, said),
            "fact_questions": facts(team, tokenizer, world),
            "unseen_wording": hits(unseen, asked(team, tokenizer, unseen, 64)),
            "stops": share(sum(ended for _, ended in said), len(said)),
            "instruction_kinds": hits_by_kind(kinds, said)}


def facts(team, tokenizer, world):
    tasks = world.questions()
    return hits(tasks, asked(team, tokenizer, tasks, 40))


def reasoning(team, tokenizer, world, votes):
    """Problems of several steps, with their chain of thought, and without: the answer at once."""
    tasks = world.problems("test", 200, kind="story")
    longer = world.problems("test", 200, kind="story", steps=5)
    said = asked(team, tokenizer, tasks, ROOM["story"])
    at_once = tokenizer.encode(" ####")               # without a space: that belongs to the token behind it
    direct = replies(team, tokenizer, [prompt(tokenizer, task.prompt) + at_once for task in tasks], 5)
    results = {"reasoning_direct": hits(tasks, [(f"#### {text}", ended) for text, ended in direct], solved),
               "reasoning_exact": hits(tasks, said, solved),
               "chain_valid": hits(tasks, said, lambda task, text: solved(task, text) and follows(text)),
               "reasoning_five_steps": hits(longer, asked(team, tokenizer, longer, ROOM["longer"]), solved),
               "reasoning_majority8": None}
    if votes:
        many = asked(team, tokenizer, tasks * 8, ROOM["story"], temperature=0.7)
        ballots = [[final_answer(text) for text, _ in many[i::len(tasks)]] for i in range(len(tasks))]
        results["reasoning_majority8"] = share(
            sum(majority(ballot) == task.answer.lower() for task, ballot in zip(tasks, ballots)), len(tasks))
    logic = {kind: world.problems("test", 70, kind=kind) for kind in LOGIC}
    said = {kind: asked(team, tokenizer, tasks, ROOM[kind]) for kind, tasks in logic.items()}
    results["logic_exact"] = hits(sum(logic.values(), []), sum(said.values(), []), solved)
    results["logic_kinds"] = {kind: hits(logic[kind], said[kind], solved) for kind in LOGIC}
    return results


def majority(answers):
    """The answer given most often (Wang et al. 2022, "Self-Consistency"), the first of several."""
    given = [answer for answer in answers if answer is not None]
    return max(given, key=given.count, default=None)


def calling(team, tokenizer, world):
    """Problems for the calculator: is the call valid, and is the answer right, once the tool has run?"""
    registry, tasks = Registry(TOOLS), world.problems("test", 200, kind="calculator")
    done = with_tools(team, tokenizer, [task.prompt for task in tasks], registry, 60, rounds=2)
    masked = asked(team, tokenizer, tasks, 120, masked=True)
    final = [(messages[-1]["content"], True) for messages in done]
    return {"calculator_exact": hits(tasks, final, solved),
            "tool_call_valid": share(sum(valid(m[1]["content"], registry) for m in done), len(tasks)),
            "tool_call_valid_masked": share(sum(valid(text, registry) for text, _ in masked), len(tasks))}


def with_tools(team, tokenizer, conversations, registry, tokens, rounds=8):
    """Conversations -> the same with the model's replies; where a reply calls a tool, it runs, and the model
    goes on with the result."""
    done = [list(messages) for messages in conversations]
    open_ = list(range(len(done)))
    for left in range(rounds, 0, -1):
        said = replies(team, tokenizer, [prompt(tokenizer, done[i]) for i in open_], tokens) if open_ else []
        for i, (text, _) in zip(open_, said):
            done[i].append({"role": "assistant", "content": text})
        open_ = [i for i, (text, _) in zip(open_, said) if left > 1 and valid(text, registry)]
        for i in open_:
            calls = [part for part in parse(done[i][-1]["content"]) if isinstance(part, Call)]
            done[i].append({"role": "tool", "content": render_result(registry.execute(calls)[0].value)})
    return done


def own_problems(team, tokenizer, conversations, most=200):
    """Problems of a file that were held out: right answers, and how often the commonest answer is right."""
    wanted = [final_answer(messages[-1]["content"]) for messages in conversations[:most]]
    questions = [messages[:1] for messages in conversations[:most]]
    done = with_tools(team, tokenizer, questions, Registry(TOOLS), 200)
    said = [final_answer(messages[-1]["content"]) for messages in done]
    common = max(wanted, key=wanted.count, default=None)
    return {"own_problems_exact": share(sum(map(str.__eq__, map(str, said), map(str, wanted))), len(wanted)),
            "own_problems_majority": share(wanted.count(common), len(wanted))}


def valid(text, registry):
    """Whether a reply holds one call, of a tool that there is, with arguments that fit it."""
    calls = [part for part in parse(text) if isinstance(part, Call)]
    return len(calls) == 1 and registry.accepts(calls[0])


def say(run, messages):
    """A conversation's first question and what the model answers now."""
    question = messages[:1]
    ((text, _),) = replies(run.team, run.tokenizer, [prompt(run.tokenizer, question)], 200)
    return f"{question[0]['content']}\n{text}"


def few_shot(team, tokenizer, world):
    """The same as plain text, after worked examples: for a model that only continues. Three for instructions,
    one of two steps for problems, which is what the context has room for."""
    shown = {kind: world.instructions("val", 3, family=kind) for kind in MEASURED}
    shown["story"] = world.problems("val", 1, kind="story", steps=2)

    def continued(tasks, tokens):
        lines = lambda kind: "".join(f"{task.question} {task.reply}\n" for task in shown[kind])
        prompts = [opening(tokenizer, lines(task.kind) + task.question) for task in tasks]
        return replies(team, tokenizer, prompts, tokens, line=True)

    tasks = sum((world.instructions("test", 50, family=kind) for kind in MEASURED), [])
    stories = world.problems("test", 200, kind="story")
    return {"instruction_few_shot": hits(tasks, continued(tasks, 64)),
            "reasoning_few_shot": hits(stories, continued(stories, ROOM["story"]), solved)}


def shortcuts(world):
    """What a guesser gets: always the commonest answer of that kind; or all numbers of a problem added up."""
    stories = world.problems("test", 200, kind="story")
    longer = world.problems("test", 200, kind="story", steps=5)
    groups = {"instruction_exact": [world.instructions("test", 50, family=kind) for kind in MEASURED],
              "fact_questions": [world.questions()],
              "reasoning_exact": [stories], "reasoning_five_steps": [longer],
              "logic_exact": [world.problems("test", 70, kind=kind) for kind in LOGIC]}
    rate = lambda tasks: Counter(task.answer for task in tasks).most_common(1)[0][1] / len(tasks)
    found = {f"{key}_majority": sum(map(rate, parts)) / len(parts) for key, parts in groups.items()}
    added = lambda task: str(sum(map(int, re.findall(r"\d+", task.question)))) == task.answer
    return found | {"fact_cloze_chance": 1 / 12, "story_cloze_chance": 1 / 12,
                    "reasoning_exact_add_all": sum(map(added, stories)) / len(stories),
                    "reasoning_five_steps_add_all": sum(map(added, longer)) / len(longer)}


def run(team, tokenizer, world, votes):
    """All of them. `votes`: the majority of eight samples too, which takes as long as all the others."""
    results = instructions(team, tokenizer, world) | reasoning(team, tokenizer, world, votes)
    results |= calling(team, tokenizer, world) | few_shot(team, tokenizer, world)
    return results | {"shortcuts": shortcuts(world)}
