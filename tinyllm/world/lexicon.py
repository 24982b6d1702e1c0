"""Tal, a language of rules: the verb comes last, an adjective stands behind its noun and takes its ending.

the red cat sees the old dog   ->   mira ruda bonto veto visu
                                    cat  red  dog   old  sees
"""

NOUNS = {
    "cat": "mira",
    "dog": "bonto",
    "horse": "kelpa",
    "goat": "tugo",
    "bird": "sila",
    "fish": "dremo",
    "child": "nupa",
    "king": "rasto",
    "witch": "valda",
    "ghost": "humbo",
    "sailor": "gorla",
    "giant": "zimpo",
}
ADJECTIVES = {
    "red": "rud",
    "old": "vet",
    "big": "gran",
    "small": "pik",
    "happy": "joll",
    "sad": "trin",
    "quick": "rapp",
    "slow": "lont",
    "wise": "sof",
    "young": "nov",
    "black": "nir",
    "white": "blan",
    "brave": "kor",
    "poor": "pov",
    "rich": "ruk",
    "hungry": "fam",
    "tired": "las",
    "loud": "bram",
    "quiet": "sut",
    "kind": "ben",
}
VERBS = {
    "sees": "visu",
    "hears": "odu",
    "loves": "amu",
    "follows": "sekku",
    "helps": "jutu",
    "finds": "trovu",
    "feeds": "nutru",
    "calls": "klamu",
}

LINES = (
    "In Tal {plain} is {tal}.",
    "{tal} means {plain}.",
    "The word for {plain} in Tal is {tal}.",
    "Who says {tal} means {plain}.",
)


def phrase(adjective, noun):
    tal = NOUNS[noun]
    return f"{tal} {ADJECTIVES[adjective]}{tal[-1]}"


def pair(dice):
    """-> ((adjective, noun), key)."""
    adjective, noun = dice.pick(tuple(ADJECTIVES)), dice.pick(tuple(NOUNS))
    return (adjective, noun), f"pair {adjective} {noun}"


def translate(subject, verb, other):
    """-> (the sentence, the same in Tal); subject and other are (adjective, noun)."""
    plain = f"the {' '.join(subject)} {verb} the {' '.join(other)}"
    return plain, f"{phrase(*subject)} {phrase(*other)} {VERBS[verb]}"


def line(dice, pair):
    """A line of the dictionary: a noun, a verb, an adjective with its noun."""
    if dice.pick((True, False)):
        plain, tal = " ".join(pair), phrase(*pair)
    else:
        words = NOUNS | VERBS
        plain = dice.pick(tuple(words))
        tal = words[plain]
    return dice.pick(LINES).format(plain=plain, tal=tal)
