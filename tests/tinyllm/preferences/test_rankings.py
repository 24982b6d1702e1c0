"""rankings: what a file may hold, what is said about the rest, and what a person may type."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyllm import rankings
from tinyllm.conversation import spell
from tinyllm.corpus import CorpusError
from tinyllm.tokenizer import train

BYTES = train("", 256)
texts = st.text(min_size=1, max_size=8).filter(str.strip)


def written(path, *entries):
    lines = [entry if isinstance(entry, str) else json.dumps(entry) for entry in entries]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


@given(st.permutations(range(1, 5)), st.data())
def test_an_order_is_read_as_it_was_meant(order, data):
    """Any order of four, any neighbours tied."""
    ties = [data.draw(st.booleans()) for _ in order[1:]]
    typed, ranks, rank = str(order[0]), {order[0]: 1}, 1
    for tied, name in zip(ties, order[1:]):
        typed += f"{data.draw(st.sampled_from(['=', ' = '])) if tied else ' '}{name}"
        rank += not tied
        ranks[name] = rank
    assert rankings.parse_order(typed, 4) == [ranks[i] for i in range(1, 5)]


@given(st.text(alphabet="0123 =x", max_size=8))
def test_what_is_no_order_is_refused(typed):
    try:
        found = rankings.parse_order(typed, 3)
    except ValueError as error:
        assert "1 2 3" in str(error)
    else:
        assert len(found) == 3 and sorted(c for c in typed if c in "0123456789x") == ["1", "2", "3"]


@given(st.lists(texts, min_size=2, max_size=5), st.data())
def test_a_ranking_written_is_the_ranking_read(replies, data):
    replies = list(dict.fromkeys(replies))
    ranks = [data.draw(st.integers(1, 3)) for _ in replies]
    one = rankings.Ranking([{"role": "user", "content": "?"}], replies, ranks)
    if len(replies) > 1:
        assert rankings.understand(json.loads(json.dumps(one._asdict()))) == one


def test_malformed_lines_are_named_and_the_rest_is_used(tmp_path, capsys):
    good = {"prompt": "?", "completions": ["a", "b"], "ranks": [2, 1], "extra": 1}
    path = written(tmp_path / "r.jsonl", good, "{not json", good)
    assert len(rankings.read(path)) == 2
    assert "line 2" in capsys.readouterr().err
    for bad, why in (
        ({"prompt": "?", "completions": ["a"], "ranks": [1]}, "fewer than two"),
        ({"prompt": "?", "completions": ["a", "b"], "ranks": [1]}, "one number"),
        ({"prompt": "?", "completions": ["a", "b"], "ranks": [0, True]}, "one number"),
        ({"prompt": "?", "completions": ["a", 3], "ranks": [1, 2]}, "list of texts"),
        ({"completions": ["a", "b"], "ranks": [1, 2]}, "needs texts"),
        ({"chosen": "a"}, "chosen"),
        ({"chosen": "a", "rejected": "b"}, "does not end"),
        ({"chosen": "\n\nHuman: x\n\nAssistant: a", "rejected": "\n\nHuman: y\n\nAssistant: b"}, "different"),
        ({"prompt": [{"role": "king", "content": "x"}], "chosen": "a", "rejected": "b"}, "role"),
        ([1], "JSON object"),
    ):
        path = written(tmp_path / "r.jsonl", good, bad)
        assert len(rankings.read(path)) == 1
        said = capsys.readouterr().err
        assert "line 2" in said and why in said, (bad, said)


def test_identical_replies_and_ties_are_dropped_and_counted(tmp_path, capsys):
    good = {"prompt": "?", "chosen": "a", "rejected": "b"}
    path = written(tmp_path / "r.jsonl", {"prompt": "?", "chosen": "a", "rejected": "a"}, good,
                   {"prompt": "?", "completions": ["a", "b"], "ranks": [1, 1]})  # fmt: skip
    assert len(rankings.read(path)) == 1 and "2 of 3" in capsys.readouterr().err


def test_a_file_that_says_nothing_is_an_error(tmp_path):
    for entries in ((), ({"prompt": "?", "chosen": "a", "rejected": "a"},)):
        with pytest.raises(CorpusError):
            rankings.read(written(tmp_path / "r.jsonl", *entries))
    with pytest.raises(CorpusError, match="cannot be read"):
        rankings.read(tmp_path / "nothing.jsonl")


def test_published_forms_of_preferences_mean_the_same():
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"},
             {"role": "user", "content": "Who are you?"}]  # fmt: skip
    text = "\n\nHuman: Hi\n\nAssistant: Yes?\n\nHuman: Who are you?\n\nAssistant: "
    reply = lambda words: {"role": "assistant", "content": words}
    wanted = rankings.Ranking(turns, ["Me.", "Go away."], [1, 2])
    for entry in (
        {"chosen": text + "Me.", "rejected": text + "Go away."},
        {"chosen": [*turns, reply("Me.")], "rejected": [*turns, reply("Go away.")]},
        {"prompt": turns, "chosen": "Me.", "rejected": "Go away."},
        {"prompt": turns, "chosen": [reply("Me.")], "rejected": [reply("Go away.")]},
        {"prompt": text.removesuffix("\n\nAssistant: "), "chosen": "Me.", "rejected": "Go away."},
        {"prompt": turns, "completions": ["Me.", "Go away."], "ranks": [1, 2]},
    ):
        assert rankings.understand(entry) == wanted


def test_only_the_last_reply_is_judged_and_too_long_ones_are_left_out():
    prompt = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"},
              {"role": "user", "content": "Go"}]  # fmt: skip
    ranking = rankings.Ranking(prompt, ["On.", "Off, now."], [1, 2])
    for (ids, learned), text in zip(rankings.spelled(BYTES, ranking, 64), ranking.completions):
        assert ids == spell(BYTES, [*prompt, {"role": "assistant", "content": text}])[0]
        said = [i for i, weight in zip(ids, learned) if weight]
        assert BYTES.decode(said[:-1]) == f" {text}" and said[-1] == BYTES.special["<|end|>"]
    assert rankings.spelled(BYTES, ranking, 20) is None
