"""make tools-proof: a model with random weights writes 10,000 tool calls under a mask; all must be valid."""

import argparse
import json
import sys
import time
from collections import Counter

import numpy as np

from tinyllm.calls import CallMask
from tinyllm.data.conversation import encode_prompt
from tinyllm.sampling import generate
from tinyllm.tokenizer import train
from tinyllm.transformer import Config, Transformer
from tools.builtin import TOOLS
from tools.protocol import parse
from tools.registry import Registry

ROWS = 200  # calls written in one batch


def main():
    """Let a model with random weights write tool calls under the mask, and check every call."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--count", type=int, default=10_000, help="calls to write (default: 10000)")
    parser.add_argument("--seed", type=int, default=0, help="seed for weights and sampling (default: 0)")
    settings = parser.parse_args()
    registry, rng = Registry(TOOLS), np.random.default_rng(settings.seed)
    tokenizer = train(json.dumps(registry.definitions()), 400)
    config = Config(len(tokenizer), context=352, layers=2, width=64, heads=2)
    model = Transformer(config).initialise(rng)
    names, invalid, tokens, began = Counter(), [], 0, time.monotonic()
    mask = CallMask(tokenizer, registry, only=True)
    prompt = encode_prompt(tokenizer, [{"role": "user", "content": "Call a tool."}])
    for first in range(0, settings.count, ROWS):
        rows = min(ROWS, settings.count - first)
        budgets = rng.integers(mask.need, 3 * mask.need, rows).tolist()
        within_budget = lambda row, ids, room, budgets=budgets: mask(row, ids, budgets[row] - len(ids))
        draws = rng.random((rows, max(budgets)))
        calls = generate(model, [prompt] * rows, max(budgets), draws, stop=mask.end, mask=within_budget)
        for budget, ids in zip(budgets, calls):
            tokens += len(ids)
            text = tokenizer.decode_bytes(ids[:-1]).removeprefix(b" ")
            parts = parse(text)
            closed = ids[-1] == mask.end and len(ids) <= budget and len(parts) == 1
            if closed and registry.accepts(parts[0]):
                names[parts[0].name] += 1
            else:
                invalid.append(text)
    print(
        f"{settings.count:,} calls, {len(invalid)} invalid or not closed within their budget of {mask.need} "
        f"to {3 * mask.need - 1} tokens; {tokens:,} tokens in {time.monotonic() - began:.0f} s"
    )
    print("tools called: " + ", ".join(f"{name} {count:,}" for name, count in names.most_common()))
    if invalid:
        sys.exit(f"the first invalid call: {invalid[0]!r}")


if __name__ == "__main__":
    main()
