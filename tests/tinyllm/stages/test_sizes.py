"""sizes: every size has every figure, and a bigger size has at least as much of each."""

import dataclasses
from itertools import pairwise

from tinyllm.runs import Settings
from tinyllm.stages.sizes import SIZES
from tinyllm.transformer import Config

ORDER = ["tiny", "nano", "small", "base"]


def test_the_sizes_are_those_of_the_option():
    (option,) = [field for field in dataclasses.fields(Settings) if field.name == "size"]
    assert list(SIZES) == list(option.metadata["choices"]) == ORDER and option.default in SIZES


def test_every_figure_grows_from_tiny_to_base():
    assert len({tuple(vars(size)) for size in SIZES.values()}) == 1
    for smaller, bigger in pairwise(ORDER):
        for name, value in vars(SIZES[smaller]).items():
            assert 1 <= value <= getattr(SIZES[bigger], name), (name, smaller, bigger)


def test_every_size_is_the_shape_of_a_model_with_room_for_a_window():
    for size in SIZES.values():
        config = Config(size.vocab, size.context, size.layers, size.width, size.heads)
        assert config.size() > 0
        assert size.characters > 100 * size.rows
