#!/usr/bin/env python
# Copyright 2026 The modeling_umons authors.
# SPDX-License-Identifier: MIT
"""Load CMU-MOSEI from the files you hold, and show some rows.

python hub/mosei/load_mosei.py MOSEI --layout umons --config_name emotion --split validation
"""

import argparse
import sys
from itertools import islice
from typing import Any

from modeling_umons.data import MoseiBuilder


def load_mosei(
    source: str,
    layout: str,
    config_name: str = "all",
    split: str | None = None,
    streaming: bool = False,
    num_proc: int | None = None,
    **options: Any,
):
    """
    CMU-MOSEI as `datasets.load_dataset` would give it.

    Args:
        source: the folder that holds the files.
        layout: umons, csd, mmsa, folder or labels.
        config_name: all, emotion, sentiment-7, sentiment-2 or sentiment.
        split: train, validation or test; `None` is all that there are, in a dict.
        streaming: read row by row, instead of preparing all in the cache first.
        num_proc: processes that prepare.
        options: those of the layout, such as `average_per_word` of csd.

    Returns:
        a `Dataset`, an `IterableDataset`, or a dict of these.
    """
    builder = MoseiBuilder(config_name=config_name, layout=layout, data_dir=source, options=options)
    if streaming:
        return builder.as_streaming_dataset(split=split)
    builder.download_and_prepare(num_proc=num_proc)
    return builder.as_dataset(split=split)


def describe(value: Any) -> str:
    """A value in one line: of features their shape."""
    if isinstance(value, list) and value and isinstance(value[0], list):
        return f"{len(value)} x {len(value[0])} numbers"
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]}..."


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="the folder that holds the files")
    parser.add_argument("--layout", required=True, choices=MoseiBuilder.LAYOUTS, help="how they are laid out")
    parser.add_argument("--config_name", default="all", choices=list(MoseiBuilder.builder_configs), help="(all)")
    parser.add_argument("--split", default="validation", choices=["train", "validation", "test"], help="(validation)")
    parser.add_argument("--num_rows", type=int, default=3, help="(3)")
    args = parser.parse_args()
    try:
        rows = load_mosei(args.source, args.layout, args.config_name, args.split, streaming=True)
        for row in islice(rows, args.num_rows):
            print("\n".join(f"{name:15} {describe(value)}" for name, value in row.items()), end="\n\n")
    except (OSError, ValueError) as error:
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
