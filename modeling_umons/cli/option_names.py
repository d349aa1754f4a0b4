"""Check of the names of training options without the imports of a run, which take seconds."""

import ast
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from ..utils.suggest import nearest


PACKAGE = Path(__file__).parents[1]


def option_names() -> set[str]:
    """Return the names of the options of `umons train`, read from the source of their dataclasses."""
    sources = [PACKAGE / "data" / "arguments.py", PACKAGE / "training" / "arguments.py"]
    transformers = find_spec("transformers")
    if transformers is not None and transformers.origin is not None:
        sources.append(Path(transformers.origin).with_name("training_args.py"))
    return {name for path in sources for name in _fields(path)}


def check_option_names(words: list[str]) -> None:
    """Raise ValueError for the first unknown option of a command line, with the nearest name."""
    known = option_names()
    for word in words:
        name = word.removeprefix("--").partition("=")[0].replace("-", "_")
        if not word.startswith("--") or name == "help" or not name:
            continue
        # A unique prefix of an option is enough; argparse checks that it is unique.
        if not any(option.startswith(name) for option in known | {f"no_{option}" for option in known}):
            close = nearest(name, known)
            hint = "" if close is None else f" Did you mean --{close}?"
            raise ValueError(f"Unknown option {word.partition('=')[0]}; see `--help`.{hint}")


def _fields(path: Path) -> Iterator[str]:
    """Yield the annotated names of the classes of a file that end in `Arguments`."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef) and node.name.endswith("Arguments"):
            for item in node.body:
                if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
                    yield item.target.id
