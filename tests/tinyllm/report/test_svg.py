"""svg: labels never overlap, ticks are round numbers, and every drawing is valid and stays inside its frame.

A drawing that breaks one of these rules is hard to read or misleading.
"""

import re
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyllm.report import svg

heights = st.floats(-500, 500)
values = st.floats(-1e6, 1e6).map(lambda x: round(x, 3))
points = st.lists(st.tuples(st.integers(0, 10**5), values), min_size=1, max_size=8).map(sorted)


@given(ys=st.lists(heights, max_size=8), top=st.floats(0, 50))
def test_labels_keep_their_order_and_a_minimum_distance_and_stay_inside_the_frame(ys, top):
    bottom = top + svg.GAP * max(1, len(ys))
    placed = svg.spread(ys, top, bottom)
    in_order = [placed[i] for i in sorted(range(len(ys)), key=ys.__getitem__)]
    assert all(b - a >= svg.GAP - 1e-9 for a, b in zip(in_order, in_order[1:]))
    assert all(top - 1e-9 <= y <= bottom + 1e-9 for y in placed)


@given(ys=st.lists(heights, max_size=8), top=st.floats(0, 50))
def test_labels_that_are_far_enough_apart_do_not_move(ys, top):
    ys = [svg.GAP * round(y) for y in dict.fromkeys(ys)]
    if len(set(ys)) == len(ys):
        assert svg.spread(ys, min([0, *ys]), max([0, *ys])) == ys


@given(low=values, width=st.floats(1e-2, 1e6))
def test_ticks_are_a_few_round_numbers_within_the_axis(low, width):
    ticks = svg.ticks(low, low + width)
    rounding = 1e-9 * width + 2 * np.spacing(abs(low) + width)
    assert 2 <= len(ticks) <= 12 and all(low - rounding <= x <= low + width + rounding for x in ticks)
    steps = np.diff(ticks)
    assert np.allclose(steps, steps[0], rtol=1e-6)
    assert f"{steps[0]:.4e}"[:6] in ("1.0000", "2.0000", "5.0000")


@given(low=st.floats(1e-6, 1e3), times=st.floats(10.1, 1e6))
def test_ticks_of_a_long_logarithmic_axis_are_1_2_or_5_times_a_power_of_ten(low, times):
    ticks = svg.ticks(low, low * times, log=True)
    assert len(ticks) >= 3 and all(low <= x <= low * times for x in ticks)
    assert {f"{x:.3e}"[:5] for x in ticks} <= {"1.000", "2.000", "5.000"}


@given(
    lines=st.lists(points, min_size=1, max_size=3),
    rule=values,
    title=st.text("ab<>&\"'é", max_size=9),
    log=st.booleans(),
)
def test_a_chart_is_valid_and_draws_every_point_inside_its_frame(lines, rule, title, log):
    named = [(f"{title} {i}", "s1", line) for i, line in enumerate(lines)]
    picture = svg.chart(title, named, rules=[("rule", rule)], log=log)
    root = ElementTree.fromstring(picture)
    assert root.get("aria-label") == title
    paths = [path.get("d") for path in root.iter("path") if "curve" in path.get("class")]
    assert [path.count(" ") for path in paths] == [len(line) for line in lines]
    for x, y in re.findall(r"[ML](-?[\d.]+) (-?[\d.]+)", "".join(paths)):
        assert svg.LEFT - 0.1 <= float(x) <= svg.WIDTH - svg.RIGHT + 0.1
        assert svg.TOP - 0.1 <= float(y) <= svg.HEIGHT - svg.BOTTOM + 0.1
    labels = [
        float(text.get("y")) for text in root.iter("text") if float(text.get("x")) > svg.WIDTH - svg.RIGHT
    ]
    assert len(labels) == len(lines) + 1
    assert all(b - a >= svg.GAP - 0.11 for a, b in zip(sorted(labels), sorted(labels)[1:]))


def test_on_a_logarithmic_axis_a_greater_value_is_higher_and_equal_ratios_have_equal_distances():
    picture = svg.chart("t", [("a", "s1", [(0, 8.0), (1, 4.0), (2, 2.0)])], log=True)
    (path,) = re.findall(r'class="curve s1" d="([^"]*)"', picture)
    ys = [float(y) for y in re.findall(r" ([\d.]+)", path)]
    assert ys[1] - ys[0] == pytest.approx(ys[2] - ys[1], abs=0.2) and ys[0] < ys[1]


@given(p=st.floats(0, 1), low=st.floats(0, 1), high=st.floats(0, 1))
def test_a_dot_is_drawn_at_its_value_and_links_to_its_file(p, low, high):
    low, p, high = sorted((p, low, high))
    dot = {"value": p, "low": low, "high": high, "n": 3}
    root = ElementTree.fromstring(svg.strip("row", [("s2", "a/exams.json", dot)], [("chance", 0.5)]))
    (link,), (circle,) = root.iter("a"), root.iter("circle")
    assert link.get("href") == "a/exams.json" and f"{p:.3f}" in link.find("title").text
    assert float(circle.get("cx")) == pytest.approx(8 + (svg.WIDTH - 16) * p, abs=0.06)


def test_cells_with_greater_shares_are_darker():
    shares = np.array([[1.0, 0.0], [0.25, 0.0]])
    root = ElementTree.fromstring(svg.cells("head", shares, size=5, levels=4))
    squares = {float(path.get("opacity")): path.get("d") for path in root.iter("path") if path.get("opacity")}
    assert squares[1.0].startswith("M0 0") and squares[0.5].startswith("M0 5")
    assert squares[0.25] == squares[0.75] == ""
