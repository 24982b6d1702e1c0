"""rankings: every published format gives the same rankings, and an unusable entry is reported.

If ranks were read the wrong way round, the reward model would learn to prefer the worse replies.
"""

import datetime
import json

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tinyllm.data.conversation import decode_reply, encode_conversation
from tinyllm.errors import TinyllmError, tell_once
from tinyllm.preferences import rankings
from tinyllm.tokenizer import train

BYTES = train("", 256)
USER = [{"role": "user", "content": "?"}]
GOOD = {"prompt": "?", "completions": ["a", "b"], "ranks": [2, 1]}
texts = st.text(min_size=1, max_size=8).filter(str.strip)


def write_lines(path, *entries):
    lines = [entry if isinstance(entry, str) else json.dumps(entry) for entry in entries]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def reply(text):
    return {"role": "assistant", "content": text}


# ---- what a person types


@given(st.permutations(range(1, 5)), st.data())
def test_a_typed_order_gives_the_right_ranks(order, data):
    """Any order of four completions, with any neighbours tied."""
    ties = [data.draw(st.booleans()) for _ in order[1:]]
    typed, ranks, rank = str(order[0]), {order[0]: 1}, 1
    for tied, name in zip(ties, order[1:]):
        typed += f"{data.draw(st.sampled_from(['=', ' = '])) if tied else ' '}{name}"
        rank += not tied
        ranks[name] = rank
    assert rankings.parse_order(typed, 4) == [ranks[i] for i in range(1, 5)]


@given(st.text(alphabet="0123 =x", max_size=8))
def test_an_order_that_does_not_name_each_completion_once_is_refused(typed):
    try:
        ranks = rankings.parse_order(typed, 3)
    except ValueError as error:
        assert "1 2 3" in str(error)
    else:
        assert len(ranks) == 3 and sorted(c for c in typed if c in "0123456789x") == ["1", "2", "3"]


# ---- files


@given(st.lists(texts, min_size=2, max_size=5, unique=True), st.data())
def test_a_ranking_is_read_back_as_it_was_written(replies, data):
    ranks = [data.draw(st.integers(1, 3)) for _ in replies]
    assume(len(set(ranks)) > 1)
    ranking = rankings.Ranking(USER, replies, ranks)
    assert rankings.ranking(json.loads(json.dumps(ranking._asdict()))) == ranking


def test_a_line_states_who_ranked_what_and_when(tmp_path):
    ranking, path = rankings.Ranking(USER, ["ä", "b"], [1, 2]), tmp_path / "r.jsonl"
    rankings.save(path, [rankings.entry(ranking, "Ada", "abc", 7)])
    assert rankings.read(path) == [ranking]
    (line,) = path.read_text(encoding="utf-8").splitlines()
    entry = json.loads(line)
    assert entry["annotator"] == "Ada" and entry["model"] == "abc" and "ä" in line
    assert entry["sampling"]["temperature"] == 1.0 and entry["sampling"]["seed"] == 7
    age = datetime.datetime.now(datetime.timezone.utc) - datetime.datetime.fromisoformat(entry["time"])
    assert abs(age.total_seconds()) < 60


TURNS = [{"role": "user", "content": "Hi"}, reply("Yes?"), {"role": "user", "content": "Who are you?"}]
TEXT = "\n\nHuman: Hi\n\nAssistant: Yes?\n\nHuman: Who are you?\n\nAssistant: "
FORMATS = [
    {"prompt": TURNS, "completions": ["Me.", "Go away."], "ranks": [1, 2]},
    {"prompt": TURNS, "completions": ["Me.", "Go away."], "ranks": [1, 2], "time": "...", "sampling": {}},
    {"chosen": TEXT + "Me.", "rejected": TEXT + "Go away."},
    {"chosen": [*TURNS, reply("Me.")], "rejected": [*TURNS, reply("Go away.")]},
    {"prompt": TURNS, "chosen": "Me.", "rejected": "Go away."},
    {"prompt": TURNS, "chosen": [reply("Me.")], "rejected": [reply("Go away.")]},
    {"prompt": TEXT.removesuffix("\n\nAssistant: "), "chosen": "Me.", "rejected": "Go away."},
    {"prompt": TEXT, "chosen": TEXT + "Me.", "rejected": TEXT + "Go away."},
    # UltraFeedback, binarized: the replies repeat the prompt, and "messages" repeats the chosen conversation
    {"prompt": "Who are you?", "chosen": [*TURNS, reply("Me.")], "rejected": [*TURNS, reply("Go away.")]}
    | {"messages": [*TURNS, reply("Me.")], "score_chosen": 9.0, "score_rejected": 2.5},
    # ShareGPT with preferences: the prompt is the conversation so far, and each reply is one message
    {"conversations": [{"from": m["role"], "value": m["content"]} for m in TURNS]}
    | {"chosen": {"from": "gpt", "value": "Me."}, "rejected": {"from": "gpt", "value": "Go away."}},
    {"messages": TURNS, "chosen": " Me.\n", "rejected": [{**reply([{"type": "text", "text": "Go away."}])}]},
]


