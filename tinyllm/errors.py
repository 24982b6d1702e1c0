"""Two exceptions for errors that the user can fix, and one function for messages that are not errors.

The message of an exception says what is wrong, and usually what to do.
"""

import functools
import sys


class TinyllmError(Exception):
    """A file, folder or text cannot be used, or a run cannot continue. Exit status 1."""


class UsageError(TinyllmError):
    """An option, or a combination of options, makes no sense. Exit status 2."""


@functools.cache
def tell_once(message):
    """Print a message to stderr, unless this process has already printed it.

    Training and exams read the same files, so the same messages come up again.
    """
    print(message, file=sys.stderr)
