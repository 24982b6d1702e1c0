"""Short stories about who is where and who holds what. The last sentence follows from the earlier ones.

To predict it, a model must keep track of the people, the places and the one object in the story:

    Ada was in the barn. Ada found the key in the barn. Bill came and Ada gave the key to Bill. Bill
    walked from the barn to the mill. Now Bill has the key in the mill.
"""

from tinyllm.world.people import NAMES
from tinyllm.world.wordings import WORDINGS

TEMPLATES = WORDINGS["stories"]
THINGS, PLACES = TEMPLATES["things"], TEMPLATES["places"]


def story(dice):
    """-> (sentences, key). The key is the end of the story: who has which thing where."""
    who, other = dice.sample(NAMES, 2)
    thing = dice.choice(THINGS)
    place, *next_places = dice.sample(PLACES, 3)
    sentences = [
        dice.choice(TEMPLATES["arrive"]).format(who=who, place=place),
        dice.choice(TEMPLATES["find"]).format(who=who, place=place, thing=thing),
    ]
    for next_place in next_places[: dice.integer(0, 2)]:
        if dice.choice((True, False)):
            sentences.append(dice.choice(TEMPLATES["give"]).format(who=who, other=other, thing=thing))
            who, other = other, who
        old, place = place, next_place
        sentences.append(dice.choice(TEMPLATES["go"]).format(who=who, old=old, place=place, thing=thing))
    sentences.append(TEMPLATES["end"].format(who=who, place=place, thing=thing))
    return sentences, f"story {who} {thing} {place}"


def document(dice, world, split):
    """The text of one story."""
    return " ".join(world.draw_in_split(dice, split, story)[0])