@pytest.mark.parametrize("entry", FORMATS)
def test_every_published_format_of_preferences_gives_the_same_ranking(entry, tmp_path):
    expected = rankings.Ranking(TURNS, ["Me.", "Go away."], [1, 2])
    assert rankings.read(write_lines(tmp_path / "r.jsonl", entry)) == [expected]
    assert rankings.read(write_lines(tmp_path / "r.json", json.dumps([entry, entry]))) == [expected, expected]


@given(
    texts.map(str.strip),
    texts.map(str.strip),
    st.lists(texts.map(str.strip), min_size=2, max_size=2, unique=True),
)
def test_a_preference_may_have_its_prompt_in_the_alpaca_format(instruction, context, replies):
    chosen, rejected = replies
    entry = {"instruction": instruction, "input": context, "chosen": chosen, "rejected": rejected}
    prompt = [{"role": "user", "content": f"{instruction}\n{context}"}]
    assert rankings.ranking(entry) == rankings.Ranking(prompt, replies, [1, 2])


@pytest.mark.parametrize(
    "start", ["Assistant: ", "\n\nAssistant: ", "As follows.\n\nHuman: hi\n\nAssistant: "]
)
def test_a_reply_that_looks_like_a_turn_keeps_every_word(start):
    ranking = rankings.ranking({"prompt": "?", "chosen": start + "a", "rejected": "b"})
    assert ranking.prompt == USER and ranking.completions == [(start + "a").strip(), "b"]


def test_a_prompt_that_is_plain_text_becomes_a_user_message(tmp_path):
    (ranking,) = rankings.read(write_lines(tmp_path / "r.jsonl", GOOD))
    assert ranking == rankings.Ranking(USER, ["a", "b"], [2, 1])


MALFORMED = [
    ("{not json", "not valid JSON"),
    ([1], "JSON object"),
    ({"prompt": "?", "completions": ["a"], "ranks": [1]}, "two or more"),
    ({"prompt": "?", "completions": ["a", "b"], "ranks": [1]}, "one whole number"),
    ({"prompt": "?", "completions": ["a", "b"], "ranks": [0, 1]}, "one whole number"),
    ({"prompt": "?", "completions": ["a", "b"], "ranks": [True, 2]}, "one whole number"),
    ({"prompt": "?", "completions": ["a", "b"], "ranks": [1.0, 2]}, "one whole number"),
    ({"prompt": "?", "completions": ["a", "b"]}, "(keys found: 'prompt', 'completions')"),
    ({"prompt": "?", "completions": ["a", None], "ranks": [1, 2]}, "not a string"),
    ({"prompt": "?", "completions": ["a", "\ud800"], "ranks": [1, 2]}, "surrogate"),
    ({"prompt": "?", "completions": "ab", "ranks": [1, 2]}, "list of two"),
    ({"prompt": "?", "ranks": [1, 2]}, "list of two"),
    ({"completions": ["a", "b"], "ranks": [1, 2]}, "needs a prompt"),
    ({"prompt": " ", "completions": ["a", "b"], "ranks": [1, 2]}, "needs a prompt"),
    ({"prompt": []} | {"completions": ["a", "b"], "ranks": [1, 2]}, "needs a prompt"),
    ({}, "chosen"),
    ({"prompt": "?", "chosen": "a"}, "(rejected)"),
    ({"prompt": "?", "good": "a", "bad": "b"}, "(keys found: 'prompt', 'good', 'bad')"),
    ({"chosen": "a", "rejected": "b"}, "needs a prompt"),
    ({"chosen": TEXT, "rejected": TEXT + "b"}, "(chosen)"),
    ({"chosen": "\n\nAssistant: a", "rejected": "\n\nAssistant: b"}, "needs a prompt"),
    ({"chosen": "\n\nHuman: x\n\nAssistant: a", "rejected": "\n\nHuman: y\n\nAssistant: b"}, "different"),
    ({"prompt": [{"role": "king", "content": "x"}], "chosen": "a", "rejected": "b"}, "role"),
    *[({"prompt": "?", "chosen": "a", "rejected": empty}, "(rejected)") for empty in ("", " ", None, [])],
    *[({"prompt": "?", "chosen": empty, "rejected": "b"}, "(chosen)") for empty in ("", [reply(" ")])],
    ({"prompt": "?", "chosen": "a", "rejected": "\ud800"}, "surrogate"),
]


@pytest.mark.parametrize("entry, reason", MALFORMED)
def test_a_malformed_line_is_reported_and_the_rest_is_used(entry, reason, tmp_path, capsys):
    path = write_lines(tmp_path / "r.jsonl", GOOD, entry, GOOD)
    assert len(rankings.read(path)) == 2
    message = capsys.readouterr().err
    assert "line 2" in message and reason in message


