"""Two exceptions for errors that the user can fix. Each message says what is wrong; most say what to do."""


class TinyllmError(Exception):
    """A file, folder or text cannot be used, or a run cannot continue. Exit status 1."""


class UsageError(TinyllmError):
    """An option, or a combination of options, makes no sense. Exit status 2."""
