"""A task: a question, a reply to it, and what a grader needs to mark any other reply.

Correct replies come in many styles, so a grader cannot compare them with one reference text. A task
therefore holds the short answer, and the words that no correct reply contains.
"""

import re
from typing import NamedTuple


class Task(NamedTuple):
    """A question with everything that is needed to train on it and to mark replies to it.

    key           the meaning of the question in any wording; it decides the split (see split_of)
    wrong_words   words that no correct reply contains
    later_turns   messages after the reply: the result of a tool call, and the answer to that result
    """

    kind: str
    question: str
    reply: str
    answer: str
    key: str
    wrong_words: tuple = ()
    later_turns: tuple = ()

    @property
    def prompt(self):
        return [{"role": "user", "content": self.question}]

    @property
    def messages(self):
        """The whole conversation."""
        return [*self.prompt, {"role": "assistant", "content": self.reply}, *self.later_turns]


def is_correct(task, reply):
    """Whether a reply gives the answer, in any style: "Ada keeps a duck, silly." for "duck".

    The reply must contain the answer as whole words, and none of the wrong words. If the answer is
    a number, it must be the last number of the reply.
    """
    words = re.findall(r"\w+", reply.lower())
    if task.answer.isdigit():
        return [word for word in words if word.isdigit()][-1:] == [task.answer]
    match = re.search(rf"(?<!\w){re.escape(task.answer)}(?!\w)", reply, re.I)
    return match is not None and not set(words) & set(task.wrong_words)


def final_answer(reply):
    """The text after the first ####, normalised as GSM8K's graders do (Cobbe et al. 2021).

    Lower case, without commas, dollar signs and a full stop at the end. None if there is no ####.
    """
    match = re.search(r"#### *([^\n]+)", reply)
    return match and match[1].replace(",", "").replace("$", "").strip().removesuffix(".").lower()
