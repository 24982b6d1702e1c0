"""A task: what is asked, what a writer answered, and how to tell whether a reply is right."""

import re
from typing import NamedTuple


class Task(NamedTuple):
    """`wrong` are words that no right reply has. `turns` follow the first reply: a call's result, and what is
    said to it."""

    kind: str
    question: str
    reply: str
    answer: str
    key: str
    wrong: tuple = ()
    turns: tuple = ()

    @property
    def prompt(self):
        return [{"role": "user", "content": self.question}]

    @property
    def messages(self):
        """The whole conversation."""
        return [*self.prompt, {"role": "assistant", "content": self.reply}, *self.turns]


def right(task, reply):
    """Whether a reply says what was asked for, whatever its manners: exactly the answer, as whole words, and
    none of the wrong ones. A number is right where it is the last one of the reply."""
    words = re.findall(r"\w+", reply.lower())
    if task.answer.isdigit():
        return [word for word in words if word.isdigit()][-1:] == [task.answer]
    has = re.search(rf"(?<!\w){re.escape(task.answer)}(?!\w)", reply, re.I)
    return has is not None and not set(words) & set(task.wrong)


def final_answer(reply):
    """What stands behind the first ####, as graders of GSM8K read it (Cobbe et al. 2021): without commas,
    dollar signs and a full stop at its end, in lower case. None where there is none."""
    found = re.search(r"#### *([^\n]+)", reply)
    return found and found[1].replace(",", "").replace("$", "").strip().removesuffix(".").lower()
