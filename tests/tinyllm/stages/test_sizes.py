"""sizes: every size must have a value in every row, and no value may be smaller in a bigger size.

Otherwise SIZE=base could fail after hours, or train on less text than SIZE=small.
"""

import dataclasses
from itertools import pairwise

from tinyllm.runs import Settings
from tinyllm.stages.sizes import SIZES
from tinyllm.transformer import Config

ORDER = ["tiny", "nano", "small", "base"]


def test_the_size_option_offers_every_size_from_tiny_to_base():
    (option,) = [field for field in dataclasses.fields(Settings) if field.name == "size"]
    assert list(SIZES) == list(option.metadata["choices"]) == ORDER and option.default in SIZES


def test_no_number_shrinks_from_tiny_to_base():
    assert len({tuple(vars(size)) for size in SIZES.values()}) == 1
    for smaller, bigger in pairwise(ORDER):
        for name, value in vars(SIZES[smaller]).items():
            assert 1 <= value <= getattr(SIZES[bigger], name), (name, smaller, bigger)


def test_every_size_has_a_valid_model_shape_and_enough_text_for_a_batch():
    for size in SIZES.values():
        config = Config(size.vocab, size.context, size.layers, size.width, size.heads)
        assert config.size() > 0
        assert size.characters > 100 * size.rows
