"""README: its Python code runs, in the order shown, and its reading order and first lines are right."""

import os
import re
import shutil
import subprocess
import sys
import threading
from http.server import HTTPServer

import readme_commands
from reading_order import ROOT, modules, reading_order
from stage_runs import TINY

from audio.sandbox import Sandbox
from tinyllm.__main__ import main


def test_the_python_code_in_the_readme_runs_for_all_three_packages(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["stage0", *TINY]) == 0
    shutil.copytree("runs/demo/0-random", "runs/demo/1-pretrain")  # the README's code loads stage 1
    readme_commands.write_files(tmp_path)
    blocks = readme_commands.blocks((ROOT / "README.md").read_text(encoding="utf-8"))
    blocks = ["\n".join(block) for block in blocks if block[0].startswith("from ")]
    for package in ("tinyllm", "tools", "audio"):
        assert any(block.startswith(f"from {package}") for block in blocks)
    server = HTTPServer(("127.0.0.1", 0), readme_commands.Model)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    with Sandbox(seconds=0) as box:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        environment |= {"ASSEMBLYAI_BASE_URL": box.url, "ASSEMBLYAI_API_KEY": box.key}
        for block in blocks:
            code = block.replace("http://localhost:8080", f"http://127.0.0.1:{server.server_port}")
            command = [sys.executable, "-c", code]
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
    server.shutdown()
    server.server_close()


README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_reading_order_follows_the_imports_and_its_minutes_follow_the_lengths_of_files():
    """20 lines take a minute to read. A difference of two minutes is allowed, so that files can grow."""
    listed = README.partition("## Reading order")[2].partition("`python")[0]
    listed = [
        (f"tinyllm.{name}", int(minutes)) for name, minutes in re.findall(r"([a-z_0-9.]+) (\d+)\b", listed)
    ]
    order, paths = reading_order("tinyllm"), modules("tinyllm")
    listed = [(name, minutes) for name, minutes in listed if name in paths]
    assert [name for name, _ in listed] == [name for name in order if name in dict(listed)] and len(
        listed
    ) > 8
    for name, minutes in listed:
        assert abs(minutes - len(paths[name].read_text(encoding="utf-8").splitlines()) / 20) <= 2, name
    assert 80 <= sum(minutes for _, minutes in listed) <= 110  # the README says "an hour and three quarters"


def test_the_first_40_lines_show_what_the_project_does_and_all_make_targets_exist():
    lines = README.splitlines()
    first = "\n".join(lines[:40])
    assert len(lines) <= 250
    for each in ("make train", "make chat", "<!-- readme: abilities -->", "![", "picture.png"):
        assert each in first
    (picture,) = re.findall(r"!\[.*\]\((.*)\)", first)
    assert (ROOT / picture).stat().st_size < 150_000
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    assert set(re.findall(r"(?:`|^    )make ([a-z0-9-]+)", README, re.M)) <= targets
