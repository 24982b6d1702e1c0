"""panels: they mark errors in the words and steps of replies, and draw bars, curves and attention correctly.

A wrong mark or drawing would mislead readers, who cannot check it.
"""

import re

import numpy as np
import pytest

from tinyllm.report import panels
from tinyllm.report.record import Record


@pytest.mark.parametrize(
    "solution, marks",
    [
        ("a Bo buys 5. a Bo buys 5: Bo + 17+5:7+5=12,1+1=2,22. #### 22", []),
        ("a Bo buys 5. a Bo buys 5: Bo + 17+5:7+5=12,1+1=2,23. #### 23", ["17 + 5"]),
        ("a Bo buys 5. a Bo buys 5: Bo + 17+5:7+5=12,1+1=2,22. #### 23", [" 23"]),
        ("a x. a Bo a: Bo + 17+5:7+5=12,1+1=2,22. b Bo b: Bo + 21+5:1+5=6,2=2,26. #### 26", ["21 + 5"]),
    ],
)
def test_wrong_steps_of_a_solution_are_marked(solution, marks):
    assert re.findall(r'<mark class="" >(.*?)</mark>', panels.tree(solution)) == marks


def test_a_right_reply_gets_a_tick_and_the_wrong_words_of_a_wrong_reply_are_marked():
    task = panels.Task("facts", "?", "", "duck", "", ("cat",))
    assert panels.marked(task, "Ada keeps a <duck>.") == '<b class="right" >✓ </b>Ada keeps a &lt;duck&gt;.'
    assert panels.marked(task, "A cat & a dog") == 'A <mark class="" >cat</mark> &amp; a dog'
    assert panels.marked(task, "<Hm>") == '<mark class="" >&lt;Hm&gt;</mark>'


def test_a_bar_shows_the_sign_of_its_value_and_its_size_relative_to_the_largest_value():
    html = panels.bars("t", [("a", 2.0), ("b", -1.0)])
    assert re.findall(r'<u class="(\w+)" style="--x:([\d.]+)"', html) == [("down", "1.000"), ("up", "0.500")]


def test_curves_are_drawn_over_a_band_of_recorded_runs_of_the_same_size(tiny):
    bands = panels.BANDS["small"]
    for name in ("1-pretrain", "2-instruct", "3-prefer", "4-reason"):
        assert all(low <= high for curve in bands[name].values() for _, low, high in curve)
    run = Record("demo")
    assert 'class="band"' not in "".join(panels.losses(run))  # there are no bands for SIZE=tiny
    run.size = "small"
    assert "".join(panels.losses(run)).count('class="band"') == 2  # the losses of stages 1 and 2


def test_an_induction_head_is_recognised(tiny, monkeypatch):
    def one_head(model, ids):
        half = (len(ids) - 1) // 2
        p = [[1.0 if k == max(0, q - half + 1) else 0.0 for k in range(len(ids))] for q in range(len(ids))]
        return {"layer 0 head 0": np.array(p)}

    monkeypatch.setattr(panels, "attention_of", one_head)
    html = "".join(panels.attention(Record("demo")))
    assert "layer 0 head 0 puts 1.00 of its attention on the line: an induction head" in html


def test_the_attention_weights_of_each_query_sum_to_1_and_are_0_for_later_positions(tiny):
    model, _ = Record("demo").finished[1].checkpoint
    heads = np.array(list(panels.attention_of(model, [1, 2, 3, 4, 1, 2]).values()))
    assert heads.shape == (2, 6, 6)
    np.testing.assert_allclose(heads.sum(axis=2), 1, atol=1e-5)
    assert (np.triu(heads, 1) == 0).all()
