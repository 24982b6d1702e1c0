"""The simulated annotator ranks a stage's replies as a person would in `make rank`, mistakes included.

It knows the built-in world, so it can judge replies. tinyllm/world/oracle.py defines what a good reply is.
"""

from tinyllm import checkpoint
from tinyllm.preferences import rankings
from tinyllm.sampling import REPLY_TOKENS, answer
from tinyllm.world import World, oracle
from tinyllm.world.dice import Dice

GROUP = 4  # replies to each prompt


def annotate(settings, parent, count, path):
    """Rank the replies of the checkpoint `parent` to `count` prompts, and write the rankings to `path`.

    Four replies are sampled for each prompt. A fifth reply is borrowed from a random prompt of the same sort
    (about a person, an errand or neither), and the name or errand in it is replaced with the one from this
    prompt. Without these fifth replies the reward model would never see "unknown to me" out of place, or the
    answer to another question. It would give such replies high scores everywhere, and the policy would learn
    to exploit that.
    """
    world, dice = World(settings.seed), Dice(f"rankings of world {settings.seed}")
    tasks = oracle.prompts(dice, world, "train", count)
    model, tokenizer = checkpoint.load_language_model(parent)
    with settings.pool(model) as pool:
        prompts = [task.prompt for task in tasks for _ in range(GROUP)]
        texts = [text for text, _ in answer(pool, tokenizer, prompts, REPLY_TOKENS, [settings.seed, 15])]
    sorts = [oracle.subject(task)[0] for task in tasks]
    same_sort = {sort: [i for i, other in enumerate(sorts) if other == sort] for sort in set(sorts)}
    model_hash, entries = checkpoint.digest(parent), []
    for i, task in enumerate(tasks):
        other = dice.choice(same_sort[sorts[i]])
        foreign = texts[other * GROUP + dice.integer(0, GROUP - 1)]
        completions = texts[i * GROUP : (i + 1) * GROUP]
        completions.append(oracle.transplant(foreign, tasks[other], task))
        ranks = oracle.annotate(dice, [oracle.quality(task, text) for text in completions])
        ranking = rankings.Ranking(task.prompt, completions, ranks)
        entries.append(rankings.entry(ranking, "simulated", model_hash, settings.seed))
    rankings.save(path, entries)
