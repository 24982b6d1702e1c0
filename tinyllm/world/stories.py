"""Small stories with a state: who is where, who holds what. The last sentence follows from the others."""

from tinyllm.world.people import NAMES

THINGS = "ball book lamp key drum rope cup hat coin bell map kite ring box doll spoon".split()
PLACES = "kitchen garden market school forest tower cellar barn harbour mill church bakery".split()

COME = ("{who} was in the {place}.", "{who} came to the {place}.", "One day {who} sat in the {place}.")
TAKE = ("In the {place} {who} took the {thing}.", "{who} found the {thing} in the {place}.",
        "{who} picked up the {thing} of the {place}.")
GO = ("{who} left the {old} and went to the {place}.", "{who} walked from the {old} to the {place}.",
      "From the {old} {who} took the {thing} to the {place}.")
GIVE = ("{who} met {other} and gave the {thing} to {other}.",
        "{other} came and {who} gave the {thing} to {other}.")
END = "Now {who} has the {thing} in the {place}."


def story(dice):
    """-> (sentences, key): a thing is found, carried, perhaps given away, and ends somewhere.

    The key tells what happened in the end, whatever the wording: who has which thing where.
    """
    who, other = dice.few(NAMES, 2)
    thing, places = dice.pick(THINGS), dice.few(PLACES, 3)
    here = places[0]
    told = [dice.pick(way).format(who=who, thing=thing, place=here) for way in (COME, TAKE)]
    for place in places[1:1 + dice.number(0, 2)]:
        if dice.pick((True, False)):
            told.append(dice.pick(GIVE).format(who=who, other=other, thing=thing))
            who, other = other, who
        told.append(dice.pick(GO).format(who=who, old=here, place=place, thing=thing))
        here = place
    told.append(END.format(who=who, thing=thing, place=here))
    return told, f"story {who} {thing} {here}"
