"""Talk to any stage; its calls are valid because it can write no others.

Outside a call the model writes what it likes. From <tool_call> on, the grammar of the tools decides which
tokens it may choose among, and the budget is watched, so the call is closed before the tokens run out. This
needs nothing of the model: a random one calls tools with valid arguments, though with odd ones.

What a stage has learned from is one question, without earlier ones and without a description of the tools.
With more before it, it loses its way, so this is what it is shown; --history shows it all that was said.
"""

import json
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tinyllm import checkpoint, commands
from tinyllm.calls import CallMask
from tinyllm.conversation import prompt, read
from tinyllm.sampling import generate
from tinyllm.stages import s0_random
from tinyllm.training import RunError, Settings, UsageError, option
from tools import agent
from tools.builtin import TOOLS
from tools.protocol import BadCall, parse
from tools.registry import Registry, Result

HELP = """/stage N           talk to another stage        /temperature X   0 takes the likeliest token
/tools on|off|only  calls: may, may not, must    /save FILE       write the conversation as JSON
/new               forget the conversation      /quit            end (or Ctrl-D)"""


class Writer:
    """A `generate` for tools.agent.run: messages -> a reply, token by token to `show`."""

    def __init__(self, model, tokenizer, rng, temperature=0.8, most=200, history=False):
        self.model, self.tokenizer, self.rng = model, tokenizer, rng
        self.temperature, self.most, self.history, self.mask = temperature, most, history, None
        self.show = lambda text: None

    def __call__(self, messages):
        tokenizer, shown = self.tokenizer, 0
        end = tokenizer.special["<|end|>"]
        if self.mask:
            self.mask.rows.clear()
        if not self.history:
            messages = messages[max(i for i, turn in enumerate(messages) if turn["role"] == "user") :]

        def watch(row, written):
            nonlocal shown
            text = read(tokenizer, written.tolist())
            if not text.endswith("\ufffd"):                       # a character that is half written waits
                self.show(text[shown:])
                shown = len(text)
            return self.mask(row, written) if self.mask else None

        ((tokens, _),) = generate(self.model, [prompt(tokenizer, messages)], self.most, self.rng,
                                  self.temperature, stop=[end], mask=watch)
        text = read(tokenizer, tokens)
        self.show(text[shown:])
        yield text
        if tokens[-1:] != [end]:
            raise agent.CutOff


@dataclass(frozen=True)
class Chat(Settings):
    stage: str = option("", "number or folder name of the stage (default: the last there is)")
    temperature: float = option(0.8, "0 takes the likeliest token; 1 samples as the model believes")
    tokens: int = option(200, "tokens of one reply at most")
    tools: str = option("on", "calls: may, may not, must", choices=("on", "off", "only"))
    history: bool = option(False, "show the stage earlier questions and a description of the tools too")


def chat(cfg):
    """Talk to a stage. /help lists what else can be said."""
    if cfg.tokens < 1:
        raise UsageError("--tokens must be 1 or more")
    talk = Talk(cfg)
    print(f"{talk.folder}; /help lists the commands", file=sys.stderr)
    while True:
        try:
            line = input("> " if sys.stdin.isatty() else "").strip()
        except EOFError:
            return
        except UnicodeDecodeError:
            print("error: this is not UTF-8", file=sys.stderr)
            continue
        if line in ("/quit", "/exit"):
            return
        try:
            talk.command(line) if line.startswith("/") else talk.say(line) if line else None
        except (RunError, UsageError, OSError, ValueError) as error:
            print(f"error: {error}", file=sys.stderr)
        except KeyboardInterrupt:
            print("\n(stopped)", file=sys.stderr)


