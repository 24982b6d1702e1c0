"""own: replies to held-out questions, problems and prompts from your own files are graded correctly.

Entries that do not fit into the context must be left out: a model could not answer them.
"""

from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
from scripted import ScriptedPool, last_question
from strategies import random_model

from tinyllm.data.conversation import encode_conversation
from tinyllm.evaluation import own
from tinyllm.objectives import log_prob_of, log_softmax
from tinyllm.parallel import WorkerPool
from tinyllm.preferences.rankings import Ranking
from tinyllm.tokenizer import train
from tinyllm.transformer import Config

BYTES = train("", 256)
CONFIG = Config(len(BYTES), context=128, layers=1, width=8, heads=2)
CALL = '<tool_call>{"name":"calculator","arguments":{"expression":"2+2"}}</tool_call>'


def scripted_pool(reply):
    """A ScriptedPool with a model, because the exams read the model's context length."""
    pool = ScriptedPool(BYTES, reply)
    pool.model = random_model(CONFIG, np.random.default_rng(0), np.float32)
    return pool


def values(results):
    return {key: result["value"] for key, result in results.items() if isinstance(result, dict)}


def conversation(*texts):
    roles = ("user", "assistant") * len(texts)
    return [{"role": role, "content": text} for role, text in zip(roles, texts)]


# ---- questions


@pytest.fixture
def without_log_probs(monkeypatch):
    monkeypatch.setattr(own, "answer_log_probs", lambda pool, tokenizer, messages: [-1.0] * len(messages))


def test_a_right_reply_may_differ_from_the_expected_one_in_case_and_white_space(without_log_probs):
    replies = {"a?": " Yes. ", "b?": "yes", "c?": "It is  so.", "d?": "no."}
    pool = scripted_pool(lambda text: replies[last_question(text)])
    held_out = [conversation("a?", "yes."), conversation("b?", "yes."), conversation("c?", "It is so.")]
    held_out.append(conversation("first?", "one.", "d?", "no."))
    training = [conversation("x?", "Yes."), conversation("y?", "yes."), conversation("z?", "no.")]
    results = own.questions(pool, BYTES, training, held_out)
    assert values(results) == {
        "own_questions_exact": 0.75,
        "own_questions_commonest": 0.5,
        "own_questions_log_prob": -1.0,
    }
    shown = results["own_questions_shown"]
    assert shown[1] == {"prompt": "b?", "expected": "yes.", "reply": "yes"}
    assert shown[3]["prompt"] == "user: first?\nassistant: one.\nuser: d?"


def test_the_expected_reply_is_the_last_one_that_the_loss_covers(without_log_probs):
    pool = scripted_pool(lambda text: "yes")
    messages = [*conversation("a?", "yes", "b?", "no"), {"role": "user", "content": "thanks"}]
    messages[3]["weight"] = 0
    results = own.questions(pool, BYTES, [messages], [messages])
    assert values(results) == {
        "own_questions_exact": 1,
        "own_questions_commonest": 1,
        "own_questions_log_prob": -1.0,
    }
    assert results["own_questions_shown"] == [{"prompt": "a?", "expected": "yes", "reply": "yes"}]


def test_questions_that_do_not_fit_are_left_out_and_the_rest_are_limited_in_number(
    without_log_probs, monkeypatch
):
    pool = scripted_pool(lambda text: "yes")
    assert own.questions(pool, BYTES, [], []) == {}
    assert own.questions(pool, BYTES, [], [conversation("?" * 200, "yes")]) == {}
    monkeypatch.setattr(own, "MOST", 3)
    many = [conversation(f"{i}?", "yes") for i in range(9)]
    assert own.questions(pool, BYTES, many, many)["own_questions_exact"]["n"] == 3


def test_the_log_prob_of_an_answer_is_the_sum_over_its_tokens_including_the_end_token():
    model = random_model(CONFIG, np.random.default_rng(0), np.float32, 0.3)
    conversations = [conversation("a?", "yes."), conversation("one?", "1", "and two?", "2, of course")]
    with WorkerPool(model) as pool:
        computed = own.answer_log_probs(pool, BYTES, conversations)
    for messages, value in zip(conversations, computed):
        ids, _ = encode_conversation(BYTES, messages)
        length = len(BYTES.encode(" " + messages[-1]["content"])) + 1
        log_p = log_prob_of(np.array(ids[1:]), log_softmax(model.logits(ids[:-1]).astype(float)))
        assert value == pytest.approx(log_p[-length:].sum(), rel=1e-4)


# ---- problems


def problems(*answers):
    return [
        [{"role": "user", "content": f"{i}?"}, {"role": "assistant", "content": f"So: #### {answer}"}]
        for i, answer in enumerate(answers)
    ]


def test_your_own_problems_are_graded_by_the_final_answer_and_the_baseline_is_the_most_common_answer():
    replies = {"0?": "#### 1,000", "1?": "#### $7.", "2?": "7", "3?": "Well. #### 7\nBecause."}
    pool = ScriptedPool(BYTES, lambda text: replies[last_question(text)])
    results = values(own.problems(pool, BYTES, problems("1000", "7", "7", "8")))
    assert results == {"own_problems_exact": 0.5, "own_problems_commonest": 0.5}


def test_your_own_problems_may_be_solved_with_the_calculator():
    pool = ScriptedPool(BYTES, lambda text: "#### 4" if "_response>4<" in text else CALL)
    assert own.problems(pool, BYTES, problems("4"))["own_problems_exact"]["value"] == 1


def test_only_a_limited_number_of_your_own_problems_are_used(monkeypatch):
    pool = ScriptedPool(BYTES, lambda text: "#### 1")
    monkeypatch.setattr(own, "MOST", 3)
    results = own.problems(pool, BYTES, problems(*"1112"))
    assert results["own_problems_exact"] == results["own_problems_commonest"]
    assert results["own_problems_exact"]["n"] == 3 and results["own_problems_exact"]["value"] == 1


# ---- rankings


@pytest.mark.parametrize(
    "ours, others, rate", [("good", "bad", 1), ("bad", "good", 0), ("good", "good", None)]
)
def test_a_reply_wins_if_the_reward_model_scores_it_higher_and_ties_do_not_count(
    ours, others, rate, monkeypatch, tmp_path
):
    held_out = [Ranking([{"role": "user", "content": "a?"}], ["good", "bad"], [1, 2])]
    score = lambda rows: np.array([BYTES.decode(row).count("good") for row in rows])
    monkeypatch.setattr(own.rankings, "read", lambda path: held_out)
    monkeypatch.setattr(own.rankings, "split_rankings", lambda rankings: ([], rankings))
    monkeypatch.setattr(own, "before_preferences", lambda folder: folder)
    monkeypatch.setattr(own, "is_checkpoint", lambda folder: True)
    monkeypatch.setattr(own.checkpoint, "load", lambda folder: (None, None))
    monkeypatch.setattr(own.reward_model, "scorer", lambda folder, settings: nullcontext(score))
    pool, reference = (ScriptedPool(BYTES, lambda text, reply=reply: reply) for reply in (ours, others))
    pool.model = SimpleNamespace(config=CONFIG)
    settings = SimpleNamespace(pool=lambda model: nullcontext(reference))
    results = own.preferences(pool, BYTES, tmp_path, "", settings)
    assert results["own_pair_accuracy"]["value"] == 1 and results["own_pair_accuracy"]["n"] == 1
    if rate is None:
        assert results["own_win_rate"] is None
    else:
        assert results["own_win_rate"]["value"] == rate and results["own_win_rate"]["n"] == own.DUELS
