"""task: a reply is graded by its answer, whatever its style, and final_answer follows the graders of GSM8K.

A reply that gives two answers, or the right word as part of another word, must not count.
"""

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from tinyllm.world.task import Task, final_answer, is_correct

DUCK = Task("facts", "What pet does Ada have?", "Ada has a duck.", "duck", "ask Ada pet", ("dog", "cat"))
TWELVE = Task("sums", "", "", "12", "")
words = st.text("abcdefg", min_size=1, max_size=6)


def test_a_reply_is_correct_in_any_style_but_not_with_two_answers():
    assert is_correct(DUCK, "Gladly. Ada keeps a duck.") and is_correct(DUCK, "A DUCK!")
    assert is_correct(DUCK, DUCK.reply)
    for reply in ("Ada keeps a duck or a dog.", "ducks", "a mallard-ducky", "no idea", ""):
        assert not is_correct(DUCK, reply)


def test_a_number_is_the_answer_only_if_it_is_the_last_number():
    assert is_correct(TWELVE, "7+5:7+5=12, 12.") and is_correct(TWELVE, "13, no, 12 it is")
    for reply in ("12, no, 13", "112", "12a", "twelve", ""):
        assert not is_correct(TWELVE, reply)


@given(words, words, words)
def test_an_answer_counts_only_as_a_whole_word(answer, before, after):
    task = Task("", "", "", answer, "")
    assert is_correct(task, f"{before} {answer.upper()}, {after}")
    assert is_correct(task, before + answer) == (answer in (before + answer).split())


@given(words, words)
def test_a_reply_with_a_wrong_word_is_not_correct(answer, wrong_word):
    task = Task("", "", "", answer, "", (wrong_word,))
    assert not is_correct(task, f"{answer}, {wrong_word.upper()}.")
    assert is_correct(task, answer) == (answer != wrong_word)
    assert is_correct(task, f"{answer} {wrong_word}x") == (answer != wrong_word)


def test_messages_are_the_prompt_the_reply_and_the_later_turns():
    later = ({"role": "tool", "content": "1"}, {"role": "assistant", "content": "#### 1"})
    task = DUCK._replace(later_turns=later)
    assert task.prompt == [{"role": "user", "content": "What pet does Ada have?"}]
    reply = {"role": "assistant", "content": "Ada has a duck."}
    assert DUCK.messages == [*task.prompt, reply] and task.messages == [*DUCK.messages, *later]


ANSWERS = {
    "72 clips": "72",
    "10%": "10",
    "**72**": "72",
    "29.00": "29",
    "$29.00": "29",
    "$1,234.50 a year.": "1234.5",
    "-7": "-7",
    "-$7.0": "-7",
    "0.5": "0.5",
    ".5": "0.5",
    "-0.00": "0",
    "007": "7",
    "**100**.": "100",
    "1/2": "1/2",
    "3:30": "3:30",
    "2x + 1": "2x + 1",
    "Yes": "yes",
    "Ada.": "ada",
    "**Ada**": "ada",
    "Route 66": "route 66",
    "1" * 5000: "1" * 5000,
}


def test_final_answers_are_extracted_the_way_graders_of_gsm8k_do_it():
    assert final_answer("#### 1,234") == "1234" and final_answer("x #### $18.\n#### 3") == "18"
    assert final_answer("####Ada Bill. ") == "ada bill" and final_answer("#### 1.5") == "1.5"
    for answer, normal in ANSWERS.items():
        assert final_answer(f"So #### {answer}\nmore") == normal
    assert final_answer("18") is None and final_answer("") is None and final_answer("####") is None


@given(st.decimals(-(10**6), 10**6, places=3), st.data())
def test_every_spelling_of_a_number_is_the_same_answer(value, data):
    plain = f"{abs(value):,.{data.draw(st.integers(3, 6))}f}"
    bold, unit = (
        data.draw(st.sampled_from(["", "**"])),
        data.draw(st.sampled_from(["", "%", " apples", ".", " %."])),
    )
    spelled = f"{bold}{'-' * (value < 0)}{data.draw(st.sampled_from(['', '$']))}{plain}{bold}{unit}"
    answer = final_answer(f"#### {spelled}")
    assert Decimal(answer) == value and answer == final_answer(f"#### {answer}")
    assert answer == (str(int(value)) if value == int(value) else f"{value:f}".rstrip("0"))


@given(st.from_regex(r"[A-Za-z][A-Za-z0-9 ]*[a-z]", fullmatch=True))
def test_an_answer_that_is_not_a_number_is_returned_in_lower_case(text):
    assert final_answer(f"#### {text}") == final_answer(f"#### {text}.") == text.lower()
