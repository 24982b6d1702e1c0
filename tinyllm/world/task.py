"""A task: a question, a reply to it, and what is needed to grade any other reply.

Correct replies come in many styles, so a grader cannot compare them with one reference text. A task
therefore holds the short answer, and the words that no correct reply contains.
"""

import re
from decimal import Decimal
from typing import NamedTuple


class Task(NamedTuple):
    """A question with everything that is needed to train on it and to grade replies to it.

    key             what the question means, however it is worded; the key decides the split (see split_of)
    wrong_words     words that no correct reply contains
    later_turns     messages after the reply: the result of a tool call, and the reply to that result
    earlier_turns   messages before the question
    """

    kind: str
    question: str
    reply: str
    answer: str
    key: str
    wrong_words: tuple = ()
    later_turns: tuple = ()
    earlier_turns: tuple = ()

    @property
    def prompt(self):
        return [*self.earlier_turns, {"role": "user", "content": self.question}]

    @property
    def messages(self):
        """The whole conversation."""
        return [*self.prompt, {"role": "assistant", "content": self.reply}, *self.later_turns]


def as_context(messages):
    """The same messages as context only: the loss does not cover the replies."""
    return [{**message, "weight": 0} if message["role"] == "assistant" else message for message in messages]


def is_correct(task, reply):
    """Whether a reply gives the answer, in any style: "Ada keeps a duck, silly." gives the answer "duck".

    The reply must contain the answer as whole words, and none of the wrong words. If the answer is
    a number, only the last number of the reply counts.
    """
    words = re.findall(r"\w+", reply.lower())
    if task.answer.isdigit():
        return [word for word in words if word.isdigit()][-1:] == [task.answer]
    match = re.search(rf"(?<!\w){re.escape(task.answer)}(?!\w)", reply, re.I)
    return match is not None and not set(words) & set(task.wrong_words)


def final_answer(reply):
    """The answer after the first ####, in the form that GSM8K's graders compare (Cobbe et al. 2021), or None.

    Commas, dollar signs and asterisks are dropped. A number also loses its unit and trailing decimal zeros:
    "$1,234.50 a day." becomes "1234.5", "10%" becomes "10". Any other text, such as "Ada." or "1/2", is put
    in lower case, without a final full stop.
    """
    match = re.search(r"#### *([^\n]+)", reply)
    if match is None:
        return None
    text = re.sub(r"[,$*]", "", match[1]).strip().removesuffix(".").lower()
    number = re.match(r"-?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?=[\s%]|$)", text)
    if number is None:
        return text
    number = f"{Decimal(number[0]):f}"
    number = number.rstrip("0").rstrip(".") if "." in number else number
    return "0" if number == "-0" else number
