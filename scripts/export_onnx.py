#!/usr/bin/env python
"""Run `umons export`, under `accelerate launch` or plain Python."""

import sys

from modeling_umons.cli.export import main


if __name__ == "__main__":
    sys.exit(main())
