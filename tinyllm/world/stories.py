"""Small stories with a state: who is where, who holds what. The last sentence follows from the others."""

from tinyllm.world.people import NAMES

THINGS = "ball book lamp key drum rope cup hat coin bell map kite ring box doll spoon".split()
PLACES = "kitchen garden market school forest tower cellar barn harbour mill church bakery".split()

GO = ("{who} went to the {place}.", "{who} walked to the {place}.", "Then {who} ran to the {place}.")
TAKE = ("{who} took the {thing}.", "{who} picked up the {thing}.", "There {who} found the {thing}.")
GIVE = ("{who} met {other} and gave the {thing} to {other}.", "{other} came and {who} gave the {thing} to {other}.")
END = "Now {who} has the {thing} in the {place}."


def story(dice):
    """-> (sentences, key): a thing is found, carried, perhaps given away, and ends somewhere.

    The key tells what happened in the end, whatever the wording: who has which thing where.
    """
    who, other = dice.few(NAMES, 2)
    thing, places = dice.pick(THINGS), dice.few(PLACES, 3)
    told = [dice.pick(GO).format(who=who, place=places[0]), dice.pick(TAKE).format(who=who, thing=thing)]
    for place in places[1:1 + dice.number(0, 2)]:
        if dice.pick((True, False)):
            told.append(dice.pick(GIVE).format(who=who, other=other, thing=thing))
            who, other = other, who
        told.append(dice.pick(GO).format(who=who, place=place))
        places[0] = place
    told.append(END.format(who=who, thing=thing, place=places[0]))
    return told, f"story {who} {thing} {places[0]}"
