"""Who lives in the world, and the five things that are known of each.

Every value belongs to as many people as every other, so that the best blind guess is right one time
in twelve.
"""

NAMES = """
Ada Alba Amos Anna Arlo Asa Beth Bill Boris Bruno Cara Carl Clara Cora Cyril Dan Dora Doris Edgar
Elsa Emil Emma Enzo Erik Esme Eva Ezra Fay Felix Flora Frank Fred Gail Gina Grace Greta Gus Hana
Hank Heidi Henry Hilda Hugo Ida Igor Ines Ingrid Iris Ivan Jack Jada Jane Jasper Joan Jonas Judy
Julia Karl Kate Kira Kurt Lars Laura Lena Leo Lily Lola Lotte Lucy Luis Mabel Magnus Marco Maria Max
Mia Milo Mona Nadia Ned Nell Nina Noah Nora Olaf Olga Oscar Otto Pablo Paula Penny Peter Petra Quinn
Ralph Rita Robin Rosa Ruben Ruth Sally Sam Sara Sid Simon Sofia Stella Tara Theo Tilda Tina Tom Uma
Ursula Vera Victor Wanda Will Yara Zoe
""".split()

VALUES = {
    "pet": "cat dog fish horse goat duck mouse rabbit parrot turtle lizard pony".split(),
    "food": "bread soup rice cheese honey plums beans apples noodles cake eggs corn".split(),
    "home": "Alden Brook Corvo Delmar Essex Farrow Glenby Harwick Irondale Juniper Kelso Lomond".split(),
    "coat": "red blue green yellow brown black white grey purple orange pink golden".split(),
    "job": "baker miller tailor painter doctor farmer singer writer teacher sailor hunter potter".split(),
}

TELL = {                     # relation -> ways to say it; the value comes last, so that it can be asked for
    "pet": ("{name} has a {value}.", "The pet of {name} is a {value}.", "{name} keeps a {value}.",
            "At night {name} feeds a {value}.", "The animal that {name} loves is a {value}."),
    "food": ("{name} likes {value}.", "The food that {name} likes is {value}.", "{name} often eats {value}.",
             "For dinner {name} wants {value}.", "What {name} cooks best is {value}."),
    "home": ("{name} lives in {value}.", "The home of {name} is {value}.", "{name} has a house in {value}.",
             "You can find {name} in {value}.", "The town where {name} lives is {value}."),
    "coat": ("{name} wears a coat that is {value}.", "The coat of {name} is {value}.",
             "{name} bought a coat in {value}.", "The colour of the coat of {name} is {value}.",
             "In winter the coat of {name} looks {value}."),
    "job": ("{name} works as a {value}.", "The job of {name} is that of a {value}.", "{name} is a {value}.",
            "By day {name} is a {value}.", "People know {name} as a {value}."),
}

ASK = {                      # relation -> questions in training, and two that are never trained
    "pet": (("What pet does {name} have?", "Which animal does {name} keep?", "What is the pet of {name}?",
             "Tell me which pet {name} has.", "Name the animal that {name} feeds."),
            ("Which pet does {name} keep?", "Tell me what animal {name} has.")),
    "food": (("What food does {name} like?", "What does {name} often eat?",
              "What is the food that {name} likes?",
              "Tell me which food {name} likes.", "Name the food that {name} wants for dinner."),
             ("Which food does {name} often eat?", "Tell me what {name} likes for dinner.")),
    "home": (("Where does {name} live?", "In which town does {name} live?", "What is the home of {name}?",
              "Tell me where {name} lives.", "Name the town where {name} has a house."),
             ("In which town is the home of {name}?", "Tell me in which town {name} has a house.")),
    "coat": (("What colour is the coat of {name}?", "Which coat does {name} wear?",
              "What is the colour of the coat of {name}?", "Tell me which coat {name} wears.",
              "Name the colour of the coat that {name} bought."),
             ("Which colour is the coat that {name} wears?", "Tell me what colour the coat of {name} is.")),
    "job": (("What is the job of {name}?", "What does {name} work as?", "Which job does {name} have?",
             "Tell me what {name} works as.", "Name the job of {name}."),
            ("As what does {name} work?", "Tell me which job {name} has.")),
}
IS_IT = {                    # relation -> the same as questions to be answered with yes or no
    "pet": (("Does {name} have a {value}?", "Is the pet of {name} a {value}?", "Does {name} keep a {value}?",
             "Is it true that {name} has a {value}?", "Is it so that {name} keeps a {value}?",
             "Tell me whether the pet of {name} is a {value}."),
            ("Is it true that the pet of {name} is a {value}?",)),
    "food": (("Does {name} like {value}?", "Is the food that {name} likes {value}?",
              "Does {name} often eat {value}?", "Is it true that {name} likes {value}?",
              "Is it so that {name} often eats {value}?", "Tell me whether {name} likes {value}."),
             ("Is it true that {name} often eats {value}?",)),
    "home": (("Does {name} live in {value}?", "Is the home of {name} {value}?",
              "Does {name} have a house in {value}?", "Is it true that {name} lives in {value}?",
              "Is it so that the home of {name} is {value}?", "Tell me whether {name} lives in {value}."),
             ("Is it true that the home of {name} is {value}?",)),
    "coat": (("Is the coat of {name} {value}?", "Does {name} wear a coat that is {value}?",
              "Is the colour of the coat of {name} {value}?",
              "Is it true that the coat of {name} is {value}?",
              "Is it so that {name} wears a coat that is {value}?",
              "Tell me whether the coat of {name} is {value}."),
             ("Is it true that {name} wears a coat that is {value}?",)),
    "job": (("Is {name} a {value}?", "Does {name} work as a {value}?",
             "Is the job of {name} that of a {value}?",
             "Is it true that {name} is a {value}?", "Is it so that {name} works as a {value}?",
             "Tell me whether {name} is a {value}."),
            ("Is it true that {name} works as a {value}?",)),
}

