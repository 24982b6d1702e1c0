"""Tool calling from scratch, for any language model; the core needs only the standard library.

Reading order:

    json_reader     text -> value, or an error that says where and why
    schema          the supported schemas
    validation      whether a value is valid, and if not, why; repair of values of the wrong type
    functions       a function -> the schema of its arguments; JSON -> its arguments
    protocol        calls in text: reading, writing, streaming
    registry        the available tools and their execution
    dialects        one call in five dialects, from Hermes tags to OpenAI's APIs
    agent           model and tools take turns until there is an answer
    endpoint        a model on a server, and the many forms of its responses
    builtin         a calculator, dates, recordings
    terminals       which bytes may come next in a number, a string or a fixed text
    grammar         which bytes may come next under a whole schema, and the shortest completion
    masks           which tokens may come next
    __main__        a guided tour without a model; a question about a recording
"""

import os
import sys

# `python -m` puts the current folder first on sys.path, so a numbers.py in it would shadow the standard
# library's. Search the current folder last, after the folder that holds this package.
if sys.argv[:1] == ["-m"] and sys.path[0] != os.path.dirname(__path__[0]):
    sys.path += [os.path.dirname(__path__[0]), sys.path.pop(0)]
