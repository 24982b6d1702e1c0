"""How a language model comes to be, in NumPy, with every backward pass written by hand.

Read in this order; each file needs only the ones before it:

    layers.py         six layers, each a forward/backward pair with its derivation
    transformer.py    the model: layers in a row over one flat parameter buffer
    induction.py      the one thing that a model is born with, and practises: going on as it went before
    objectives.py     every loss: (logits, ...) -> (loss, dlogits)
    optimizer.py      Muon and AdamW, clipping, the learning-rate schedule
    tokenizer.py      text <-> ids: byte-level byte-pair encoding
    conversation.py   turns -> ids, targets, weights
    corpus.py         text -> batches of windows
    lessons.py        conversations -> batches; formats.py: conversations from files
    sampling.py       ids -> more ids, with a key/value cache
    parallel.py       one process per core, one shared buffer
    training.py       what stages share: step, progress, interrupt, resume
    advantages.py     rewards -> weights; rollouts.py: a model's own replies, as arrays
    rankings.py       what people prefer, on disk; rank.py: asking them; reward.py: a judge that learns it
    stages/           what each stage adds
    checkpoint.py     a model on disk: a Hugging Face folder (llama.py: its words; tensors.py: its arrays)
    world/            the built-in texts and tasks, which know every answer and how surprising they are
    exams.py          held-out measurements; interviews.py: questions asked; verdicts.py: manners;
                      ngram.py: the table to beat

This file only sets up the machine, which has to happen before NumPy is first imported.
"""

import ctypes
import os
import platform
import sys

# One BLAS thread per process, one process per core (parallel.py). Milliseconds of a training step of
# 0.8 M / 2.8 M parameters on 2 cores, idle, and with one of them busy:
#
#                                idle          one core busy
#     1 process, 1 thread      44 / 363          42 / 361
#     1 process, 2 threads     28 / 220          60 / 737      threads spin, waiting for each other
#     2 processes              23 / 187          66 / 467
#
# On another machine 2 threads were 11 times slower beside a busy core. A variable that the user has
# set wins.
_THREADS = {name: os.environ.setdefault(name, "1") for name in (
    "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")}


def _limit_blas_that_is_already_loaded():
    """The variables above are read when NumPy loads BLAS: too late if the caller imported NumPy first.

    NumPy's wheels carry OpenBLAS, whose thread count can also be set by a call. For any other BLAS
    nothing can be done from here, and import order is the caller's to mend.
    """
    import pathlib

    import numpy
    for library in (pathlib.Path(numpy.__file__).parent.parent / "numpy.libs").glob("libscipy_openblas*"):
        set_threads = getattr(ctypes.CDLL(str(library)), "scipy_openblas_set_num_threads64_", None)
        if set_threads:
            set_threads(int(_THREADS["OPENBLAS_NUM_THREADS"]))


def _keep_freed_memory():
    """Tell glibc to keep freed arrays for the next step, instead of unmapping and faulting them in again.

    A training step allocates and frees the same few megabytes every time; this takes 0.7 of the time
    that it takes with the defaults, for code that can then be written without preallocated buffers.
    """
    M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3                        # malloc.h
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, 32 * 2**20)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


if "numpy" in sys.modules:
    _limit_blas_that_is_already_loaded()
_keep_freed_memory()
