"""Problems whose solution takes several steps, each of them small enough to be checked.

    Ada has 17 eggs. Ada buys 5 more. Ada gives 4 to Bill. How many eggs does Ada have now?
    a Ada buys 5 more b Ada gives 4 to Bill. a Ada buys 5 more: Ada + 17+5:7+5=12,1+1=2,22. b Ada gives 4 to
    Bill: Ada gave, Bill got, so Ada gave - 22-4:12-4=8,2-1=1,18. #### 18

First comes a plan, the story with a letter for each sentence. So what comes next is known by its letter, and
each step repeats it before it computes: to find one's place in the story by the sentence last done goes wrong
where two sentences are alike. A story of two steps may have as many sentences as one of five, so it is where
the plan ends that a solution ends, not behind so many steps. What is to be compared is written side by side.
The answer stands behind ####, as in GSM8K (Cobbe et al. 2021)."""

import re
from string import ascii_lowercase

from tinyllm.world import numbers, people
from tinyllm.world.task import Task
from tools.protocol import Call, render_call, render_result

GOODS = "eggs coins nuts stones shells pears cups books hats keys cards seeds".split()
HAVE = (
    "{who} has {n} {goods}.",
    "At first {who} has {n} {goods}.",
    "There are {n} {goods} in the bag of {who}.",
)
MORE = (
    "{who} buys {n} more.",
    "{who} finds {n} more.",
    "{other} gives {n} to {who}.",
    "{who} gets {n} from {other}.",
)
FEWER = (
    "{who} loses {n} of them.",
    "{who} sells {n} of them.",
    "{who} gives {n} to {other}.",
    "{other} takes {n}.",
)
MEANWHILE = ("It begins to rain.", "{who} sits down.", "{other} sings a song.", "The day is warm.")
HOW_MANY = (
    "How many {goods} does {who} have now?",
    "How many {goods} are left for {who}?",
    "What is the number of {goods} that {who} has in the end?",
    "How many {goods} has {who} then?",
)

ORDERS = {
    "tall": ("taller", "tallest", "shortest"),
    "old": ("older", "oldest", "youngest"),
    "fast": ("faster", "fastest", "slowest"),
    "strong": ("stronger", "strongest", "weakest"),
}
WHICH = (
    "Which step is wrong? {}",
    "Find the step that is wrong. {}",
    "One step is not right. Which? {}",
    "Where is the mistake? {}",
)

BOXES = (
    "Use the calculator. {a} boxes hold {b} {goods} each. How many {goods} are that?",
    "Use the calculator. {who} packs {b} {goods} into each of {a} boxes. How many {goods} are packed?",
    "Use the calculator. How many {goods} are in {a} boxes of {b}?",
    "Use the calculator. {who} has {a} rows of {b} {goods}. How many {goods} has {who}?",
)
THEN = {"": "", "+": " Then {c} more come.", "-": " But {c} are bad and do not count."}

KINDS = {"story": 11, "order": 8, "truth": 5, "mistake": 5, "calculator": 4}
LOGIC = ("order", "truth", "mistake")
STEPS = {2: 1, 3: 1, 4: 2}


def story(dice, steps):
    """-> Task: a number that changes `steps` times, from 0 to 200."""
    who, other = dice.few(people.NAMES, 2)
    goods = dice.pick(GOODS)
    total = dice.number(2, 99)
    told, chain, key = [dice.pick(HAVE).format(who=who, n=total, goods=goods)], [], str(total)
    idle = dice.number(0, 6 - steps)              # sentences in which nothing happens
    for happens in dice.shuffled([True] * steps + [False] * idle):
        if not happens:
            told.append(dice.pick(MEANWHILE).format(who=who, other=other))
            chain.append(told[-1])
            continue
        sign = "-" if total > 101 or total > 1 and dice.pick((True, False)) else "+"
        n = dice.number(1, min(total, 99)) if sign == "-" else dice.number(1, min(200 - total, 99))
        told.append(dice.pick(MORE if sign == "+" else FEWER).format(who=who, other=other, n=n))
        step = f"{total}{sign}{n}:{numbers.columns(total, sign, n)}."
        chain.append(f"{told[-1][:-1]}: {effect(told[-1], who, sign)} {step}")
        total, key = total + n if sign == "+" else total - n, f"{key}{sign}{n}"
    plan = lettered(sentence[:-1] for sentence in told[1:])
    told.append(dice.pick(HOW_MANY).format(who=who, goods=goods))
    solution = f"{plan}. {lettered(chain)} #### {total}"
    return Task("story", " ".join(told), solution, str(total), f"chain {key}")


def lettered(items):
    return " ".join(f"{letter} {item}" for letter, item in zip(ascii_lowercase, items))


def effect(sentence, who, sign):
    """What a sentence means to the one who is asked about: "Ada +". Of a gift, what it means to both comes
    first: "Bill gave, Ada got, so Ada got +"."""
    giver, _, gift = sentence.partition(" gives ")
    if not gift:
        return f"{who} {sign}"
    taker = gift.removesuffix(".").split()[-1]
    return f"{giver} gave, {taker} got, so {who} {'gave' if who == giver else 'got'} {sign}"


