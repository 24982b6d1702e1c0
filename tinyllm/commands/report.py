"""The commands that show what a run did: report and walk."""

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np

from tinyllm import layers, transformer
from tinyllm.report import journey, page
from tinyllm.report.record import Record
from tinyllm.runs import Settings, option


@dataclass(frozen=True)
class ReportSettings(Settings):
    against: str = option("", "another run, whose curves and scores are drawn beside those of this run")


def report(settings):
    """Make the report page of a run, finished or not: runs/<run>/report.html."""
    print(page.write(settings.run, settings.against))


@dataclass(frozen=True)
class WalkSettings(Settings):
    objective: str = option(
        "next", "the objective that turns the logits into a gradient", choices=tuple(journey.OBJECTIVES)
    )


def walk(settings):
    """Follow one batch forward through the model, and its gradient backward, call by call.

    The output begins with the batch and ends with the gradients. Each line in between shows a call to a
    function in layers.py, or to the objective, with the shapes and norms of the arrays that the call returns.
    Read the output alongside transformer.py.
    """
    run = Record(settings.run)
    policy, reference = run.policy_and_reference
    model, function, piece, total = journey.jobs(policy, reference, run.seed)[settings.objective]
    _, tokenizer = policy.checkpoint
    columns = [key for key in piece if piece[key].shape == piece["ids"].shape]
    print(f"{policy.folder}: objective {settings.objective}, on a question from the built-in world")
    print(f"{'token':16}" + "".join(f"{key:>15}" for key in columns))
    for id, *rest in zip(*(piece[key].reshape(-1) for key in columns)):
        print(f"{tokenizer.decode([id])!r:16}" + "".join(f"{value:15.4g}" for value in (id, *rest)))
    calls = {name: traced(each) if name.endswith("ward") else each for name, each in vars(layers).items()}
    transformer.layers = SimpleNamespace(**calls)
    try:
        _, gradient = journey.gradient_of_parameters(model, traced(function), piece, total)
    finally:
        transformer.layers = layers
    for name, g in gradient.items():
        print(f"gradient of {name:26}{norms(g)}")


def traced(function):
    """The function, wrapped to print what it returns: numbers, and the shape and norm of each array. A cache
    that is a tuple is not printed."""

    def call(*arguments, **options):
        results = function(*arguments, **options)
        print(f"{function.__name__:20}" + norms(*results if isinstance(results, tuple) else [results]))
        return results

    return call


def norms(*results):
    parts = [f"{each:.4f}" for each in results if isinstance(each, float)]
    arrays = [each for each in results if isinstance(each, np.ndarray)]
    parts += [f"{each.shape} norm {np.linalg.norm(each):.4g}" for each in arrays]
    return "   ".join(parts)
