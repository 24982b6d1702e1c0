"""make size: lines of code per file and per package, beside the package's budget, which no test enforces.

Docstrings, comments, blank lines and tables of strings do not count, so nobody is tempted to cut
explanations.
"""

import ast
import io
import tokenize
from pathlib import Path

ROOT = Path(__file__).parent.parent
BUDGETS = {"tinyllm": 3200 + 350 + 450, "tools": 1800, "audio": 1730}  # core + report page + real models
LONGEST = 300  # lines of code; a longer file is marked
NOT_CODE = (
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
)


def is_docstring(node):
    return (
        isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and type(node.value.value) is str
    )


def is_table_of_wordings(node):
    """Whether a node is a constant that consists of strings only."""
    if not isinstance(node, ast.Assign) or not isinstance(node.value, (ast.Dict, ast.Tuple, ast.List)):
        return False
    leaves = [leaf for leaf in ast.walk(node.value) if isinstance(leaf, ast.expr)]
    containers = (ast.Dict, ast.Tuple, ast.List)
    texts = [leaf for leaf in leaves if isinstance(leaf, ast.Constant) and type(leaf.value) is str]
    return len(texts) + sum(isinstance(leaf, containers) for leaf in leaves) == len(leaves)


def code_lines(path):
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    skipped = [node for node in ast.walk(tree) if is_docstring(node)]
    skipped += [node for node in tree.body if is_table_of_wordings(node)]
    prose = {line for node in skipped for line in range(node.lineno, node.end_lineno + 1)}
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in NOT_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    return len(lines - prose)


def main():
    for package, budget in BUDGETS.items():
        sizes = {path: code_lines(path) for path in sorted((ROOT / package).rglob("*.py"))}
        for path, size in sizes.items():
            print(f"{size:6} {path.relative_to(ROOT)}" + ("   long" if size > LONGEST else ""))
        print(f"{sum(sizes.values()):6} {package}, budget {budget}\n")


if __name__ == "__main__":
    main()