@pytest.mark.parametrize(
    "entry",
    [
        {"chosen": "\n\nHuman: ", "rejected": "\n\nHuman: "},
        {"prompt": "\n\nHuman: ", "completions": ["a", "b"], "ranks": [1, 2]},
    ],
)
def test_a_conversation_of_empty_turns_is_malformed(entry, tmp_path):
    path = write_lines(tmp_path / "r.jsonl", GOOD, entry, GOOD)
    assert len(rankings.read(path)) == 2


def test_whatever_a_model_writes_can_be_written_to_the_file(tmp_path):
    """The bytes ED A0 80 are not valid UTF-8. Tokenizer.decode would turn them into a lone surrogate."""
    text, path = decode_reply(BYTES, [0xED, 0xA0, 0x80]), tmp_path / "r.jsonl"
    rankings.save(path, [rankings.entry(rankings.Ranking(USER, [text, "b"], [1, 2]), "Ada", "abc", 7)])
    assert len(rankings.read(path)) == 1


def test_rankings_that_express_no_preference_are_left_out_and_counted(tmp_path, capsys):
    path = write_lines(
        tmp_path / "r.jsonl",
        {"prompt": "?", "chosen": "a", "rejected": "a"},
        {"prompt": "?", "chosen": "a", "rejected": "b"},
        {"prompt": "?", "completions": ["a", "b"], "ranks": [1, 1]},
    )
    assert [ranking.completions for ranking in rankings.read(path)] == [["a", "b"]]
    assert "2 of 3" in capsys.readouterr().err


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 4)), min_size=2, max_size=6))
def test_identical_texts_are_kept_once_with_the_best_of_their_ranks(ranked):
    completions, ranks = map(list, zip(*ranked))
    best = {text: min(rank for other, rank in ranked if other == text) for text in completions}
    assume(len(set(best.values())) > 1)
    ranking = rankings.ranking({"prompt": "?", "completions": completions, "ranks": ranks})
    assert len(ranking.completions) == len(best)
    assert dict(zip(ranking.completions, ranking.ranks)) == best


def test_a_file_without_a_usable_ranking_is_an_error(tmp_path):
    for entries in ((), ({"prompt": "?", "chosen": "a", "rejected": "a"},), ("{not json",)):
        with pytest.raises(TinyllmError, match="r.jsonl has no"):
            rankings.read(write_lines(tmp_path / "r.jsonl", *entries))
    with pytest.raises(FileNotFoundError):
        rankings.read(tmp_path / "missing.jsonl")


# ---- encoding for training


@given(st.lists(texts, min_size=2, max_size=4, unique=True), st.integers(0, 2))
def test_the_mask_covers_only_the_last_reply_and_its_end_token(completions, turns):
    prompt = [*TURNS[:2]] * turns + TURNS[2:]
    ranking = rankings.Ranking(prompt, completions, [*range(1, len(completions) + 1)])
    rows = rankings.encode_ranking(BYTES, ranking)
    assert len(rows) == len(completions)
    for (ids, mask), text in zip(rows, completions):
        assert ids == encode_conversation(BYTES, [*prompt, reply(text)])[0] and len(mask) == len(ids)
        learned = [i for i, weight in zip(ids, mask) if weight]
        assert learned == [*BYTES.encode(" " + text), BYTES.special["<|end|>"]]
        assert mask == [0] * (len(ids) - len(learned)) + [1] * len(learned)


def test_rankings_that_do_not_fit_into_the_context_are_left_out_and_reported(capsys):
    """One ranking has a completion that is too long, and the prompt of another leaves no room for a reply."""
    ranking = rankings.Ranking(TURNS, ["On.", "Off, now." * 30], [1, 2])
    longest = max(len(ids) for ids, _ in rankings.encode_ranking(BYTES, ranking))
    short = rankings.Ranking(TURNS[:1], ["a", "b"], [1, 2])
    tell_once.cache_clear()
    fit = lambda context: rankings.fitting([short, ranking], BYTES, context)
    assert fit(longest - 1) == [short, ranking]  # the last token is only a target, not an input
    assert not capsys.readouterr().err
    assert fit(longest - 2) == [short]
    assert f"1 of 2 rankings do not fit into the context of {longest - 2} tokens" in capsys.readouterr().err
    prompt = rankings.Ranking([{"role": "user", "content": "?" * 91}], ["a", "b"], [1, 2])
    assert rankings.fitting([prompt, short], BYTES, 120) == [short]  # the prompt's 96 tokens + 30 for a reply
    assert rankings.fitting([prompt, short], BYTES, 128) == [prompt, short]
    with pytest.raises(TinyllmError, match="no ranking fits into the context of 120 tokens"):
        rankings.fitting([prompt], BYTES, 120)
