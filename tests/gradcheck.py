"""One gradient check for all functions: along a random direction, with random weights on the output.

Weights that are all 1 would not do: the outputs of a softmax have a constant sum, so a backward pass
that returns zeros would pass the check.
"""


def check_backward(forward, backward, args, rng, h=1e-6, tolerance=1e-6):
    """For a random r, `L = sum(out * r)` is a single number, and dL/dout = r.

    forward(*args) -> (out, cache); backward(dout, cache) -> one gradient per argument, or None for
    an argument that has none. All arrays are float64.
    """
    out, cache = forward(*args)
    r = rng.standard_normal(out.shape)
    gradients = backward(r, cache)
    gradients = gradients if isinstance(gradients, tuple) else (gradients,)
    for i, (arg, gradient) in enumerate(zip(args, gradients, strict=True)):
        if gradient is None:
            continue
        assert gradient.shape == arg.shape, (
            f"argument {i} has shape {arg.shape}, its gradient {gradient.shape}"
        )
        direction = rng.standard_normal(arg.shape)

        def along(t, i=i, moved=direction):
            return (forward(*args[:i], args[i] + t * moved, *args[i + 1 :])[0] * r).sum()

        close(slope(along, h), (gradient * direction).sum(), tolerance, f"argument {i}")


def check_loss(loss, logits, rng, h=1e-6, tolerance=1e-6):
    """loss(logits) -> (number, dlogits); checks dlogits along a random direction by finite differences."""
    gradient = loss(logits)[1]
    assert gradient.shape == logits.shape
    direction = rng.standard_normal(logits.shape)
    numeric = slope(lambda t: loss(logits + t * direction)[0], h)
    close(numeric, (gradient * direction).sum(), tolerance, "logits")


def slope(f, h=1e-6):
    """df/dt at 0 by central differences over two widths, which cancels the h^2 error term (Richardson 1911).

    One width is not enough for RMSNorm over a few channels with values near 0: its curvature is too large.
    """
    central = lambda h: (f(h) - f(-h)) / (2 * h)
    return (4 * central(h) - central(2 * h)) / 3


def close(numeric, analytic, tolerance, what):
    assert abs(numeric - analytic) <= tolerance * (1 + abs(numeric) + abs(analytic)), (
        f"{what}: backward says {analytic:.9g}, finite differences say {numeric:.9g}"
    )