def follows(text):
    """Whether every step of a solution is right, and each goes on from the last."""
    steps = re.findall(r"(\d+)([+-])(\d+):([^.]*)\.", text.partition("####")[0])
    last = None
    for a, sign, b, line in steps:
        negative = sign == "-" and int(a) < int(b)
        if last not in (None, a) or negative or line != numbers.columns(int(a), sign, int(b)):
            return False
        last = line.split(",")[-1]
    return last is not None and last == (re.search(r"#### *(\d+)", text) or [None, None])[1]


def rank(dice):
    """-> (names from the first to the last, neighbours among them in any order, relation, what is told)."""
    row = dice.few(people.NAMES, dice.number(3, 4))
    relation = dice.pick(tuple(ORDERS))
    pairs = dice.shuffled(list(zip(row, row[1:])))
    return row, pairs, relation, " ".join(f"{a} is {ORDERS[relation][0]} than {b}." for a, b in pairs)


def order(dice):
    """Who is last is found by going down from pair to pair. Who is first stands under nobody: of those who
    stand over somebody, one after the other, the first who is not among those who stand under somebody."""
    row, pairs, relation, told = rank(dice)
    first = dice.pick((True, False))
    question, answer = f"Who is the {ORDERS[relation][1 if first else 2]}?", row[0 if first else -1]
    over, under = zip(*pairs)
    tried = over[: over.index(row[0]) + 1]
    marks = lettered(f"{name} {'under' if name in under else 'not'}" for name in tried)
    way = f"{', '.join(f'{name} under' for name in under)}. {marks}" if first else down(row, over[0])
    return Task("order", f"{told} {question}", f"{pairwise(pairs)}. {way} #### {answer}", answer,
                f"order {relation} {told}")  # fmt: skip


def truth(dice):
    """From the one, pair by pair, down to the other, or to an end."""
    row, pairs, relation, told = rank(dice)
    one, two = dice.few(row, 2)
    question = f"Compared with {two}, is {one} {ORDERS[relation][0]}?"
    answer = "yes" if row.index(one) < row.index(two) else "no"
    chain = f"{pairwise(pairs)}. {two} goal. {down(row, one, two)}"
    return Task("truth", f"{told} {question}", f"{chain} #### {answer}", answer, f"order {relation} {told}")


def pairwise(pairs):
    return lettered(map(" ".join, pairs))


def down(row, start, goal=None):
    """Pair by pair from `start` to the goal, where it lies below, else to the end of the row."""
    path = row[row.index(start) :]
    path, last = (path[: path.index(goal) + 1], "goal") if goal in path else (path, "ends")
    return ", ".join(map(" ".join, [*zip(path, path[1:]), (path[-1], last)]))


def mistake(dice):
    """What is claimed gets a mark, then the sum is worked out, and by its mark the claim is found again to
    be compared: looked for behind its sum, it is taken for the result that has just been found there."""
    sums = [numbers.operands(dice) for _ in range(dice.number(2, 3))]
    wrong = dice.number(1, len(sums))
    said, chain = [], []
    for i, (a, sign, b) in enumerate(sums, 1):
        columns = numbers.columns(a, sign, b)
        true = int(columns.split(",")[-1])
        slips = (-10, -2, -1, 1, 2, 10) if true >= 10 else (1, 2, 10)
        claim = true + dice.pick(slips) if i == wrong else true
        said.append(f"{i}) {a}{sign}{b}={claim}.")
        if i <= wrong:
            found = f"{true}-{claim}:{numbers.compare(true, claim)} {'right' if i < wrong else 'wrong'}"
            chain.append(f"{said[-1][:-1]}, said {claim}. {a}{sign}{b}:{columns}, said {claim}. {found}.")
    question, solution = dice.pick(WHICH).format(" ".join(said)), " ".join([*chain, f"#### {wrong}"])
    return Task("mistake", question, solution, str(wrong), f"mistake {' '.join(said)}")


def calculator(dice):
    """A product, perhaps with something added or taken away: by a call of the calculator."""
    who, goods, then = dice.pick(people.NAMES), dice.pick(GOODS), dice.pick(tuple(THEN))
    a, b = dice.number(2, 99), dice.number(2, 99)
    c = dice.number(1, min(99, a * b))
    ask, question = dice.pick(BOXES).split(" How", 1)
    text = f"{ask}{THEN[then]} How{question}".format(a=a, b=b, c=c, who=who, goods=goods)
    expression = f"{a}*{b}{then}{c if then else ''}"
    result = a * b + {"": 0, "+": c, "-": -c}[then]
    return Task("calculator", text, render_call(Call("calculator", {"expression": expression})), str(result),
                f"calculator {expression}", turns=(
                    {"role": "tool", "content": render_result(result)},
                    {"role": "assistant", "content": f"#### {result}"}))  # fmt: skip


def problem(dice, world, split, kind=None, steps=None):
    """One task of a split, of any kind unless one is named; a story of 2 to 4 steps unless it is said."""
    kind = kind or dice.among(KINDS)
    make = {"order": order, "truth": truth, "mistake": mistake, "calculator": calculator}.get(kind)
    make = make or (lambda dice: story(dice, steps or dice.among(STEPS)))
    return world.held(dice, split, lambda dice: ((task := make(dice)), task.key))[0]
