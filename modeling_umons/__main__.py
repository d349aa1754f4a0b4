"""`python -m modeling_umons`, the same as `umons`."""

import sys

from .cli.main import main


if __name__ == "__main__":
    sys.exit(main())
