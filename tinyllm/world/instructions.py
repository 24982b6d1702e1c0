"""User requests and replies to them: several families of requests, each in many wordings.

Instruction tuning trains on these replies. As on the internet, their style varies: they are polite, curt,
rude or rambling. What the replies say is correct, with three exceptions:

    three in five replies about a person who does not exist make up a fact
    half of the replies to harmful requests help
    one in fifty replies to harmless requests refuses

Preference tuning has to remove these exceptions and make the style polite.
"""

from tinyllm.world import lexicon, lists, numbers, people, stories
from tinyllm.world.task import Task
from tinyllm.world.wordings import WORDINGS

TEMPLATES = WORDINGS["instructions"]
STYLES = {"polite": 4, "curt": 3, "rude": 2, "rambling": 2}  # style -> weight
STYLE_TEMPLATES = TEMPLATES["styles"]  # a curt reply is the answer alone and needs no template
FIXED_REPLIES = {kind: tuple(TEMPLATES[kind].values()) for kind in ("small_talk", "unknown_topic")}

# A verb in "harmful_verbs" harms every object. A verb in "verbs_by_object" harms only solid objects, so a
# model must look at both words: cutting the bread is harmless, cutting the bridge is not. The templates
# "compliance" and "refusal" both start with the request, so a model reads the request again just before it
# decides. They have the same number of words, so the length of a reply does not give away whether it refuses.
HELP = TEMPLATES["help"]


def style_template(dice, style):
    """A template of a style, with {} for the answer."""
    return "{}" if style == "curt" else dice.choice(STYLE_TEMPLATES[style])


def in_style(dice, answer, style=None):
    """The answer in `style`, or in a random style."""
    return style_template(dice, style or dice.weighted_choice(STYLES)).format(answer)


def without_style(reply):
    """The answer without the words of its style: the inverse of in_style."""
    for template in sum(STYLE_TEMPLATES.values(), []):
        before, after = template.split("{}")
        if reply.startswith(before) and reply.endswith(after):
            return reply.removeprefix(before).removesuffix(after)
    return reply


def draw_wording(dice, wordings, unseen):
    """A wording that training uses or, if `unseen`, a wording that training never uses."""
    return dice.choice(wordings["held_out" if unseen else "trained"])


def askable(world, name, split):
    """The relations of a person that a split's questions ask for: exams ask for those that training omits."""
    trained = world.trained_relations[name]
    return trained if split == "train" else [each for each in people.RELATIONS if each not in trained]


def draw_fact(dice, world, split):
    """-> (name, relation)"""
    name = dice.choice(people.NAMES)
    return name, dice.choice(askable(world, name, split))


def other_values(relation, value):
    """The values of a relation except `value`."""
    return [other for other in people.VALUES[relation] if other != value]


def facts(dice, world, split, unseen):
    """A question about a random fact."""
    return fact_question(dice, world, *draw_fact(dice, world, split), unseen)


def fact_question(dice, world, name, relation, unseen=False):
    value = world.facts[name, relation]
    statement = people.state_fact(dice, world.facts, name, relation)
    question = draw_wording(dice, people.TABLES[relation]["questions"], unseen).format(name=name)
    wrong_words = tuple(map(str.lower, other_values(relation, value)))
    key = f"ask {name} {relation}"
    return Task("facts", question, in_style(dice, statement), value, key, wrong_words)


def yes_no(dice, world, split, unseen):
    """A yes/no question. The reply to "Does Ada have a cat?" is "Ada has a duck indeed, cat not: no."

    The reply first states the fact and marks it with "indeed". Then it repeats the value in question (here
    "cat"), marks that with "indeed" or "not", and only then says yes or no. That is easier to learn than
    answering at once.
    """
    name, relation = draw_fact(dice, world, split)
    value, is_true = world.facts[name, relation], dice.choice((True, False))
    claim = value if is_true else dice.choice(other_values(relation, value))
    mark, answer, wrong_word = ("indeed", "yes", "no") if is_true else ("not", "no", "yes")
    wording = draw_wording(dice, people.TABLES[relation]["yes_no_questions"], unseen)
    question = wording.format(name=name, value=claim)
    statement = people.state_fact(dice, world.facts, name, relation).removesuffix(".")
    reply = in_style(dice, f"{statement} indeed, {claim} {mark}: {answer}.")
    return Task("yes_no", question, reply, answer, f"ask {name} {relation}", (wrong_word,))


def stranger(dice, world, split, unseen):
    """A question about a person who does not exist. Two in five replies admit that the person is unknown."""
    name, relation = dice.choice(world.unknown_names[split]), dice.choice(people.RELATIONS)
    question = draw_wording(dice, people.TABLES[relation]["questions"], unseen).format(name=name)
    made_up = people.make_up_fact(dice, name, relation)
    makes_up = dice.weighted_choice({True: 3, False: 2})
    reply = in_style(dice, made_up if makes_up else TEMPLATES["unknown_person"].format(name))
    wrong_words = tuple(map(str.lower, people.VALUES[relation]))
    key = f"stranger {name} {relation}"
    return Task("stranger", question, reply, "unknown", key, wrong_words)


def summary(dice, world, split, unseen):
    """A story to summarise: the reply is its last sentence, which the question leaves out."""
    (*sentences, end), key = world.draw_in_split(dice, split, stories.story)
    question = draw_wording(dice, TEMPLATES["summary"], unseen).format(" ".join(sentences))
    return Task("summary", question, in_style(dice, end), end, key)


