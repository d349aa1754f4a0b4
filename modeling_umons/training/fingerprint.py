"""Fingerprint of a run: what must be the same when it is resumed."""

import hashlib
import json
from typing import Any

from datasets import Dataset
from transformers import PreTrainedConfig

from ..data.row_hash import ContentHash
from .arguments import RunArguments


# Keys of configurations that depend on the installation.
IGNORED = ("_name_or_path", "name_or_path", "transformers_version")


def run_fingerprint(
    rows: dict[str, Dataset],
    labels: tuple[str, ...],
    config: PreTrainedConfig,
    processor: Any,
    args: RunArguments,
    sharding: str | None = None,
) -> dict[str, dict]:
    """
    Return what a resumed run must share, as groups of names and JSON values. Rows and vocabulary are hashed.
    `sharding` (FSDP, DEEPSPEED) determines the files of checkpoints.
    """
    vocabulary = processor.tokenizer.get_vocab()
    groups = {
        "data": {name: f"{len(split)} rows {_hash_rows(split)}" for name, split in rows.items()}
        | {"labels": ", ".join(labels), "vocabulary": f"{len(vocabulary)} words {_hash(vocabulary)}"},
        "options": {
            "--seed": args.seed,
            "--train_sampling_strategy": str(args.train_sampling_strategy),
            "rows per step": args.train_batch_size * args.gradient_accumulation_steps * args.world_size,
            "processes": args.world_size,
            **({"sharding": sharding} if sharding else {}),
        },
        "configuration": config.to_dict(),
        "processor": processor.to_dict(),
    }
    return _without_ignored(json.loads(json.dumps(groups, default=str)))


def list_differences(saved: dict[str, dict], current: dict[str, dict]) -> list[str]:
    """List the names and values of two fingerprints that differ."""
    differences = []
    for group, values in current.items():
        old = saved.get(group, values)
        for name in sorted({*old, *values}):
            if old.get(name) != values.get(name):
                differences.append(f"{name} (was {old.get(name)!s:.80}, is {values.get(name)!s:.80})")
    return differences


def _without_ignored(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_ignored(item) for name, item in value.items() if name not in IGNORED}
    return value


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]


def _hash_rows(rows: Dataset) -> str:
    content = ContentHash(rows.features.arrow_schema)
    for table in rows.with_format("arrow").iter(batch_size=1000):
        for batch in table.combine_chunks().to_batches():
            content.update(batch)
    return content.hexdigest()[:12]
