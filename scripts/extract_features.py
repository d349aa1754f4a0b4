#!/usr/bin/env python
"""Run `umons extract`, under `accelerate launch` or plain Python."""

import sys

from modeling_umons.cli.extract import main


if __name__ == "__main__":
    sys.exit(main())
