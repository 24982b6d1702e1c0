"""README: its Python code runs as it stands, in the order in which it is shown."""

import os
import shutil
import subprocess
import sys
import threading
from http.server import HTTPServer

import readme_commands
from reading_order import ROOT
from stage_runs import TINY

from audio.sandbox import Sandbox
from tinyllm.__main__ import main


def test_the_python_code_of_all_three_packages_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["stage0", *TINY]) == 0
    shutil.copytree("runs/demo/0-random", "runs/demo/1-pretrain")  # the README loads a later stage
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
