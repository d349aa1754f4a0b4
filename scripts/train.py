#!/usr/bin/env python
"""Run `umons train`, under `accelerate launch` or plain Python."""

import sys

from modeling_umons.cli.train import main


if __name__ == "__main__":
    sys.exit(main())
