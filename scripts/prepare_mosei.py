#!/usr/bin/env python
"""Run `umons prepare`, under `accelerate launch` or plain Python."""

import sys

from modeling_umons.cli.prepare import main


if __name__ == "__main__":
    sys.exit(main())
