"""A language model from scratch in NumPy, with every backward pass written by hand.

This file sets up the process: import paths, BLAS threads and memory allocation. BLAS reads its number of
threads when NumPy is first imported, so this file sets the number before any other file imports NumPy.
"""

import os
import sys

# `python -m` puts the current folder first on sys.path. A tools.py in that folder would shadow the package
# `tools` of this project, and a random.py would shadow the standard library's module. So search that folder
# last, after the one that holds tinyllm.
if sys.argv[:1] == ["-m"] and sys.path[0] != os.path.dirname(__path__[0]):
    sys.path += [os.path.dirname(__path__[0]), sys.path.pop(0)]

import ctypes
import platform

# BLAS gets one thread per process, because there is one process per core (parallel.py). The table shows the
# milliseconds per training step of models with 0.8 M and 2.8 M parameters, on 2 cores. In the first column
# both cores are otherwise idle; in the second, another program keeps one of them busy.
#
#                                idle          one core busy
#     1 process, 1 thread      44 / 363          42 / 361
#     1 process, 2 threads     28 / 220          60 / 737      the threads spin while they wait
#     2 processes              23 / 187          66 / 467
#
# On another machine, with one core busy, a step took 11 times as long with 2 threads as with 1. If you have
# set one of these environment variables, your value is kept.
for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"):
    os.environ.setdefault(_name, "1")


def _limit_loaded_blas():
    """Set the number of threads with a function call. If NumPy was imported before tinyllm, BLAS has already
    read its environment variables.

    This works for the OpenBLAS in NumPy's wheels for Linux and Windows. With another BLAS, import tinyllm
    before NumPy.
    """
    import pathlib

    import numpy

    for library in (pathlib.Path(numpy.__file__).parent.parent / "numpy.libs").glob("libscipy_openblas*"):
        set_threads = getattr(ctypes.CDLL(str(library)), "scipy_openblas_set_num_threads64_", None)
        if set_threads:
            set_threads(int(os.environ["OPENBLAS_NUM_THREADS"]))


def _keep_freed_memory():
    """Tell glibc to keep freed memory for the next step. Unmapping it would cause page faults in every step.

    Every training step allocates and frees arrays of the same sizes. With these settings a step takes 0.7
    times as long as with the defaults, and the code needs no preallocated buffers.
    """
    trim_threshold, mmap_threshold = -1, -3  # the numbers of these options in malloc.h
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(mmap_threshold, 32 * 2**20)
        libc.mallopt(trim_threshold, 2**31 - 1)


if "numpy" in sys.modules:
    _limit_loaded_blas()
_keep_freed_memory()
