"""Disk faults: the k-th call that changes the disk fails, so tests can try every k in turn."""

import builtins
import contextlib
import io
import os
import pathlib
from unittest import mock


class PowerCut(BaseException):
    """A simulated power cut. `except Exception` does not catch it, so only `finally` blocks still run."""


class DiskFaults:
    """`calls`: the names of all counted calls; `raised`: the name of the first call that failed, or None."""

    def __init__(self, k, error, forever):
        self.k, self.error, self.forever = k, error, forever
        self.calls, self.raised = [], None

    def fails(self, name):
        self.calls.append(name)
        if self.k is None or not (len(self.calls) == self.k + 1 or (self.forever and self.raised)):
            return False
        self.raised = self.raised or name
        return True

    def guard(self, name, function):
        def call(first, *args, **kwargs):
            changes = name != "mkdir" or not os.path.exists(first)
            if changes and self.fails(name):
                raise self.error
            return function(first, *args, **kwargs)

        return call

    def open(self, path, mode="r", *args, **kwargs):
        if set("wax+").isdisjoint(mode):
            return io_open(path, mode, *args, **kwargs)
        if self.fails("open"):
            raise self.error
        return File(io_open(path, mode, *args, **kwargs), self)


class File:
    """A file opened for writing. A write that fails still writes the first half of its data."""

    def __init__(self, file, faults):
        self.file, self.faults = file, faults

    def write(self, data):
        if self.faults.fails("write"):
            data = data if isinstance(data, str) else bytes(data)
            self.file.write(data[: len(data) // 2])
            self.file.flush()
            raise self.faults.error
        return self.file.write(data)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()

    def __getattr__(self, name):
        return getattr(self.file, name)


io_open = io.open


@contextlib.contextmanager
def disk_faults(k, error=None, forever=False):
    """Make the k-th call that changes the disk raise `error`, and with `forever` all later calls too.

    k counts, from 0, the calls that create a folder, open a file for writing, write, flush or rename. With
    `forever`, it also counts the calls that delete. With k=None, no call fails. To save time, nothing is
    really flushed.
    """
    faults = DiskFaults(k, error, forever)
    with contextlib.ExitStack() as stack:
        for name, call in (
            ("mkdir", "mkdir"),
            ("fsync", "flush"),
            ("replace", "rename"),
            ("rename", "rename"),
        ):
            function = getattr(os, name) if name != "fsync" else lambda handle: None
            stack.enter_context(mock.patch.object(os, name, faults.guard(call, function)))
        if forever:  # if only one call fails, the half-written file can still be deleted
            unlink = faults.guard("delete", pathlib.Path.unlink)
            stack.enter_context(mock.patch.object(pathlib.Path, "unlink", unlink))
        for module in (builtins, io):
            stack.enter_context(mock.patch.object(module, "open", faults.open))
        yield faults