STRANGERS = """
Abel Adele Agnes Alan Aldo Alfred Alice Alma Ambra Andrea Anita Anton Arthur Astrid Axel Barbara Basil Bella
Benno Berta Birgit Boaz Brenda Bridget Caleb Camille Casper Cecil Celia Cesar Chloe Claus Colin Conrad
Cosima Curtis Daisy Dalia Damian Daphne Delia Dennis Diego Dirk Dolores Donna Dorian Dunja Edda Edith Edwin
Egon Elias Ellis Eloise Elvira Emeric Enid Ernst Esther Eugene Ewan Fabian Fatima Felicity Fergus Fiona
Floyd Franka Fritz Gabor Gemma Georg Gerald Gilda Ginger Goran Gregor Gunnar Gwen Hamish Hannes Harvey Hazel
Hector Heike Helmut Hester Holger Ilse Imogen Imran Irma Isaac Isolde Ivor Jan Janet Jenny Jerome Joel
Johanna Josef Juan June Justus Kai Karin Katya Kenneth Kerstin Klaus Knut Konstantin Lara Leander Leif
Leonora Levi Lionel Lisbeth Livia Lorenz Ludwig Lydia Malte Manuel Marcel Margo Marian Martha Matteo Melina
Miriam Moritz Morten Nathan Nico Nikita Nils Norbert Odette Olive Orla Orson Oswald Otis Pamela Pascal Pavel
Pearl Philip Pia Pilar Priya Rafael Ramon Rebecca Renate Roland Rolf Ronja Rupert Salome Samira Sasha Selma
Serena Silas Simone Solveig Stefan Susanna Sven Tamara Tatjana Thelma Tobias Trudy Tyler Udo Ulla Urs Valery
Veit Viola Vivian Volker Walter Werner Wilma Xaver Xenia Yusuf Yvonne Zelda Zora
""".split()                  # who do not exist: nothing is known of them


def facts(dice):
    """(name, relation) -> value, balanced."""
    known = {}
    for relation, values in VALUES.items():
        known |= {(name, relation): values[i % len(values)] for i, name in enumerate(dice.shuffled(NAMES))}
    return known


def asked(dice):
    """name -> the three relations of each person that training asks about. The other two are for exams."""
    return {name: dice.few(tuple(VALUES), 3) for name in NAMES}


def tell(dice, known, name, relation):
    """One fact in one of its wordings. Which value it is costs no bits: the world is known."""
    return dice.pick(TELL[relation]).format(name=name, value=known[name, relation])


def biography(dice, known):
    """All that is known of one person, in any order."""
    name = dice.pick(NAMES)
    return " ".join(tell(dice, known, name, relation) for relation in dice.shuffled(VALUES))


def gossip(dice, known):
    """A few facts about anybody."""
    return " ".join(tell(dice, known, dice.pick(NAMES), dice.pick(tuple(VALUES))) for _ in range(5))
