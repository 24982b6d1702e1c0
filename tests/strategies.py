"""Strategies for the property tests. Sizes are small and often 1; seeds vary widely."""

import numpy as np
from hypothesis import strategies as st

from tinyllm.transformer import Config, Parameters, Transformer

rngs = st.integers(0, 2**32 - 1).map(np.random.default_rng)
sizes = st.integers(1, 5)


@st.composite
def configs(draw, head="tokens", causal=None):
    kv_heads = draw(st.integers(1, 2))
    return Config(
        vocab=draw(st.integers(2, 12)),
        context=draw(st.integers(2, 9)),
        layers=draw(st.integers(1, 3)),
        width=draw(st.integers(1, 9)),
        heads=kv_heads * draw(st.integers(1, 3)),
        kv_heads=kv_heads,
        head_dim=2 * draw(st.integers(1, 3)),
        hidden=draw(st.integers(1, 9)),
        theta=draw(st.sampled_from([10.0, 500.0, 10000.0])),
        tied=draw(st.booleans()),
        causal=draw(st.booleans()) if causal is None else causal,
        head=head,
    )


def random_model(config, rng, dtype=np.float64, scale=0.5):
    """A model whose parameters are all random, even the gains of its norms: zeros and ones hide mistakes."""
    params = Parameters(config, dtype=dtype)
    params.flat[:] = rng.standard_normal(params.flat.shape) * scale
    return Transformer(config, params)
