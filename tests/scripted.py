"""A stand-in for a model: every reply comes from a function that the test supplies."""


class ScriptedPool:
    """Replaces a WorkerPool: reply(text of the prompt) -> the model's reply.

    Like every reply of this project's models, a reply begins with a space. It ends with the end token unless
    `ends` is False. Replies may have any length.
    """

    def __init__(self, tokenizer, reply, ends=True):
        self.tokenizer, self.reply = tokenizer, reply
        self.end = [tokenizer.special["<|end|>"]] * ends

    def map(self, function, prompts, *_, size):
        """function: sampling.generate_rows, which returns ids, or an exam's function that returns texts."""
        texts = []
        for prompt in prompts:
            text = self.tokenizer.decode(prompt)
            assert not text.endswith(" "), "the prompt ends with a space, and replies begin with one"
            texts.append(self.reply(text))
        if function.func.__name__ != "generate_rows":
            return texts
        return [[*self.tokenizer.encode(f" {text}"), *self.end] for text in texts]


def last_question(text):
    """The text of a prompt -> the user's last question."""
    return text.rpartition("<|user|> ")[2].partition("<|end|>")[0]
