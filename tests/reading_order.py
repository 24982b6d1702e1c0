"""The order in which to read a package: every file comes after those that it imports.

    python tests/reading_order.py          prints the order for tinyllm, tools and audio

If several files could come next, three rules decide. Each applies only if those before it leave a
choice. A file in the same folder as the previous file goes first, so that a folder is read in one go where
possible. Next, the file that needs the fewest other files goes first. Last, the alphabetical order of folders
and names decides. Imports inside functions count too.
"""

import ast
import functools
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = ("tinyllm", "tools", "audio")


def modules(package, root=ROOT):
    """-> {module: its path}. A package's name stands for its __init__.py."""
    paths = sorted((root / package).rglob("*.py"))
    names = [".".join(path.relative_to(root).with_suffix("").parts) for path in paths]
    return {name.removesuffix(".__init__"): path for name, path in zip(names, paths)}


@functools.cache
def imported_names(path):
    """The full names that a file imports: `from tinyllm import layers` gives tinyllm.layers."""
    names = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise ValueError(f"{path}: a relative import is not supported; write the full name")
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def dependencies(package, root=ROOT):
    """-> {module: the modules of the same package that it imports}."""
    paths = modules(package, root)

    def module_of(name):
        """The module that a name belongs to: tinyllm.world for tinyllm.world.World, "" if none."""
        while name and name not in paths:
            name = name.rpartition(".")[0]
        return name

    return {name: {module_of(each) for each in imported_names(path)} - {""} for name, path in paths.items()}


def needed(module, imports):
    """All modules that a module imports, directly or indirectly."""
    reached, left = set(), [module]
    while left:
        new = imports[left.pop()] - reached
        reached |= new
        left += new
    return reached


def reading_order(package, root=ROOT):
    """-> the modules of a package in reading order. Raises ValueError if their imports form a cycle."""
    paths, imports, order = modules(package, root), dependencies(package, root), []

    def rank(name):
        folder = paths[name].parent
        leaves_folder = not order or folder != paths[order[-1]].parent
        return leaves_folder, len(needed(name, imports)), folder, name

    while left := imports.keys() - set(order):
        ready = [name for name in left if imports[name] <= set(order)]
        if not ready:
            raise ValueError(f"the imports of these modules form a cycle: {', '.join(sorted(left))}")
        order.append(min(ready, key=rank))
    return order


def main():
    for package in PACKAGES:
        names = [name.removeprefix(f"{package}.") for name in reading_order(package)]
        print(f"{package}: {' '.join(names)}")


if __name__ == "__main__":
    main()
