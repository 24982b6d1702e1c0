"""Run the README's blocks of make commands and of Python, in order, in a copy of the project: all must work.

    python tests/readme_commands.py [SIZE]

Commands run at SIZE (default: nano), on files that this script writes. For the two blocks that need a server,
the script starts one on this machine.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import wave
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import own_files

from audio.sandbox import Sandbox

ROOT = Path(__file__).parent.parent
# CI runs the tests separately. The other two commands take a long time.
SKIPPED = ("make test", "make mutants", "make bench")
FETCHED = "runs/models/"  # a block with this path is skipped: fetching the published model needs a network
TYPED = {"make chat": "What is 12*7?\n", "make rank": "1 2 3 4\nq\n"}
SHORTER = {"make tools-proof": 'ARGS="--count 100"', "make algorithms": 'ARGS="--steps 2"'}


def blocks(text):
    """The indented blocks that are commands or Python, as lists of lines."""
    blocks = [block.strip("\n").splitlines() for block in re.findall(r"\n\n((?:    .*\n|\n(?=    ))+)", text)]
    blocks = [[line[4:] for line in block] for block in blocks]
    return [block for block in blocks if block[0].startswith(("make ", "from "))]


def write_files(folder):
    """Writes every file that the README's commands read."""
    (folder / "notes").mkdir()
    own_files.write_text(folder / "notes/ships.txt", 100_000)
    own_files.write_text(folder / "more.txt", 50_000, seed=1)
    own_files.write_text(folder / "input.txt", 100_000, seed=2)
    own_files.write_questions(folder / "questions.jsonl")
    turns = "\n\nHuman: Where is the {} registered?\n\nAssistant: {}"
    pairs = [
        {"chosen": turns.format(ship, "In Cork."), "rejected": turns.format(ship, "Who knows.")}
        for ship in own_files.SHIPS
    ]
    problems = [
        {"question": f"What is {i} and 1?", "answer": f"{i}+1 = <<{i}+1={i + 1}>>{i + 1}.\n#### {i + 1}"}
        for i in range(60)
    ]
    for name, entries in (("ranked.jsonl", pairs), ("problems.jsonl", problems)):
        (folder / name).write_text("\n".join(map(json.dumps, entries)), encoding="utf-8")
    with wave.open(str(folder / "talk.wav"), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(bytes(16000))


class Model(BaseHTTPRequestHandler):
    """An OpenAI-compatible server whose model calls no tools."""

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        answer = {"choices": [{"message": {"role": "assistant", "content": "Yes."}, "finish_reason": "stop"}]}
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def run(command, folder, environment, typed=""):
    began = time.monotonic()
    done = subprocess.run(
        command,
        check=False,
        cwd=folder,
        env=environment,
        input=typed,
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    print(f"{time.monotonic() - began:6.1f} s  {' '.join(map(str, command[-1:]))}", flush=True)
    if done.returncode:
        sys.exit(f"exit status {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")


def main(size="nano"):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as name, Sandbox(seconds=0) as box:
        folder = Path(name) / "a copy"  # a path with a space in it
        names = subprocess.run(
            ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout
        for path in names.splitlines():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / path, folder / path)
        (folder / ".venv").mkdir()
        (folder / ".venv/ready").touch()
        write_files(folder)
        server = HTTPServer(("127.0.0.1", 0), Model)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        environment = {**os.environ, "PYTHONPATH": str(folder)}
        environment |= {"ASSEMBLYAI_BASE_URL": box.url, "ASSEMBLYAI_API_KEY": box.key}
        for block in blocks(readme):
            if any(FETCHED in line for line in block):
                continue
            if block[0].startswith("from "):
                code = "\n".join(block).replace(
                    "http://localhost:8080", f"http://127.0.0.1:{server.server_port}"
                )
                run([sys.executable, "-c", code], folder, environment)
                continue
            for line in block:
                command = line.split("#")[0].strip()
                target = " ".join(command.split()[:2])
                if target in SKIPPED:
                    continue
                command += f" {SHORTER.get(target, '')}"
                command += "" if "SIZE=" in command else f" SIZE={size}"
                shell = f"{command} PY='{sys.executable}' --old-file=setup --old-file=.venv/ready"
                run(["sh", "-c", shell], folder, environment, TYPED.get(target, ""))
        server.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
