"""Talk to any stage. The model may call tools: each call is run, and the model gets its result.

The model sees the whole conversation. When the context is full, the oldest turns are left out. A stage that
learned from the built-in conversations sees at most TURNS turns, because hardly any of those conversations
are longer.
"""

import contextlib
import dataclasses
import functools
import json
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
/tools auto|on|off  when to call tools                /save FILE      write the conversation as JSON
/ask on|off         whether you confirm each call     /new             forget the conversation
/compare QUESTION   ask every stage                   /quit            end (or Ctrl-D)"""
TURNS = 4  # turns in the longest follow-up conversations of world/conversations.py
# A small model that was never trained to call tools needs to see one example (Brown et al. 2020).
EXAMPLE = [
    {"role": "user", "content": "What is 6 times 7? Use the calculator."},
    {"role": "assistant", "content": render_call(Call("calculator", {"expression": "6*7"}))},
    {"role": "tool", "content": render_result(42)},
    {"role": "assistant", "content": "6 times 7 is 42."},
]
NOTHING = agent.Conversation([], agent.ANSWERED)
LOOP = 24  # a reply is stopped if its last 24 or more tokens are one sequence three times in a row


def encode_recent(tokenizer, messages, context, most=None):
    """The prompt for the next reply: the last turns, at most `most` of them (None: all), and only as many as
    leave room for the reply.

    A turn begins with a user message and is kept or dropped as a whole. The last turn and the system message
    are always kept.
    """
    system = [message for message in messages[:1] if message["role"] == "system"]
    turns = [i for i, message in enumerate(messages) if message["role"] == "user"]
    for start in turns[-most:] if most else turns:
        prompt = encode_prompt(tokenizer, [*system, *messages[start:]])
        if len(prompt) + reply_room(context) <= context:
            return prompt
    return prompt


def is_loop(tokens):
    """Whether the last LOOP or more tokens are one sequence three times in a row."""
    lengths = range(LOOP // 3, len(tokens) // 3 + 1)
    return any(tokens[-n:] == tokens[-2 * n : -n] == tokens[-3 * n : -2 * n] for n in lengths)


@functools.lru_cache(maxsize=4)
def tools_and_mask(tokenizer, names, only):
    """The registry of the tools with these names, and the mask for calls to these tools (None if there are no
    names). With a vocabulary of 49,152 tokens, making the mask takes a second."""
    registry = Registry(tool for tool in TOOLS if tool.name in names)
    return registry, CallMask(tokenizer, registry, only) if names else None


@dataclass(frozen=True)
class ChatSettings(Settings):
    stage: str = option("", "number or folder name of the stage (default: the last one)")
    origin: str = option("", "checkpoint folder or GGUF file to talk to, instead of a stage", flag="from")
    temperature: float = option(0.8, "0 is greedy; 1 samples from the model's distribution", (0, 100))
    tokens: int = option(200, "maximum number of tokens in a reply", (1, 10**6))


def main(settings):
    """Talk to a stage. /help lists the commands."""
    chat = Chat(settings)
    print(f"{chat.folder}; /help lists the commands", file=sys.stderr)
    with contextlib.suppress(EOFError):
        while (line := input("> " if sys.stdin.isatty() else "").strip()) not in ("/quit", "/exit"):
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
        self.settings, self.tools, self.asks_first = settings, "auto", False
        self.rng, self.history, self.last = np.random.default_rng(settings.seed), [], NOTHING
        self.load(Path(settings.origin) if settings.origin else stage_folder(settings.run, settings.stage))

    def load(self, folder):
        self.model, self.tokenizer = checkpoint.load_language_model(folder)
        fold(self.model)
        self.folder, self.is_built_in = folder, path_of(learned_by(folder), "instructions") == ""
        self.choose_tools(self.tools)

    def choose_tools(self, tools):
        """on: the model may call tools; off: it may not. auto: on for a stage trained on the built-in
        conversations. Any other model must call a tool that the question names ("use the calculator"), and
        may call no tool otherwise.

        All tools are described to the model, or only the first one if the descriptions of all would fill more
        than half of the context.
        """
        is_on = self.is_built_in if tools == "auto" else tools == "on"
        described, _ = encode_conversation(self.tokenizer, agent.introduced([], Registry(TOOLS)))
        fitting = TOOLS if len(described) <= self.model.config.context // 2 else TOOLS[:1]
        self.offer([tool.name for tool in fitting] if is_on else [])
        self.tools = tools

    def offer(self, names, only=False):
        """Describe these tools to the model from now on. only: the reply to a question must be a call."""
        registry, mask = tools_and_mask(self.tokenizer, tuple(names), only)
        if mask and self.settings.tokens <= mask.limit:
            raise UsageError(f"a tool call needs more than {mask.limit} tokens: raise --tokens")
        self.registry, self.mask = registry, mask

    def ask(self, line):
        example = []
        if self.tools == "auto" and not self.is_built_in:
            words = re.findall(r"\buse (?:the |your )?(\w+)", line, re.I)
            self.offer([tool.name for tool in TOOLS if tool.name in words], only=True)
            example = EXAMPLE if self.registry.tools else []
        messages = [*example, *self.history, {"role": "user", "content": line}]
        allow = self.allow if self.asks_first else None
        self.last = agent.run(self.write, self.registry, messages, allow=allow, show=self.show_part)
        print()
        if self.last.outcome != agent.ANSWERED:
            print(f"({self.last.outcome})", file=sys.stderr)
        turns = [message for message in self.last.messages if message["role"] != "system"]
        self.history = turns[len(example) :]

    def write(self, messages):
        """Generate a reply and show it token by token. agent.run calls this for each reply."""
        tokenizer, most, context = self.tokenizer, self.settings.tokens, self.model.config.context
        prompt = encode_recent(tokenizer, messages, context, TURNS if self.is_built_in else None)
        if len(prompt) > context:
            print(f"(the model sees at most the last {context:,} of {len(prompt):,} tokens)", file=sys.stderr)
        # With `only`, the reply must be a call, unless there is already a result to answer from.
        mask = None if self.mask and self.mask.only and messages[-1]["role"] == "tool" else self.mask
        end, shown = tokenizer.special["<|end|>"], 0
        only_end = np.arange(self.model.config.vocab) == end

        def show_and_mask(row, written, room):
            nonlocal shown
            text = decode_reply(tokenizer, written.tolist())
            if not text.endswith("\ufffd"):  # U+FFFD may be an incomplete character
                self.show(text[shown:])
                shown = len(text)
            allowed = mask(row, written, room) if mask else None
            may_end = allowed is None or allowed[end]  # not inside a call
            return only_end if may_end and is_loop(written.tolist()) else allowed

        how = {"temperature": self.settings.temperature, "stop": end, "mask": show_and_mask}
        (tokens,) = generate(self.model, [prompt], most, self.rng.random((1, most)), **how)
        text = decode_reply(tokenizer, tokens)
        self.show(text[shown:])
        yield text
        if tokens[-1:] != [end]:
            yield agent.Finish(agent.LENGTH)

    def show(self, text):
        print(printable(text), end="", flush=True)

    def allow(self, call):
        """Ask the user whether a call may run -> True, or the reason for refusing, which the model sees."""
        print(f"\n  run {call.name} with {json.dumps(call.arguments, ensure_ascii=False)}?")
        reply = input("  yes, or your reason to refuse: ").strip()
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
            self.settings = dataclasses.replace(self.settings, temperature=float(value))
        elif name == "/tools" and value in ("auto", "on", "off"):
            self.choose_tools(value)
        elif name == "/compare" and value:
            compare(dataclasses.replace(self.settings.as_settings(CompareSettings), prompt=value))
        elif name == "/ask" and value in ("on", "off"):
            self.asks_first = value == "on"
        elif name == "/save" and value:
            self.last.save(Path(value))
            print(f"saved to {value}", file=sys.stderr)
        elif name == "/new":
            self.history, self.last = [], NOTHING
        else:
            print(HELP if name == "/help" else f"unknown command {line}\n{HELP}")


@dataclass(frozen=True)
class CompareSettings(Settings):
    prompt: str = option("Hello, who are you?", "the question")
    tokens: int = option(200, "maximum number of tokens in a reply", (1, 10**6))


def compare(settings):
    """Ask every finished stage the same question.

    Replies are greedy, except that of stage 0, which is sampled: with greedy decoding, a random model only
    repeats the last token. A masked model cannot write and is not asked. Raises TinyllmError if no stage is
    finished.
    """
    stage_folder(settings.run, "")
    width, messages = shutil.get_terminal_size().columns, [{"role": "user", "content": settings.prompt}]
    for folder in finished_stages(settings.run):
        model, tokenizer = checkpoint.load(folder)
        if not model.config.causal:
            print(f"{folder.name:14}(a masked model, which cannot write)")
            continue
        seed = [0] if folder.name == "0-random" else None
        ((text, _),) = answer(WorkerPool(model), tokenizer, [messages], settings.tokens, seed)
        text = printable(text).strip() or "(an empty reply)"
        print(textwrap.fill(text, width, initial_indent=f"{folder.name:14}", subsequent_indent=" " * 14))
