"""The shape of the project: who may import whom, and how long things may be."""

import ast
import io
import sys
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = {package: sorted(ROOT.glob(f"{package}/**/*.py")) for package in ("tinyllm", "tools", "audio")}
SOURCES = sum(PACKAGES.values(), [])
LENGTHS = {"tinyllm": 4175, "tools": 2850, "audio": 1800}  # lines of code
MAY_USE = {"tinyllm": {"numpy", "tqdm", "tools"}, "tools": set(), "audio": {"requests", "tqdm"}}
ADAPTERS = {"tools/agent.py": {"requests"}, "tools/builtin.py": {"audio"}}
TOOLS = [
    "json_reader",
    "dialect",
    "pattern",
    "numbers",
    "validation",
    "schema",
    "alternatives",
    "shapes",
    "grammar",
    "masks",
    "protocol",
    "registry",
    "builtin",
    "agent",
    "recording",
    "__main__",
]
AUDIO = [
    "errors",
    "http",
    "recording",
    "options",
    "subtitles",
    "transcript",
    "assemblyai",
    "reports",
    "batch",
    "canned",
    "sandbox",
    "__main__",
]
ORDER = [
    "layers",
    "transformer",
    "induction",
    "objectives",
    "optimizer",
    "tokenizer",
    "conversation",
    "sampling",
    "tensors",
    "llama",
    "checkpoint",
    "parallel",
    "training",
    "world",
    "corpus",
    "lessons",
    "formats",
    "intervals",
    "ngram",
    "calls",
    "interviews",
    "advantages",
    "rollouts",
    "rankings",
    "reward",
    "verdicts",
    "exams",
    "stages",
    "report",
    "commands",
    "rank",
    "exhibits",
    "chat",
    "__main__",
]


def imports(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (
                (f"{node.module}.{name.name}" for name in node.names)
                if node.module in PACKAGES
                else [node.module]
            )


def room(module):
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def code_lines(path):
    text = path.read_text(encoding="utf-8")
    prose = {
        line
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
        for line in range(node.lineno, node.end_lineno + 1)
    }
    blank = (
        tokenize.COMMENT,
        tokenize.NL,
        tokenize.NEWLINE,
        tokenize.INDENT,
        tokenize.DEDENT,
        tokenize.ENDMARKER,
    )
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in blank:
            lines.update(range(token.start[0], token.end[0] + 1))
    return len(lines - prose)


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_one_way(path):
    package, *_ = path.relative_to(ROOT).parts
    order = {"tinyllm": ORDER, "tools": TOOLS, "audio": AUDIO}[package]
    here = room(".".join(path.relative_to(ROOT).with_suffix("").parts).replace(".__init__", ""))
    outside = MAY_USE[package] | ADAPTERS.get(f"{package}/{path.name}", set()) | set(sys.stdlib_module_names)
    for module in imports(path):
        there = room(module)
        if module.split(".")[0] != package:
            assert module.split(".")[0] in outside, f"{path.name} imports {module}"
        elif there and here and there != here:
            assert order.index(there) < order.index(here), f"{here} may not import {there}"
        elif here == "stages":
            assert module == "tinyllm.stages" or path.name == "__init__.py", "stages never import one another"


@pytest.mark.parametrize("package", PACKAGES)
def test_files_are_short_enough_to_read(package):
    sizes = {str(path): code_lines(path) for path in PACKAGES[package]}
    assert max(sizes.values()) <= 350 and sum(sizes.values()) <= LENGTHS[package], sizes


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_file_says_what_it_is_for(path):
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert all(len(line) <= 110 for line in path.read_text(encoding="utf-8").splitlines())