class Talk:
    """A conversation in a terminal: the history, and what can be changed while it goes on."""

    def __init__(self, cfg):
        self.run, self.history, self.last = cfg.run, [], None
        self.temperature, self.most, self.tools = cfg.temperature, cfg.tokens, cfg.tools
        self.whole = cfg.history
        self.rng = np.random.default_rng(cfg.seed)
        self.load(cfg.stage)

    def load(self, stage):
        folder = commands.stage_folder(self.run, stage)
        model, tokenizer = checkpoint.load(folder)
        if tokenizer is None or not model.config.causal:
            raise RunError(f"{folder} cannot write: it has no tokenizer, or is a masked model")
        self.folder = folder
        self.writer = Writer(model, tokenizer, self.rng, self.temperature, self.most, self.whole)
        self.equip()

    def equip(self):
        self.registry = Registry([] if self.tools == "off" else TOOLS)
        self.writer.mask = None
        if self.tools != "off":
            mask = CallMask(self.writer.tokenizer, self.registry, [self.most], self.tools == "only")
            if self.most <= mask.need:
                raise UsageError(f"a call needs {mask.need} tokens: raise --tokens or use /tools off")
            self.writer.mask = mask

    def say(self, line):
        self.writer.show = lambda text: print(text, end="", flush=True)
        steps = 1 if self.tools == "only" else 8
        messages = [*self.history, {"role": "user", "content": line}]
        found = agent.run(self.writer, self.registry, messages, max_steps=steps, show=self.note)
        print()
        if found.outcome not in (agent.ANSWERED, agent.STEP_LIMIT):
            print(f"({found.outcome})", file=sys.stderr)
        self.last, self.history = found, found.messages[bool(self.registry.tools):]

    def note(self, part):
        if isinstance(part, Result):
            print(f"\n  {part.name} -> {json.dumps(part.value, ensure_ascii=False)}", flush=True)
        elif isinstance(part, BadCall):
            print(f"\n  ({part.problem})", flush=True)

    def command(self, line):
        name, _, value = line.partition(" ")
        value = value.strip()
        if name == "/stage":
            self.load(value)
            print(self.folder, file=sys.stderr)
        elif name == "/temperature":
            try:
                number = float(value)
            except ValueError:
                number = -1.0
            if not 0 <= number < float("inf"):
                raise UsageError(f"a temperature is a number from 0 up, not {value!r}")
            self.temperature = self.writer.temperature = number
        elif name == "/tools" and value in ("on", "off", "only"):
            self.tools = value
            self.equip()
        elif name == "/save" and value:
            (self.last or agent.Conversation(self.history, "answered", 0)).save(Path(value))
            print(f"saved to {value}", file=sys.stderr)
        elif name == "/new":
            self.history, self.last = [], None
        else:
            print(HELP)


@dataclass(frozen=True)
class Proof(Settings):
    stage: str = option("0", "number or folder name of the stage that writes")
    count: int = option(10_000, "calls to write")
    temperature: float = option(1.0, "of the model")


def proof(cfg):
    """Let a model, the random one by default, write calls under the mask, and check every one."""
    if cfg.count < 1:
        raise UsageError("--count must be 1 or more")
    if cfg.stage == "0" and not (cfg.folder("0-random") / "model.safetensors").exists():
        common = {key: getattr(cfg, key) for key in ("run", "size", "seed", "workers")}
        s0_random.main(s0_random.Random(**common))
    model, tokenizer = checkpoint.load(commands.stage_folder(cfg.run, cfg.stage))
    registry, rng = Registry(TOOLS), np.random.default_rng(cfg.seed)
    names, bad, tokens, begun = Counter(), [], 0, time.monotonic()
    mask = CallMask(tokenizer, registry, [], only=True)
    for first in range(0, cfg.count, 200):
        rows = min(200, cfg.count - first)
        mask.budget, mask.rows = rng.integers(mask.need, 3 * mask.need, rows).tolist(), {}
        start = prompt(tokenizer, [{"role": "user", "content": "Call a tool."}])
        found = generate(model, [start] * rows, max(mask.budget), rng, cfg.temperature, stop=[mask.end],
                         mask=mask)
        for budget, (written, _) in zip(mask.budget, found):
            text = tokenizer.decode_bytes(written[:-1]).removeprefix(b" ")
            parts = parse(text)
            good = (written[-1] == mask.end and len(written) <= budget and len(parts) == 1
                    and registry.accepts(parts[0]))
            tokens += len(written)
            if good:
                names[parts[0].name] += 1
            else:
                bad.append(text)
    seconds = time.monotonic() - begun
    print(f"{cfg.count:,} calls, {len(bad)} invalid or not closed in their budget of {mask.need} to "
          f"{3 * mask.need - 1} tokens; {tokens:,} tokens in {seconds:.0f} s")
    print("tools called: " + ", ".join(f"{name} {count:,}" for name, count in names.most_common()))
    if bad:
        raise RunError(f"the first invalid one: {bad[0]!r}")
