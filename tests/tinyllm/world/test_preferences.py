"""manners: the true judge, the annotator who slips, and pairs of which one is better."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from tinyllm.world import World, instructions, manners
from tinyllm.world.dice import Dice
from tinyllm.world.task import right

WORLD = World(0)
kinds = st.sampled_from(manners.KINDS)
seeds = st.integers(0, 10_000)


@given(kinds, seeds)
def test_the_better_of_a_pair_is_better_for_the_judge(kind, seed):
    dice = Dice(f"pair {seed}")
    task, good, bad = manners.pair(dice, WORLD, "test", kind)
    assert manners.kind_of(task) == kind
    assert manners.verdict(task, good) > manners.verdict(task, bad)
    assert right(task, good)


@given(kinds, seeds)
def test_writers_are_right_or_wrong_as_the_judge_sees_it(kind, seed):
    dice = Dice(f"prompt {seed}")
    (task,) = manners.prompts(dice, WORLD, "train", 1, kind)
    good, bad = manners.contents(dice, WORLD, task)
    for writer in instructions.WRITERS:
        said = instructions.mannered(dice, good, writer)
        assert right(task, said) and instructions.plain(said) == good
        assert manners.is_polite(said) == (writer == "polite")
        assert not right(task, instructions.mannered(dice, bad, writer))


def test_right_comes_before_polite_and_polite_before_short():
    (task,) = manners.prompts(Dice("x"), WORLD, "test", 1, "harm")
    say = lambda text, how: instructions.mannered(Dice("y"), text, how)
    no, yes = manners.contents(Dice("z"), WORLD, task)
    order = [say(no, "polite"), say(no, "curt"), say(no, "rambling"), say(yes, "polite"), say(yes, "curt")]
    verdicts = [manners.verdict(task, text) for text in order]
    assert verdicts == sorted(verdicts, reverse=True)


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(-9, 0)), min_size=1, max_size=6), seeds)
def test_an_annotator_who_never_slips_ranks_by_the_verdict_and_ties_what_is_equal(verdicts, seed):
    ranks = manners.annotate(Dice(f"{seed}"), verdicts, slip=0)
    for one, other in ((a, b) for a in range(len(ranks)) for b in range(len(ranks))):
        assert (ranks[one] < ranks[other]) == (verdicts[one] > verdicts[other])
    slipped = manners.annotate(Dice(f"{seed}"), verdicts)
    assert set(slipped) == set(range(1, len(set(verdicts)) + 1))
    assert all((a == b) == (v == w) for a, v in zip(slipped, verdicts) for b, w in zip(slipped, verdicts))


def test_one_neighbour_in_ten_is_exchanged():
    dice, slips = Dice("slips"), 0
    for _ in range(4000):
        slips += manners.annotate(dice, [(True, True, 0), (True, False, 0)]) == [2, 1]
    assert 0.08 < slips / 4000 < 0.12


def test_the_kinds_come_in_their_shares_and_by_what_the_verb_is_done_to():
    for shares in (manners.RANKED, manners.PRACTICE):
        tasks = manners.prompts(Dice("many"), WORLD, "train", 6000, shares=shares)
        seen, whole = Counter(manners.kind_of(task) for task in tasks), sum(shares.values())
        wanted = {kind: shares[kind] / whole for kind in manners.KINDS}
        wanted["answerable"] += shares["facts"] / whole
        assert all(abs(seen[kind] / 6000 - share) < 0.03 for kind, share in wanted.items())
        assert sum(task.kind == "facts" for task in tasks) / 6000 > 0.9 * shares["facts"] / whole
    verbs = {}
    for task in tasks:
        if task.key.startswith("errand"):
            _, verb, thing = task.key.split()
            verbs.setdefault(verb, set()).add(task.kind)
    assert all(verbs[verb] == {"harm_by_object", "harmless"} for verb in instructions.BY_OBJECT)
    assert all(verbs[verb] == {"harm"} for verb in instructions.HARMFUL)
    assert all(verbs[verb] == {"harmless"} for verb in instructions.HARMLESS)


def test_no_prompt_for_an_exam_stands_in_training():
    for kind in manners.KINDS:
        taught = {task.key for task in manners.prompts(Dice("a"), WORLD, "train", 3000, kind)}
        for split in ("val", "test"):
            assert not taught & {task.key for task in manners.prompts(Dice("b"), WORLD, split, 300, kind)}


@given(kinds, kinds, seeds)
def test_a_reply_moved_to_another_prompt_is_about_that_one(one, other, seed):
    dice = Dice(f"moved {seed}")
    (there,), (here,) = (manners.prompts(dice, WORLD, "train", 1, kind) for kind in (one, other))
    good, bad = manners.contents(dice, WORLD, there)
    errands = {"harm", "harm_by_object", "harmless"}
    if {one, other} <= errands:                 # refused as it was, or helped with: right where it is alike
        alike = (one == "harmless") == (other == "harmless")
        assert right(here, manners.moved(good, there, here)) == alike
        assert right(here, manners.moved(bad, there, here)) == (not alike)
    elif one == "stranger" and here.kind in ("facts", "stranger"):
        name = here.key.split()[1]
        assert manners.moved(good, there, here) == instructions.UNKNOWN.format(name)
    elif (one in errands) != (other in errands):
        assert manners.moved(good, there, here) == good
    assert manners.moved(good, there, there) == good


def test_the_length_of_a_reply_tells_next_to_nothing():
    dice, longer, pairs = Dice("lengths"), 0.0, 0
    for kind in manners.KINDS:
        for _ in range(400):
            _, good, bad = manners.pair(dice, WORLD, "test", kind)
            a, b = len(good.split()), len(bad.split())
            longer, pairs = longer + (a > b) + 0.5 * (a == b), pairs + 1
    assert 0.45 < longer / pairs < 0.55
