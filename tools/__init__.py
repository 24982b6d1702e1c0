"""Tool calling from scratch, for any language model, with the standard library alone.

In the order to read it:

    json_reader     text -> value, or an error that says the fix; also while the text still arrives
    dialect         which JSON Schemas we understand, and what we refuse by name
    pattern         regular expressions as automata
    numbers         which digits may come next in a number within bounds
"""
