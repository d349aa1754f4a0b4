"""Training recipes: YAML files of options of `umons train`, read by name or by path."""

from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any


SUFFIXES = (".yaml", ".yml")


def list_recipes() -> dict[str, str]:
    """Return the first line of each recipe of the package by its name."""
    recipes = [file for file in files(__name__).iterdir() if file.name.endswith(SUFFIXES)]
    first_lines = {file.name: file.read_text(encoding="utf-8").partition("\n")[0] for file in recipes}
    return {name.rpartition(".")[0]: first_lines[name].removeprefix("#").strip() for name in sorted(first_lines)}


def format_recipes() -> str:
    """Format the recipes of the package as lines for `--help`."""
    recipes = list_recipes()
    width = max(map(len, recipes))
    return "\n".join(f"  {name:{width}}  {text}" for name, text in recipes.items())


def format_launch_files() -> str:
    """Format the paths of the package's files for `accelerate launch --config_file` as lines."""
    paths = sorted(str(file) for file in (files(__name__) / "accelerate").iterdir() if file.name.endswith(SUFFIXES))
    return "\n".join(f"  {path}" for path in paths)


def find_recipe(name: str) -> Path | Traversable:
    """Return the file of a recipe. Raises OSError if there is none."""
    if name.endswith(SUFFIXES):
        return Path(name)
    recipe = files(__name__) / f"{name}.yaml"
    if not recipe.is_file():
        raise FileNotFoundError(
            f"{name}: there is no such recipe. Pass a .yaml file or one of {', '.join(list_recipes())}."
        )
    return recipe


def read_recipe(name: str) -> dict[str, Any]:
    """Return the options of a recipe. Raises OSError if there is none, ValueError if it is not a table of options."""
    import yaml

    recipe = find_recipe(name)
    try:
        text = recipe.read_text(encoding="utf-8")
        # A few aliases of aliases stand for gigabytes.
        has_aliases = any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader))
        options = None if has_aliases else yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{name} is not valid YAML: {error}") from error
    if has_aliases:
        raise ValueError(f"{name} contains YAML aliases (`*name`): write the values out.")
    if not isinstance(options, dict):
        raise ValueError(f"{name} is not a recipe: it needs a line `option: value` for each option.")
    return options
