"""errors: the tree in the docstring shows the real classes, and each error says whether to try again.

Callers repeat a call whose error is retryable, so with a wrong flag a job could be billed twice."""

import re

import pytest

from audio import errors
from audio.errors import AudioError

CLASSES = [cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, AudioError)]


def test_the_tree_in_the_docstring_shows_the_real_classes():
    tree = re.findall(r"^    ([ |'-]*)([A-Z]\w+) ", errors.__doc__, re.M)
    assert {name for _, name in tree} == {cls.__name__ for cls in CLASSES}
    branch = []
    for indent, name in tree:
        depth = len(indent) // 3
        branch[depth:] = [name]
        assert depth == 0 or getattr(errors, name).__bases__[0].__name__ == branch[depth - 1]


@pytest.mark.parametrize("kind", CLASSES)
def test_an_error_has_the_documented_attributes(kind):
    error = kind("why", status=503, transcript_id="x")
    assert (str(error), error.status, error.transcript_id) == ("why", 503, "x")
    assert error.retryable is (kind.__name__ in ("ServiceUnavailable", "StillProcessing"))
    assert kind("why", retryable=not error.retryable).retryable is not error.retryable
