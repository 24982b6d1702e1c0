"""The exams: all measurements on held-out data, run after every stage to reveal forgetting.

Most results are {"value", "low", "high", "n"}: a mean over n items with a 95 % confidence interval. Exams run
after a stage is saved, and training imports nothing from here, so a crash in an exam cannot lose a trained
model.
"""

import functools
import sys
import time

from tinyllm import checkpoint
from tinyllm.checkpoint.files import read_json, write_json
from tinyllm.data import corpus
from tinyllm.evaluation import generation, own, preferences, text
from tinyllm.runs import check_sources, is_checkpoint, learned_by
from tinyllm.stages.sizes import SIZES
from tinyllm.world import World


def examine(folder, settings, again=False):
    """Run the exams of the stage in `folder`, if it is finished, and write its exams.json.

    A stage that has already been examined is skipped, unless `again` is true.
    """
    if not is_checkpoint(folder) or not again and is_examined(folder):
        return
    check_sources(folder, learned_by(folder))
    print(f"{folder}: exams", file=sys.stderr)
    began, stage_settings = time.monotonic(), read_json(folder / "stage.json")["settings"]
    model, tokenizer = checkpoint.load(folder)
    with settings.pool(model) as pool:
        results = measure(pool, tokenizer, folder, stage_settings, settings)
    results |= {"weights": checkpoint.digest(folder), "seconds": round(time.monotonic() - began, 1)}
    write_json(folder / "exams.json", results)


def is_examined(folder):
    """Whether exams.json belongs to the weights in the folder (interrupted exams write no file)."""
    path = folder / "exams.json"
    return path.exists() and read_json(path).get("weights") == checkpoint.digest(folder)


@functools.lru_cache(maxsize=1)
def validation_text(path, sha256, seed, characters):
    """-> (validation documents, results of the 5-gram baseline), computed once for all stages of a run.
    sha256 is an argument so that a changed file is read again."""
    training, validation = corpus.load(path, seed, characters)
    return validation, text.fivegram(training, validation)


def measure(pool, tokenizer, folder, stage_settings, settings):
    """Run the exams that suit what the model has learned. stage_settings: from stage.json."""
    seed, size = stage_settings["seed"], SIZES[stage_settings["size"]]
    config, learned, results = pool.model.config, learned_by(folder), {}
    if "text" in learned:
        validation, fivegram = validation_text(**learned["text"], seed=seed, characters=size.characters)
        results |= fivegram
        if not config.causal:
            return results | text.hidden_tokens(pool, tokenizer, validation)
        results |= text.bits_per_byte(pool, tokenizer, validation, config.context)
    if not any(source["path"] for source in learned.values()):
        # Before stage 2 hardly any reply is right or ends by itself, so a fifth of the items is enough.
        answers = {"instructions", "problems"} & learned.keys()
        world, items = World(seed), size.exam_items if answers else max(4, size.exam_items // 5)
        results["entropy_bits_per_byte"] = world.entropy_per_byte()
        results["induction"] = text.induction(pool, tokenizer)
        results["fact_cloze"] = text.cloze(pool, tokenizer, world.fact_clozes(3 * size.exam_items))
        results["story_cloze"] = text.cloze(pool, tokenizer, world.story_clozes(3 * size.exam_items // 2))
        results |= generation.instructions(pool, tokenizer, world, items)
        results |= generation.reasoning(pool, tokenizer, world, items)
        results |= generation.tool_calls(pool, tokenizer, world, items)
        results |= preferences.run(pool, tokenizer, world, folder, settings, items)
    return results | own.run(pool, tokenizer, folder, learned, settings)