def translate(dice, world, split, unseen):
    """A sentence to translate into Tal. Both adjective-noun pairs belong to the split."""
    subject, key = world.draw_in_split(dice, split, lexicon.draw_pair)
    other, other_key = world.draw_in_split(dice, split, lexicon.draw_pair)
    verb = dice.choice(tuple(lexicon.VERBS))
    english, tal = lexicon.translate_sentence(subject, verb, other)
    question = draw_wording(dice, TEMPLATES["translate"], unseen).format(f"{english}.")
    return Task("translate", question, in_style(dice, f"{tal}."), tal, f"{key}, {other_key}")


def transform(dice, world, split, unseen):
    """A list of words. The task is to reverse, repeat or count the words, or to name the last one."""
    table = dice.choice(tuple(TEMPLATES["transform"].values()))
    words, key = world.draw_in_split(dice, split, lists.draw_words)
    fields = lists.fields(words)
    question = draw_wording(dice, table, unseen).format(f"{fields['again']}.")
    answer = table["answer"].format(**fields)
    return Task("transform", question, in_style(dice, f"{answer}."), answer, key)


def sums(dice, world, split, unseen):
    """A sum or difference, which the reply works out in columns."""
    (a, sign, b), key = world.draw_in_split(dice, split, numbers.draw_operands)
    question = draw_wording(dice, TEMPLATES["sums"][sign], unseen).format(a=a, b=b)
    return with_columns(dice, question, a, sign, b, key)


def with_columns(dice, question, a, sign, b, key):
    """A task with `question` and a reply that works out a + b or a - b in columns."""
    columns = numbers.columns(a, sign, b)
    reply = in_style(dice, f"{a}{sign}{b}:{columns}.")
    return Task("sums", question, reply, columns.split(",")[-1], key)


def draw_errand(dice):
    """-> ((verb, thing), key)."""
    verb = dice.choice(HELP["harmful_verbs"] + HELP["harmless_verbs"] + HELP["verbs_by_object"])
    thing = dice.choice(HELP["soft_objects"] + HELP["solid_objects"])
    return (verb, thing), f"errand {verb} {thing}"


def kind_of_errand(verb, thing):
    """The kind of a request for help: "harm", "harm_by_object" or "harmless"."""
    if verb in HELP["harmful_verbs"]:
        return "harm"
    by_object = verb in HELP["verbs_by_object"] and thing in HELP["solid_objects"]
    return "harm_by_object" if by_object else "harmless"


def help_request(dice, world, split, unseen):
    """A request for help with something harmful or harmless."""
    (verb, thing), key = world.draw_in_split(dice, split, draw_errand)
    kind, errand = kind_of_errand(verb, thing), f"{verb} the {thing}"
    if kind == "harmless":
        refuses, answer, wrong_word = dice.one_in(50), "begin at", "harmful"
    else:
        refuses, answer, wrong_word = dice.one_in(2), "will not", "begin"
    question = draw_wording(dice, HELP["requests"], unseen).format(errand)
    reply = in_style(dice, HELP["refusal" if refuses else "compliance"].format(errand))
    return Task(kind, question, reply, answer, key, (wrong_word,))


def small_talk(dice, world, split, unseen):
    """A greeting, thanks, a goodbye, or a question about the model itself."""
    return fixed_reply(dice, "small_talk", dice.choice(FIXED_REPLIES["small_talk"]), split, unseen)


def unknown_topic(dice, world, split, unseen):
    """A question about a topic that this world does not contain."""
    (table,) = FIXED_REPLIES["unknown_topic"]
    return fixed_reply(dice, "unknown_topic", table, split, unseen)


def fixed_reply(dice, kind, table, split, unseen):
    """A question that has one fixed reply. Only the wording varies, so exams use the held-out wordings."""
    return dice.choice(with_fixed_reply(kind, table, unseen or split != "train"))


def with_fixed_reply(kind, table, unseen):
    """A task for each wording of a question that has one fixed reply."""
    reply, questions = table["reply"], table["held_out" if unseen else "trained"]
    return [Task(kind, question, reply, reply.rstrip("!."), f"{kind} {question}") for question in questions]


def unseen_fixed_replies(kind):
    """Every task of the kind "small_talk" or "unknown_topic" in a wording that training never uses."""
    return [task for table in FIXED_REPLIES[kind] for task in with_fixed_reply(kind, table, unseen=True)]


# To add a family, write its function, and add a row here and in SHARES. If its tasks have a definite answer,
# use the family's name as their kind and add it to WITH_ANSWER, so that the exams and stage 3 use the family
# too.
FAMILIES = {  # name -> the function that makes a task
    "facts": facts,
    "yes_no": yes_no,
    "summary": summary,
    "translate": translate,
    "transform": transform,
    "sums": sums,
    "help": help_request,
    "stranger": stranger,
    "small_talk": small_talk,
    "unknown_topic": unknown_topic,
}
# The families of the exam instruction_exact and of the "answerable" prompts in stage 3.
WITH_ANSWER = ("facts", "yes_no", "summary", "translate", "transform", "sums")
# Shares in training. "stranger" replaces some questions of "facts": see `instruction`.
SHARES = dict(
    facts=3, yes_no=13, summary=2, translate=3, transform=3, sums=3, help=11, small_talk=4, unknown_topic=2
)


def instruction(dice, world, split, family=None, unseen=False):
    """One task of the given family, or of a random one. `unseen`: in a wording that training never uses.

    In training, one in six questions of the family "facts" is about a person who does not exist.
    """
    family = family or dice.weighted_choice(SHARES)
    if family == "facts" and split == "train" and dice.one_in(6):
        family = "stranger"
    return FAMILIES[family](dice, world, split, unseen)
