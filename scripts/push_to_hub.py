#!/usr/bin/env python
"""Run `umons push`, under `accelerate launch` or plain Python."""

import sys

from modeling_umons.cli.push import main


if __name__ == "__main__":
    sys.exit(main())
