"""Someone who takes exams without being a model: every reply is written by a function of the test."""


class ScriptedPool:
    """In place of a WorkerPool: reply(text of the prompt) -> what the model writes after it.

    A space is put before each reply, as in everything that the models of this project write. Replies are as
    long as they like, and end by themselves unless `ends` is False.
    """

    def __init__(self, tokenizer, reply, ends=True):
        self.tokenizer, self.reply = tokenizer, reply
        self.end = [tokenizer.special["<|end|>"]] * ends

    def map(self, function, prompts, *_, size):
        """function: sampling.generate_rows with ids as its result, or an exam's own that returns texts."""
        texts = []
        for prompt in prompts:
            text = self.tokenizer.decode(prompt)
            assert not text.endswith(" "), "no token of a reply would begin after a space"
            texts.append(self.reply(text))
        if function.func.__name__ != "generate_rows":
            return texts
        return [[*self.tokenizer.encode(f" {text}"), *self.end] for text in texts]


def last_question(text):
    """The text of a prompt -> what its last user asked."""
    return text.rpartition("<|user|> ")[2].partition("<|end|>")[0]
