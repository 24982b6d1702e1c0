"""Talk to any stage. The model may call tools: each call is run, and the model gets its result.

The model sees the whole conversation. When the context is full, the oldest turns are left out. A stage that
learned from the built-in conversations sees at most TURNS turns: hardly any of them has more.
"""

import json
import math
import re
import shutil
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tinyllm import checkpoint
from tinyllm.calls import CallMask
from tinyllm.data.conversation import decode_reply, encode_conversation, encode_prompt
from tinyllm.errors import TinyllmError, UsageError
from tinyllm.parallel import WorkerPool
from tinyllm.runs import Settings, finished_stages, learned_by, option, path_of, stage_folder
from tinyllm.sampling import answer, fold, generate, printable, reply_room
from tools import agent
from tools.builtin import TOOLS
from tools.protocol import BadCall, Call, render_call, render_result
from tools.registry import Registry, Result

HELP = """/stage N            talk to another stage             /temperature X   0 is greedy
/tools on|off|only|named: when to call tools           /save FILE      write the conversation as JSON
/ask on|off         ask you before a call runs        /new             forget the conversation
/compare QUESTION   ask every stage                   /quit            end (or Ctrl-D)"""
MAX_STEPS = 8  # replies to one question, tool calls included
TURNS = 4  # in the longest follow-up conversations of world/conversations.py
# A small model that was never trained to call tools needs to see one example (Brown et al. 2020).
EXAMPLE = [
    {"role": "user", "content": "What is 6 times 7? Use the calculator."},
    {"role": "assistant", "content": render_call(Call("calculator", {"expression": "6*7"}))},
    {"role": "tool", "content": render_result(42)},
    {"role": "assistant", "content": "6 times 7 is 42."},
]
LOOP = 24  # a reply is stopped if its last tokens, at least this many, repeat one sequence three times


class Writer:
    """A callback for tools.agent.run: generates a reply and prints it token by token."""

    def __init__(self, model, tokenizer, settings):
        self.model, self.tokenizer, self.settings = model, tokenizer, settings
        self.rng, self.temperature = np.random.default_rng(settings.seed), settings.temperature
        self.mask, self.turns = None, math.inf

    def show(self, text):
        print(printable(text), end="", flush=True)

    def __call__(self, messages):
        tokenizer, most, shown = self.tokenizer, self.settings.tokens, 0
        end = tokenizer.special["<|end|>"]
        # With `only`, the reply must be a call, unless there is already a result to answer from.
        mask = None if self.mask and self.mask.only and messages[-1]["role"] == "tool" else self.mask
        if mask:
            mask.restart([most])
        context = self.model.config.context
        prompt = encode_recent(tokenizer, messages, context, self.turns)
        if len(prompt) > context:
            print(f"(of {len(prompt):,} tokens, the model sees only the last {context:,})", file=sys.stderr)

        only_end = np.arange(self.model.config.vocab) == end

        def show_and_mask(row, written):
            nonlocal shown
            text = decode_reply(tokenizer, written.tolist())
            if not text.endswith("\ufffd"):  # wait for the other bytes of an incomplete character
                self.show(text[shown:])
                shown = len(text)
            allowed = mask(row, written) if mask else None
            may_end = allowed is None or allowed[end]  # no end token inside a call
            return only_end if may_end and is_loop(written) else allowed

        draws = self.rng.random((1, most))
        how = {"temperature": self.temperature, "stop": [end], "mask": show_and_mask}
        (tokens,) = generate(self.model, [prompt], most, draws, **how)
        text = decode_reply(tokenizer, tokens)
        self.show(text[shown:])
        yield text
        if tokens[-1:] != [end]:
            yield agent.Finish(agent.LENGTH)


