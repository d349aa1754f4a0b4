#!/usr/bin/env python
"""Run `umons convert`, under `accelerate launch` or plain Python."""

import sys

from modeling_umons.cli.convert import main


if __name__ == "__main__":
    sys.exit(main())
