"""Problems that take several steps, with chains of thought in which every step can be checked.

    Ada has 17 eggs. Ada buys 5 more. Ada gives 4 to Bill. How many eggs does Ada have now?

    a Ada buys 5 more b Ada gives 4 to Bill. a Ada buys 5 more: Ada + 17+5:7+5=12,1+1=2,22. b Ada
    gives 4 to Bill: Ada gave, Bill got, so Ada gave - 22-4:12-4=8,2-1=1,18. #### 18

The solution of a story starts with a plan: all sentences except the first and the question, each with a
letter. Each step then repeats its letter and sentence before it computes. Without letters, a small model
loses its place in a story where two sentences are alike. Every answer follows ####, as in GSM8K
(Cobbe et al. 2021).
"""

import re
from string import ascii_lowercase

from tinyllm.world import numbers, people
from tinyllm.world.task import Task
from tinyllm.world.wordings import WORDINGS
from tools import builtin
from tools.protocol import Call, render_call, render_result

TEMPLATES = WORDINGS["problems"]
COMPARISONS = TEMPLATES["comparisons"]
KINDS = {"story": 10, "order": 16, "truth": 12, "mistake": 4, "calculator": 6}  # kind -> weight
STEPS = {2: 1, 3: 1, 4: 2}  # number of steps in a story -> weight


def with_letters(items):
    """["Ada buys 5 more", "Bill sits down"] -> "a Ada buys 5 more b Bill sits down"."""
    return " ".join(f"{letter} {item}" for letter, item in zip(ascii_lowercase, items))


def story(dice, steps=None):
    """A story about a number from 0 to 200 that changes `steps` times.

    Some sentences change nothing. So a story of two steps may have as many sentences as a story of five
    steps, and a model must follow its plan to the end: it cannot learn to stop after a fixed number of
    sentences.
    """
    steps = steps or dice.weighted_choice(STEPS)
    templates = TEMPLATES["story"]
    who, other = dice.sample(people.NAMES, 2)
    goods, total = dice.choice(TEMPLATES["goods"]), dice.integer(2, 99)
    # The templates have no full stops, because the plan repeats the sentences without them.
    start = dice.choice(templates["start"]).format(who=who, n=total, goods=goods)
    sentences, chain, key = [], [], f"chain {total}"
    for changes in dice.shuffled([True] * steps + [False] * dice.integer(0, 6 - steps)):
        sign, n = draw_change(dice, total) if changes else ("no_change", 0)
        sentence = dice.choice(templates[sign]).format(who=who, other=other, n=n)
        sentences.append(sentence)
        if changes:
            columns = numbers.columns(total, sign, n)
            sentence += f": {effect(sentence, who, sign)} {total}{sign}{n}:{columns}"
            key += f"{sign}{n}"
            total = int(columns.split(",")[-1])
        chain.append(f"{sentence}.")
    question = dice.choice(templates["questions"]).format(who=who, goods=goods)
    solution = f"{with_letters(sentences)}. {with_letters(chain)} #### {total}"
    return Task("story", f"{'. '.join([start, *sentences])}. {question}", solution, str(total), key)


def draw_change(dice, total):
    """-> (sign, n): n is from 1 to 99, and the new total from 0 to 200."""
    sign = "-" if total > 101 else "+" if total < 2 else dice.choice("-+")
    most = total if sign == "-" else 200 - total
    return sign, dice.integer(1, min(most, 99))


def effect(sentence, who, sign):
    """The effect of a sentence (without its full stop) on `who`, such as "Ada +".

    If the sentence says "gives", the effect on both people comes first: "Bill gave, Ada got, so Ada got +".
    """
    giver, _, gift = sentence.partition(" gives ")
    if not gift:
        return f"{who} {sign}"
    taker = gift.split()[-1]
    return f"{giver} gave, {taker} got, so {who} {'gave' if who == giver else 'got'} {sign}"


def steps_are_correct(solution):
    """Whether every sum is correct and starts from the previous result, and whether the answer after #### is
    the last result."""
    total = None
    steps = re.findall(r"(\d+)([+-])(\d+):([^.]*)\.", solution.partition("####")[0])
    for a, sign, b, columns in steps:
        if total not in (None, a) or columns != numbers.columns(int(a), sign, int(b)):
            return False
        total = columns.split(",")[-1]
    answer = re.search(r"#### *(\d+)", solution)
    return answer is not None and answer[1] == total


def draw_ranking(dice):
    """Three or four people, ranked by a relation such as "tall".

    -> (names from first to last, relation, pairs of neighbours in random order)
    """
    ranking = dice.sample(people.NAMES, dice.integer(3, 4))
    relation = dice.choice(tuple(COMPARISONS))
    return ranking, relation, dice.shuffled(list(zip(ranking, ranking[1:])))


def about_ranking(kind, relation, pairs, question, search, answer):
    """A question about a ranking, after one premise for each pair of neighbours. The solution lists the
    pairs, then searches them for the answer."""
    premises = " ".join(COMPARISONS[relation]["premise"].format(a=a, b=b) for a, b in pairs)
    solution = f"{with_letters(map(' '.join, pairs))}. {search} #### {answer}"
    return Task(kind, f"{premises} {question}", solution, answer, f"order {relation} {premises}")