def encode_recent(tokenizer, messages, context, most=math.inf):
    """The prompt for the next reply: at most `most` turns, fewer if they would leave no room for the reply.

    A turn begins with a user message and is dropped as a whole; the last turn stays. The system message stays
    unless it fills more than half of the context.
    """
    system = [message for message in messages[:1] if message["role"] == "system"]
    if not fits(tokenizer, system, context):
        messages, system = messages[1:], []
    while True:
        prompt = encode_prompt(tokenizer, messages)
        turns = [i for i, message in enumerate(messages) if message["role"] == "user"]
        if len(turns) < 2 or len(turns) <= most and len(prompt) + reply_room(context) <= context:
            return prompt
        messages = [*system, *messages[turns[1] :]]


def fits(tokenizer, system, context):
    """Whether system messages fill at most half of the context."""
    return len(encode_conversation(tokenizer, system)[0]) <= context // 2


def is_loop(tokens):
    """Whether the last tokens, at least LOOP of them, repeat one sequence three times."""
    tokens = np.asarray(tokens)
    return any(
        tokens[-1 - n] == tokens[-1] and (tokens[-3 * n :].reshape(3, n) == tokens[-n:]).all()
        for n in range(LOOP // 3, len(tokens) // 3 + 1)
    )


@dataclass(frozen=True)
class ChatSettings(Settings):
    stage: str = option("", "number or folder name of the stage (default: the last one)")
    origin: str = option("", "checkpoint folder or GGUF file to talk to, instead of a stage", flag="from")
    temperature: float = option(0.8, "0 is greedy; 1 samples from the model's distribution", (0, 100))
    tokens: int = option(200, "maximum number of tokens in a reply", (1, 10**6))
    tools: str = option(
        "auto",
        "tool calls. auto: as the model has learned; on: allowed; off: never; only: always; "
        "named: if you write 'use the calculator'",
        choices=("auto", "on", "off", "only", "named"),
    )


def main(settings):
    """Talk to a stage. /help lists the commands."""
    chat = Chat(settings)
    print(f"{chat.folder}; /help lists the commands", file=sys.stderr)
    while True:
        try:
            line = input("> " if sys.stdin.isatty() else "").strip()
        except EOFError:
            return
        except UnicodeDecodeError:
            print("error: the input is not UTF-8", file=sys.stderr)
            continue
        if line in ("/quit", "/exit"):
            return
        try:
            if line.startswith("/"):
                chat.command(line)
            elif line:
                chat.ask(line)
        except (TinyllmError, OSError, ValueError) as error:
            print(f"error: {error}", file=sys.stderr)
        except KeyboardInterrupt:
            print("\n(stopped)", file=sys.stderr)


class Chat:
    """A chat session in the terminal, with the settings that its commands change."""

    def __init__(self, settings):
        self.settings, self.tools = settings, settings.tools
        self.history, self.last = [], None
        self.asks_first = False
        self.writer = Writer(None, None, settings)
        self.load(Path(settings.origin) if settings.origin else stage_folder(settings.run, settings.stage))

    def load(self, folder):
        self.folder = folder
        self.writer.model, self.writer.tokenizer = checkpoint.load_language_model(self.folder)
        fold(self.writer.model)
        self.learned = learned_by(folder)
        self.is_built_in = path_of(self.learned, "instructions") == ""
        self.writer.turns = TURNS if self.is_built_in else math.inf
        self.masks = {}  # of this model's vocabulary
        self.choose_tools(self.tools)

    def choose_tools(self, tools):
        """auto: a stage trained on the built-in conversations calls tools on its own, other stages call none,
        and a model from elsewhere must call a tool if the question names it ("use the calculator")."""
        now = tools
        if tools == "auto":
            now = "on" if self.is_built_in else "off" if self.learned else "named"
        self.offer([] if now in ("off", "named") else self.describable_tools(), now == "only")
        self.tools, self.named = tools, Registry(TOOLS).tools if now == "named" else {}

    def offer(self, tools, only):
        """Describe these tools to the model from now on; only: the reply to a question has to be a call."""
        registry, most = Registry(tools), self.settings.tokens
        key = (only, *registry.tools)
        if tools and key not in self.masks:  # with 49,152 tokens, building a mask takes a second
            mask = CallMask(self.writer.tokenizer, registry, [most], only)
            if most <= mask.need:
                raise UsageError(
                    f"a call needs more than {mask.need} tokens: raise --tokens or use --tools off"
                )
            self.masks[key] = mask
        self.registry, self.writer.mask = registry, self.masks.get(key)

    def describable_tools(self):
        """The built-in tools, as many as can be described in half of the context; at least the first."""
        context = self.writer.model.config.context
        for count in range(len(TOOLS), 1, -1):
            if fits(self.writer.tokenizer, agent.introduced([], Registry(TOOLS[:count])), context):
                return TOOLS[:count]
        return TOOLS[:1]

    def ask(self, line):
        steps = 1 if self.tools == "only" else MAX_STEPS
        example = []
        if self.named:
            names = re.findall(r"\buse (?:the |your )?(\w+)", line, re.I)
            self.offer([tool for name, tool in self.named.items() if name in names], only=True)
            example = EXAMPLE if self.registry.tools else []
        messages = [*example, *self.history, {"role": "user", "content": line}]
        allow = self.allow if self.asks_first else None
        self.last = agent.run(
            self.writer, self.registry, messages, max_steps=steps, allow=allow, show=self.show_part
        )
        print()
        if self.last.outcome not in (agent.ANSWERED, agent.STEP_LIMIT):
            print(f"({self.last.outcome})", file=sys.stderr)
        before = len(example) + (1 if self.registry.tools else 0)  # the first message describes the tools
        self.history = self.last.messages[before:]

    def allow(self, call):
        """Ask the user whether a call may run -> True, or the reason for refusing, which the model sees."""
        print(f"\n  run {call.name} with {json.dumps(call.arguments, ensure_ascii=False)}? yes, or why not: ")
        try:
            reply = input().strip()
        except EOFError:
            reply = ""
        return reply.lower() in ("y", "yes") or f"the user refused this call. {reply}".strip()

    def show_part(self, part):
        if isinstance(part, Result):
            print(f"\n  {part.name} -> {json.dumps(part.value, ensure_ascii=False)}", flush=True)
        elif isinstance(part, BadCall):
            print(f"\n  ({part.problem})", flush=True)

    def command(self, line):
        name, _, value = line.partition(" ")
        value = value.strip()
        if name == "/stage":
            self.load(stage_folder(self.settings.run, value))
            print(self.folder, file=sys.stderr)
        elif name == "/temperature":
            self.writer.temperature = read_temperature(value)
        elif name == "/tools" and value in ("on", "off", "only", "named"):
            self.choose_tools(value)
        elif name == "/compare" and value:
            compare(self.settings, value)
        elif name == "/ask" and value in ("on", "off"):
            self.asks_first = value == "on"
        elif name == "/save" and value:
            conversation = self.last or agent.Conversation(self.history, agent.ANSWERED, 0)
            conversation.save(Path(value))
            print(f"saved to {value}", file=sys.stderr)
        elif name == "/new":
            self.history, self.last = [], None
        else:
            print(HELP if name == "/help" else f"unknown command {line}\n{HELP}")


def compare(settings, question):
    """Print the greedy reply of every finished stage that can write. That of stage 0 is sampled: greedily, a
    random model only repeats its last token. Raises TinyllmError if no stage is finished."""
    stage_folder(settings.run, "")
    width = shutil.get_terminal_size().columns
    for folder in finished_stages(settings.run):
        model, tokenizer = checkpoint.load(folder)
        if not model.config.causal:  # a masked model cannot write
            continue
        messages, seed = [{"role": "user", "content": question}], [0] if folder.name == "0-random" else None
        ((text, _),) = answer(WorkerPool(model), tokenizer, [messages], settings.tokens, seed)
        text = printable(text).strip() or "(an empty reply)"
        print(textwrap.fill(text, width, initial_indent=f"{folder.name:14}", subsequent_indent=" " * 14))


def read_temperature(text):
    try:
        temperature = float(text)
    except ValueError:
        temperature = -1.0
    if not 0 <= temperature < float("inf"):
        raise UsageError(f"the temperature must be a number, 0 or higher, not {text!r}")
    return temperature
