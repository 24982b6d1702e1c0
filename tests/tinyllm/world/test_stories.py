"""stories: the last sentence follows from the others, and stories with the same end have the same key.

Otherwise no model could predict the last sentence, or training could show the ends of exam stories.
"""

import re

from hypothesis import given
from hypothesis import strategies as st

from tinyllm.world import World, people, split_of, stories
from tinyllm.world.dice import Dice

WORLD = World(0)
seeds = st.integers(0, 10_000)


def end_of(sentences):
    """(holder, thing, place) at the end of a story, worked out from all its sentences but the last."""
    holder, thing, place_of = None, None, {}
    for sentence in sentences:
        words = sentence.strip(".").split()
        names = [word for word in words if word in people.NAMES]
        places = [word for word in words if word in stories.PLACES]
        things = [word for word in words if word in stories.THINGS]
        if "gave" in words:
            giver, holder = holder, next(name for name in names if name != holder)
            place_of[holder] = place_of[giver]
        else:
            place_of[names[0]] = places[-1]  # the mill in "from the barn to the mill"
            if things:
                holder, thing = names[0], things[0]
    return holder, thing, place_of[holder]


@given(seeds)
def test_the_last_sentence_and_the_key_follow_from_the_other_sentences(seed):
    sentences, key = stories.story(Dice(str(seed)))
    who, thing, place = end_of(sentences[:-1])
    assert sentences[-1] == f"Now {who} has the {thing} in the {place}."
    assert key == f"story {who} {thing} {place}"


def test_the_last_sentence_of_the_example_in_the_docstring_follows_from_the_others():
    example = re.findall(r"[A-Z][^.]+\.", " ".join(stories.__doc__.split(":\n")[1].split()))
    assert example[-1] == "Now {} has the {} in the {}.".format(*end_of(example[:-1]))


def test_a_thing_moves_at_most_twice_and_half_of_the_moves_follow_a_gift():
    dice = Dice("stories")
    texts = [stories.story(dice)[0] for _ in range(900)]
    gifts = [sum(" gave " in sentence for sentence in sentences) for sentences in texts]
    moves = [len(sentences) - 3 - gift for sentences, gift in zip(texts, gifts)]
    assert all(250 < moves.count(n) < 350 for n in (0, 1, 2))
    assert all(gift <= move for gift, move in zip(gifts, moves)) and 0.44 < sum(gifts) / sum(moves) < 0.56


@given(seeds, st.sampled_from(["train", "val", "test"]))
def test_a_document_is_a_story_of_its_split(seed, split):
    text = stories.document(Dice(str(seed)), WORLD, split)
    who, thing, place = re.search(r"Now (\w+) has the (\w+) in the (\w+)\.$", text).groups()
    assert split_of(f"story {who} {thing} {place}") == split


def test_stories_can_end_in_many_ways():
    assert len(people.NAMES) * len(stories.THINGS) * len(stories.PLACES) > 20_000
