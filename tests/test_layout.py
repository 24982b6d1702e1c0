"""The structure of the project: which modules may import which, and rules for every file."""

import ast
import re
import sys

import pytest
from reading_order import PACKAGES, ROOT, dependencies, imported_names, main, modules, needed, reading_order

SOURCES = {name: path for package in PACKAGES for name, path in modules(package).items()}
MAY_IMPORT = {"tinyllm": {"numpy", "tqdm", "tools"}, "tools": set(), "audio": {"requests", "tqdm"}}
# The only modules of tools that may import more: they call servers or transcribe recordings.
ADAPTERS = {
    "tools.endpoint": {"requests", "urllib3", "audio"},
    "tools.builtin": {"audio"},
    "tools.__main__": {"audio"},
}
sources = pytest.mark.parametrize("name", SOURCES)


def folder(name):
    """The folder of a module of tinyllm, "" for the package itself."""
    return SOURCES[name].parent.name.replace("tinyllm", "")


@sources
def test_a_package_imports_only_what_it_may(name):
    package = name.split(".")[0]
    imported = {each.split(".")[0] for each in imported_names(SOURCES[name])} - {package}
    assert imported <= sys.stdlib_module_names | MAY_IMPORT[package] | ADAPTERS.get(name, set())


@pytest.mark.parametrize("package", PACKAGES)
def test_in_the_reading_order_every_module_comes_after_those_that_it_imports(package):
    order, imports = reading_order(package), dependencies(package)
    assert sorted(order) == sorted(modules(package))
    for i, name in enumerate(order):
        assert imports[name] <= set(order[:i])


def test_imports_run_downward():
    """No package imports a package above it, not even indirectly. The only exception is that checkpoint
    imports data.conversation."""
    imports = dependencies("tinyllm")
    above = {
        "": {"stages", "evaluation", "commands", "preferences", "report"},  # the core
        "checkpoint": {"data", "preferences", "stages", "evaluation", "report", "commands"},
        "world": {"checkpoint", "data", "preferences", "stages", "evaluation", "report", "commands"},
        "data": {"preferences", "stages", "evaluation", "report", "commands"},
        "preferences": {"stages", "evaluation", "report", "commands"},
        "stages": {"evaluation", "report", "commands"},
        "evaluation": {"report", "commands"},
        "report": {"commands"},
        "commands": set(),
    }
    assert {folder(name) for name in imports} == above.keys()
    for name in imports.keys() - {"tinyllm.__main__"}:
        below = needed(name, imports)
        allowed = {"data.conversation"} if folder(name) == "checkpoint" else set()  # its chat template
        wrong = [each for each in below if folder(each) in above[folder(name)]]
        assert not {each.removeprefix("tinyllm.") for each in wrong} - allowed, f"{name} needs {wrong}"
        assert "tinyllm.__main__" not in below


def test_stages_never_import_one_another():
    imports = dependencies("tinyllm")
    stages = {name for name in imports if re.match(r"tinyllm\.stages\.s\d", name)}
    assert len(stages) == 5
    for name in stages:
        assert not needed(name, imports) & stages, name


def test_tools_and_audio_do_not_import_tinyllm():
    for name, path in SOURCES.items():
        if not name.startswith("tinyllm"):
            assert not any(each.startswith("tinyllm") for each in imported_names(path)), name


@sources
def test_every_file_has_a_docstring_and_lines_of_at_most_110_characters(name):
    text = SOURCES[name].read_text(encoding="utf-8")
    assert ast.get_docstring(ast.parse(text))
    assert all(len(line) <= 110 for line in text.splitlines())


def test_an_installation_contains_every_package():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    listed = re.findall(r'"([\w.]+)"', re.search(r"^packages = \[(.*?)\]", text, re.M | re.S)[1])
    folders = {".".join(path.parent.relative_to(ROOT).parts) for path in SOURCES.values()}
    assert sorted(listed) == sorted(folders)


# ---- the reading order itself, on small packages


def write_package(root, files):
    for name, text in files.items():
        (root / "p" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "p" / name).write_text(text, encoding="utf-8")
    return root


def test_the_file_that_needs_the_fewest_others_comes_first_and_a_folder_is_read_to_its_end(tmp_path):
    files = {
        "__init__.py": "",
        "z.py": "import json",
        "a.py": "from p import z, y",
        "y.py": "from p.z import x",
    }
    files |= {
        "rooms/__init__.py": "",
        "rooms/b.py": "import p.y",
        "rooms/c.py": "def f():\n  from p import a",
    }
    order = reading_order("p", write_package(tmp_path, files))
    assert order == ["p", "p.z", "p.y", "p.a", "p.rooms", "p.rooms.b", "p.rooms.c"]


def test_modules_that_import_each_other_in_a_cycle_are_an_error(tmp_path):
    files = {
        "a.py": "from p.b import x",
        "b.py": "import p.c",
        "c.py": "def f():\n  from p import a",
        "d.py": "",
    }
    with pytest.raises(ValueError, match="cycle: p.a, p.b, p.c"):
        reading_order("p", write_package(tmp_path, files))


def test_the_script_prints_the_order_of_all_packages(capsys):
    main()
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        [f"{package}:", *(name.removeprefix(f"{package}.") for name in reading_order(package))]
        for package in PACKAGES
    ]