def walk_down(ranking, start, goal=None):
    """A walk down the ranking from `start` to `goal`, such as "Ada Bill, Bill Cora, Cora goal".

    If the goal is not below the start, the walk goes to the end of the ranking. Its last item is then a name
    and "ends", such as "Cora ends".
    """
    path, mark = ranking[ranking.index(start) :], "ends"
    if goal in path:
        path, mark = path[: path.index(goal) + 1], "goal"
    return ", ".join(f"{a} {b}" for a, b in zip(path, [*path[1:], mark]))


def order(dice):
    """Who is the tallest, or the shortest?

    To find the last person, the solution walks down the pairs to the end. Nobody is above the first person.
    To find this person, the solution lists the lower name of each pair, then tries the upper names until it
    comes to one that is not in the list.
    """
    ranking, relation, pairs = draw_ranking(dice)
    upper, lower = zip(*pairs)
    if dice.choice((True, False)):
        place, answer = "first", ranking[0]
        tried = upper[: upper.index(answer) + 1]
        marks = with_letters(f"{name} {'under' if name in lower else 'not'}" for name in tried)
        search = f"{', '.join(f'{name} under' for name in lower)}. {marks}"
    else:
        place, answer = "last", ranking[-1]
        search = walk_down(ranking, upper[0])
    return about_ranking("order", relation, pairs, COMPARISONS[relation][place], search, answer)


def truth(dice):
    """Is A taller than B? The solution walks down from A until it meets B or the end."""
    ranking, relation, pairs = draw_ranking(dice)
    name, goal = dice.sample(ranking, 2)
    question = COMPARISONS[relation]["truth"].format(a=name, b=goal)
    search = f"{goal} goal. {walk_down(ranking, name, goal)}"
    answer = "yes" if ranking.index(name) < ranking.index(goal) else "no"
    return about_ranking("truth", relation, pairs, question, search, answer)


def mistake(dice):
    """Which of several sums is wrong?

    For each sum up to the wrong one, the solution marks the claimed result with "said", works the sum out,
    repeats the claim with its mark, and compares. Without the mark, a small model confuses the claim with
    its own result.
    """
    sums = [numbers.draw_operands(dice)[0] for _ in range(dice.integer(2, 3))]
    wrong = dice.integer(1, len(sums))
    claims, chain = [], []
    for i, (a, sign, b) in enumerate(sums, 1):
        columns = numbers.columns(a, sign, b)
        result = claim = int(columns.split(",")[-1])
        if i == wrong:
            claim += dice.choice((-10, -2, -1, 1, 2, 10) if result >= 10 else (1, 2, 10))
        claims.append(f"{i}) {a}{sign}{b}={claim}")
        verdict = "wrong" if i == wrong else "right"
        comparison = f"{result}-{claim}:{numbers.compare(result, claim)} {verdict}"
        working = f"{a}{sign}{b}:{columns}"
        chain.append(f"{claims[-1]}, said {claim}. {working}, said {claim}. {comparison}.")
    listing = " ".join(f"{claim}." for claim in claims)
    question = dice.choice(TEMPLATES["mistake"]["questions"]).format(listing)
    solution = f"{' '.join(chain[:wrong])} #### {wrong}"
    return Task("mistake", question, solution, str(wrong), f"mistake {listing}")


def calculator(dice, unseen):
    """A product to compute with the calculator, perhaps plus or minus a third number. The question is a story
    or contains an expression. If it contains an expression and asks for the calculator, the expression may
    also be a sum or difference.
    """
    templates = TEMPLATES["calculator"]
    who, goods = dice.choice(people.NAMES), dice.choice(TEMPLATES["goods"])
    sign = dice.choice(tuple(templates["extra"]))
    a, b = dice.integer(2, 99), dice.integer(2, 99)
    c = dice.integer(1, min(99, a * b))
    expression = f"{a}*{b}{sign}{c if sign else ''}"
    form = dice.weighted_choice({"questions": 3, "bare": 2, "products": 1})
    if form == "questions":
        extra = templates["extra"][sign].format(c=c)
        question = dice.choice(templates[form]).format(a=a, b=b, who=who, goods=goods, extra=extra)
    else:
        if form == "bare" and dice.choice((True, False)):
            expression = "{}{}{}".format(*numbers.draw_operands(dice)[0])
        question = dice.choice(templates[form]["held_out" if unseen else "trained"]).format(expression)
    result, call = builtin.calculator(expression), render_call(Call("calculator", {"expression": expression}))
    tool_turn = {"role": "tool", "content": render_result(result)}
    answer_turn = {"role": "assistant", "content": f"#### {result}"}
    key, later_turns = f"calculator {expression}", (tool_turn, answer_turn)
    return Task("calculator", question, call, str(result), key, later_turns=later_turns)


MAKERS = {"story": story, "order": order, "truth": truth, "mistake": mistake, "calculator": calculator}


def problem(dice, world, split, kind=None, steps=None):
    """One task of a split, of the given kind or of a random one. Only stories use `steps`."""
    kind = kind or dice.weighted_choice(KINDS)
    arguments = {"story": {"steps": steps}, "calculator": {"unseen": split == "test"}}.get(kind, {})

    def draw(dice):
        task = MAKERS[kind](dice, **arguments)
        return task, task.key

    return world.draw_in_split(dice, split, draw)[0]
