"""dice: each draw counts its bits of randomness correctly, and a seed always gives the same draws.

With a wrong count, the exams would compare a model's loss with a wrong lower limit.
"""

import math
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from tinyllm.world.dice import Dice

seeds = st.text(max_size=5)
METHODS = ("choice", "integer", "sample", "shuffled")
option_lists = st.lists(st.integers(), min_size=1, max_size=6)


@given(seeds, st.lists(st.tuples(st.sampled_from(METHODS), option_lists, st.data()), max_size=6))
def test_each_draw_adds_log2_of_the_number_of_its_options_to_the_bits(seed, draws):
    dice, expected = Dice(seed), 0.0
    for method, options, data in draws:
        n = len(options)
        if method == "choice":
            assert dice.choice(options) in options
            expected += math.log2(n)
        elif method == "integer":
            low = options[0]
            assert low <= dice.integer(low, low + n - 1) < low + n
            expected += math.log2(n)
        elif method == "sample":
            count = data.draw(st.integers(0, n))
            assert not Counter(dice.sample(options, count)) - Counter(options)
            expected += sum(math.log2(n - i) for i in range(count))
        else:
            assert Counter(dice.shuffled(options)) == Counter(options)
            expected += math.log2(math.factorial(n))
    assert math.isclose(dice.bits, expected, abs_tol=1e-9)


@given(seeds, st.lists(st.integers(1, 9), min_size=1, max_size=5))
def test_a_weighted_choice_adds_minus_log2_of_its_probability_to_the_bits(seed, weights):
    dice = Dice(seed)
    chosen = dice.weighted_choice(dict(enumerate(weights)))
    assert math.isclose(dice.bits, -math.log2(weights[chosen] / sum(weights)), abs_tol=1e-9)


@given(seeds, st.integers(1, 64))
def test_one_in_n_is_true_with_probability_1_in_n_and_its_bits_are_counted(seed, n):
    dice = Dice(seed)
    draws = [dice.one_in(n) for _ in range(400)]
    expected = sum(math.log2(n if true else n / (n - 1)) for true in draws)
    assert math.isclose(dice.bits, expected, abs_tol=1e-9)
    assert abs(draws.count(True) - 400 / n) < 60 and (n > 1 or all(draws))


@given(seeds, option_lists)
def test_shuffling_is_the_same_as_sampling_all_items(seed, options):
    assert Dice(seed).shuffled(options) == Dice(seed).sample(options, len(options))


@given(seeds, st.integers(0, 5))
def test_a_sample_has_as_many_items_as_requested_and_none_twice(seed, count):
    sample = Dice(seed).sample("abcde", count)
    assert len(sample) == len(set(sample)) == count


@given(seeds)
def test_the_same_seed_gives_the_same_draws_and_another_seed_gives_different_draws(seed):
    draws = [[dice.integer(0, 999) for _ in range(9)] for dice in map(Dice, (seed, seed, f"{seed}x"))]
    assert draws[0] == draws[1] != draws[2]


@given(seeds)
def test_an_option_of_weight_0_is_never_chosen(seed):
    dice = Dice(seed)
    assert {dice.weighted_choice({"never": 0, "always": 1}) for _ in range(50)} == {"always"}
    assert dice.bits == 0


def test_options_occur_as_often_as_their_weights_say():
    dice, weights = Dice("shares"), {"a": 1, "b": 2, "c": 5}
    counts = Counter(dice.weighted_choice(weights) for _ in range(8000))
    assert all(abs(counts[key] - 1000 * weight) < 120 for key, weight in weights.items())
    for draw in (lambda: dice.choice("abcd"), lambda: dice.integer(1, 4), lambda: dice.sample("abcd", 2)[1]):
        counts = Counter(draw() for _ in range(8000))
        assert len(counts) == 4 and all(abs(count - 2000) < 160 for count in counts.values())
