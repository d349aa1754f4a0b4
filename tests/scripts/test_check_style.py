"""The style checker on small files."""

import runpy
from pathlib import Path

import pytest


SCRIPT = runpy.run_path(Path(__file__).resolve().parents[2] / "scripts" / "check_style.py")


@pytest.mark.parametrize(
    ("text", "rules"),
    [
        ('"""Return the sum."""\n', []),
        ('"""What is summed."""\n', [(1, "docstring begins with 'What', not with a verb or a noun")]),
        ("f(help='Of the model')\n", [(1, "help begins with 'Of', not with a verb or a noun")]),
        ("f(\n    {'help': 'How many'}\n)\n", [(2, "help begins with 'How', not with a verb or a noun")]),
        ("def f():\n    '''Score of the rival.'''\n", [(2, "docstring says 'rival'")]),
    ],
)
def test_check_python_finds_wording(tmp_path, text, rules):
    path = tmp_path / "file.py"
    path.write_text(text)
    assert SCRIPT["check"](str(path)) == rules


def test_check_markdown_allows_wide_tables_and_links(tmp_path):
    path = tmp_path / "file.md"
    path.write_text(f"| {'a' * 130} |\n[text](https://example.org/{'a' * 119})\n{'a' * 120}\n")
    assert SCRIPT["check"](str(path)) == [(3, "line has 120 characters, more than 119")]
