"""Check the wording of docstrings and help texts, and the line length of Markdown.

    python scripts/check_style.py [FILE ...]

Without arguments, checks every tracked Python and Markdown file. Prints `file:line: rule`, exits with 1 on findings.
The line length of Python is checked by ruff.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path


LINE_LENGTH = 119
# A first line begins with a verb or a noun.
FIRST_WORDS = re.compile(r"\s*(By|How|If|It|Of|So|That|There|They|This|What|When|Where|Whether|Which|Who|Whose|Why)\b")
# House words for which the field has its own.
HOUSE_WORDS = re.compile(r"\b(?:rivals?|strangers?|anew|(?:is|are|holds) no (?:JSON|numbers?|lists?|texts?))\b")
GENERATED = ("docs/benchmarks/", "hub/umons-mini/", "hub/umons-base/")
URLS = re.compile(r"\]\([^)]*\)|https?://\S+")


def tracked_files() -> list[str]:
    command = ["git", "ls-files", "*.py", "*.md"]
    names = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return [name for name in names if not name.startswith(GENERATED)]


def long_lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield lines of Markdown over `LINE_LENGTH`. URLs do not count, and tables may be wider."""
    for number, line in enumerate(text.splitlines(), start=1):
        length = len(URLS.sub("", line))
        if length > LINE_LENGTH and not line.lstrip().startswith("|"):
            yield number, f"line has {length} characters, more than {LINE_LENGTH}"


def texts_for_readers(tree: ast.Module) -> Iterator[tuple[int, str, str]]:
    """Yield line, kind and text of docstrings, of `custom_intro` of `auto_docstring`, and of help texts."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            if (text := ast.get_docstring(node)) is not None:
                yield node.body[0].lineno, "docstring", text
        elif isinstance(node, ast.Call):
            for keyword in node.keywords:
                if keyword.arg in ("custom_intro", "help") and isinstance(keyword.value, ast.Constant):
                    yield keyword.value.lineno, keyword.arg, str(keyword.value.value)
        elif isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if getattr(key, "value", None) == "help" and isinstance(value, ast.Constant):
                    yield value.lineno, "help", str(value.value)


def wording(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for line, kind, text in texts_for_readers(tree):
        if found := FIRST_WORDS.match(text):
            yield line, f"{kind} begins with {found[1]!r}, not with a verb or a noun"
        if found := HOUSE_WORDS.search(text):
            yield line, f"{kind} says {found[0]!r}"


def check(name: str) -> list[tuple[int, str]]:
    """Return line and rule of every finding in a file."""
    text = Path(name).read_text()
    return sorted(long_lines(text) if name.endswith(".md") else wording(ast.parse(text)))


def main(names: list[str]) -> int:
    found = [f"{name}:{line}: {rule}" for name in names or tracked_files() for line, rule in check(name)]
    print("\n".join(found) or "No findings.")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
