"""Exams on your own files: held-out questions, problems and rankings.

About one entry in ten is held out; a hash of the user's first question decides which (formats.split).
"""

import sys
from statistics import mode

from tinyllm import checkpoint
from tinyllm.data import formats
from tinyllm.data.conversation import batch_of, encode_last_reply, encode_prompt, fits, prompt_of
from tinyllm.evaluation.generation import converse_with_tools
from tinyllm.evaluation.intervals import mean, proportion
from tinyllm.evaluation.preferences import before_preferences, ranked_correctly
from tinyllm.preferences import rankings, reward_model, rollouts
from tinyllm.runs import is_checkpoint, path_of
from tinyllm.sampling import answer, generate_replies, reply_room, show_prompt
from tinyllm.world.task import final_answer
from tools.builtin import TOOLS
from tools.registry import Registry

MOST, SHOWN = 200, 10  # maximum numbers of held-out items to measure and to show
DUELS = 50  # comparisons wanted: each of n held-out prompts is answered 50 // n times, at least once


def run(pool, tokenizer, folder, learned, settings):
    """The exams on each of your own files that the stage in `folder` has learned from."""
    results = {}
    if path := path_of(learned, "instructions"):
        results |= questions(pool, tokenizer, *formats.split(formats.instructions(path)))
    if path := path_of(learned, "problems"):
        results |= problems(pool, tokenizer, formats.split(formats.problems(path))[1])
    if path := path_of(learned, "rankings"):
        results |= preferences(pool, tokenizer, folder, path, settings)
    return results


def questions(pool, tokenizer, training, held_out):
    """How often a greedy reply is the expected answer, how likely the expected answer is, and how often the
    most common answer to the training questions would be right."""
    held_out, context = [up_to_reply(messages) for messages in held_out[:MOST]], pool.model.config.context
    held_out = [each for each in held_out if fits(encode_last_reply(tokenizer, each)[0], context)]
    if not held_out:
        return {}
    prompts, wanted = [messages[:-1] for messages in held_out], [each[-1]["content"] for each in held_out]
    longest = max(len(tokenizer.encode(text)) for text in wanted)
    given = [text for text, _ in answer(pool, tokenizer, prompts, 2 * longest + 2)]
    commonest = mode(normalise(up_to_reply(messages)[-1]["content"]) for messages in training)
    shown = [
        {"prompt": show_prompt(prompt), "expected": right, "reply": reply}
        for prompt, right, reply in zip(prompts, wanted, given)
    ]
    return {
        "own_questions_exact": proportion([normalise(a) == normalise(b) for a, b in zip(given, wanted)]),
        "own_questions_log_prob": mean(answer_log_probs(pool, tokenizer, held_out)),
        "own_questions_commonest": proportion([normalise(text) == commonest for text in wanted]),
        "own_questions_shown": shown[:SHOWN],
    }


def up_to_reply(messages):
    """A conversation without the messages after the last reply that the loss covers."""
    return messages[: len(prompt_of(messages)) + 1]


def normalise(text):
    """The text in lower case, with single spaces between words."""
    return " ".join(text.lower().split())


def answer_log_probs(pool, tokenizer, conversations):
    """log p, in nats, of the last reply of each conversation, including its end token."""
    batch = batch_of([encode_last_reply(tokenizer, messages) for messages in conversations])
    return (rollouts.log_probs(pool, batch["ids"], batch["targets"]) * batch["weights"]).sum(axis=1).tolist()


def problems(pool, tokenizer, held_out):
    """Accuracy on held-out problems, and the accuracy of always giving the most common answer."""
    if not held_out:
        return {}
    wanted = [final_answer(messages[-1]["content"]) for messages in held_out[:MOST]]
    prompts = [prompt_of(messages, last=False) for messages in held_out[:MOST]]
    done = converse_with_tools(pool, tokenizer, prompts, Registry(TOOLS), 200)
    given = [final_answer(messages[-1]["content"]) for messages in done]
    correct = [a == b for a, b in zip(given, wanted)]
    commonest = [each == mode(wanted) for each in wanted]
    return {"own_problems_exact": proportion(correct), "own_problems_commonest": proportion(commonest)}


def preferences(pool, tokenizer, folder, path, settings):
    """How often the reward model scores the policy's reply to a held-out prompt above a reply of stage 2
    (both sampled), and how often it ranks two held-out replies as people did."""
    _, held_out = rankings.split_rankings(rankings.read(path))
    context = pool.model.config.context
    held_out = [each for each in held_out if rankings.fits(each, tokenizer, context)][:MOST]
    if not held_out:
        print("stage 3 is not scored: no held-out ranking fits into the context", file=sys.stderr)
    reward, start = folder / "reward", before_preferences(folder)
    if not held_out or start is None or not is_checkpoint(reward):
        return {}
    prompts = [encode_prompt(tokenizer, ranking.prompt) for ranking in held_out]
    prompts *= max(1, DUELS // len(prompts))
    room = reply_room(context)
    model, _ = checkpoint.load(start)
    with settings.pool(model) as reference, reward_model.scorer(reward, settings) as score:
        sides = ((pool, [24]), (reference, [25]))
        sampled = [generate_replies(side, tokenizer, prompts, room, seed) for side, seed in sides]
        ours, others = (score([p + r for p, r in zip(prompts, replies)]) for replies in sampled)
        correct = ranked_correctly(score, tokenizer, held_out)
    wins = (ours > others)[ours != others]  # ties do not count
    return {"own_win_rate": proportion(wins), "own_pair_accuracy": proportion(correct)}
