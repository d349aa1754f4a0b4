#!/usr/bin/env python
"""Run `umons evaluate`, under `accelerate launch` or plain Python."""

import sys

from modeling_umons.cli.evaluate import main


if __name__ == "__main__":
    sys.exit(main())
