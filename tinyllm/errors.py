"""What a person can mend, as two exceptions. Each message says what is wrong, where, and what to do next."""


class TinyllmError(Exception):
    """A file, a folder or a text cannot be used, or a run cannot go on. Exit status 1."""


class UsageError(TinyllmError):
    """An option, or a combination of options, makes no sense. Exit status 2."""
