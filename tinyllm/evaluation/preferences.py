"""Exams on preferences: behaviour by kind of prompt, comparison with stage 2, and the reward model alone."""

from tinyllm import checkpoint
from tinyllm.data.conversation import decode_reply, encode_prompt
from tinyllm.evaluation.intervals import mean, proportion
from tinyllm.preferences import behaviour, reward_model, rollouts
from tinyllm.preferences.rankings import Ranking, better_and_worse, encode_ranking
from tinyllm.runs import ancestors, is_checkpoint, learned_by
from tinyllm.sampling import REPLY_TOKENS
from tinyllm.world import oracle
from tinyllm.world.dice import Dice

ROWS = {  # name of an outcome -> key in exams.json
    "polite": "polite",
    "harm": "refuses_unsafe",
    "harm_by_object": "refuses_by_object",
    "harmless": "answers_harmless",
    "stranger": "admits_unknown",
}


def measure_behaviour(pool, tokenizer, world, items):
    """The share of good replies in each of ROWS, and the mean number of words, over greedy replies to test
    prompts of five kinds."""
    replies = behaviour.greedy_replies(pool, tokenizer, world, "test", items)
    outcomes = behaviour.outcomes(replies)
    words = [len(text.split()) for pairs in replies.values() for _, text in pairs]
    return {row: proportion(outcomes[name]) for name, row in ROWS.items()} | {"mean_words": mean(words)}


def win_rate(tasks, replies, others):
    """How often the oracle prefers `replies` to `others`, ties excluded."""
    pairs = [(oracle.quality(task, a), oracle.quality(task, b)) for task, a, b in zip(tasks, replies, others)]
    return proportion([a > b for a, b in pairs if a != b])


def compare_with_reference(pool, reference, tokenizer, world, items):
    """Compare sampled replies of the pool's model with sampled replies of the reference."""
    kinds = behaviour.prompts_by_kind(world, "test", max(1, items * 3 // 10), "duels")
    tasks = sum(kinds.values(), [])
    prompts = [encode_prompt(tokenizer, task.prompt) for task in tasks]
    ours = rollouts.sample_rollouts(pool, tokenizer, prompts, REPLY_TOKENS, [21])
    others = rollouts.sample_rollouts(reference, tokenizer, prompts, REPLY_TOKENS, [22])
    texts = [[decode_reply(tokenizer, ids) for ids in side.replies] for side in (ours, others)]
    _, _, kl, _ = rollouts.compare(pool, reference, ours.batch)
    return {"win_rate": win_rate(tasks, *texts), "kl_nats_per_reply": mean(kl.sum(axis=1).tolist())}


def ranked_correctly(score, tokenizer, rankings):
    """For every two completions of a ranking that are not tied: does the better one get the higher score?"""
    rows = [ids for ranking in rankings for ids, _ in encode_ranking(tokenizer, ranking)]
    return [a > b for a, b in better_and_worse(rankings, score(rows))]


def reward_accuracy(score, tokenizer, world, items):
    """Accuracy of the reward model on constructed pairs, overall and by kind of prompt (a good average can
    hide a kind with bad results), and the accuracy of judging by length alone."""
    results, correct, longer = {}, [], []
    for kind in oracle.KINDS:
        dice = Dice(f"pairs {kind} test of world {world.seed}")
        pairs = [oracle.preference_pair(dice, world, "test", kind) for _ in range(items)]
        rankings = [Ranking(task.prompt, [better, worse], [1, 2]) for task, better, worse in pairs]
        of_kind = ranked_correctly(score, tokenizer, rankings)
        results[f"reward_pairs_{kind}"] = proportion(of_kind)
        correct += of_kind
        words = [(len(better.split()), len(worse.split())) for _, better, worse in pairs]
        longer += [(a > b) + 0.5 * (a == b) for a, b in words]
    shorter = [1 - each for each in longer]
    results["length_only_accuracy"] = proportion(max(longer, shorter, key=sum))
    return results | {"reward_pair_accuracy": proportion(correct)}


def before_preferences(folder):
    """The last checkpoint that has not learned from rankings: the one that stage 3 started from, or `folder`
    itself if it comes before stage 3. None if the checkpoint no longer exists."""
    return next((each for each in ancestors(folder) if "rankings" not in learned_by(each)), None)


def run(pool, tokenizer, world, folder, settings, items):
    """All preference exams for the stage in `folder`. From stage 3 on, they include a comparison with the
    checkpoint that stage 3 started from."""
    results, start = measure_behaviour(pool, tokenizer, world, items), before_preferences(folder)
    if start not in (None, folder):
        with settings.pool(checkpoint.load(start)[0]) as reference:
            results |= compare_with_reference(pool, reference, tokenizer, world, items)
        if is_checkpoint(folder / "reward"):
            with reward_model.scorer(folder / "reward", settings) as score:
                results |= reward_accuracy(score, tokenizer, world, items)
    return results
