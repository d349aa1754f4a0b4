"""`umons compare`: train several models on the same rows and compare them."""

import sys

from . import train


def main(argv: list[str] | None = None) -> int:
    """Run `umons train` with the recipe `compare`, unless another one is given."""
    argv = sys.argv[1:] if argv is None else argv
    has_recipe = bool(argv) and not argv[0].startswith("-")
    return train.main(argv if has_recipe else ["compare", *argv])


if __name__ == "__main__":
    sys.exit(main())
