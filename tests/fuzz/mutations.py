"""Seeded mutations of bytes, tables and JSON."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.random import Generator


# Values of other types, and values out of every range.
HOSTILE_VALUES = (
    None, True, "", "x", -1, 0, 0.5, 1e308, float("nan"), float("inf"), 10**30, 2**31, 10**6, [], {}, [[]], [None],
    ["x"], {"a": {}}, "../../x", "\u202e\x00", "a" * 5000, [0] * 1000,
)  # fmt: skip
HOSTILE_CELLS = (
    "", " ", "x", "nan", "inf", "-1", "1e999", "9" * 400, '"', '""x', "a,b", "\n", "\r", "\x00", "[", "[]", "{}",
    "null", "\ufeff", "../../x", "=1+1", "a" * 200_000, '[{"word": 1}]', "[" * 5000,
)  # fmt: skip


def flip_bits(data: np.ndarray, rng: Generator) -> np.ndarray:
    places = rng.integers(0, len(data), max(4, len(data) // 500))
    data[places] ^= (1 << rng.integers(0, 8, len(places))).astype(np.uint8)
    return data


def overwrite_header(data: np.ndarray, rng: Generator) -> np.ndarray:
    data[rng.integers(0, min(400, len(data)), 4)] = rng.integers(0, 256, 4)
    return data


def truncate(data: np.ndarray, rng: Generator) -> np.ndarray:
    return flip_bits(data, rng)[: rng.integers(0, len(data))]


def insert_copies(data: np.ndarray, rng: Generator) -> np.ndarray:
    """Copy three blocks to other places, which moves what follows."""
    for _ in range(3):
        first, place = rng.integers(0, len(data), 2)
        data = np.insert(data, place, data[first : first + rng.integers(1, 4000)])
    return data


def cut_out(data: np.ndarray, rng: Generator) -> np.ndarray:
    first = rng.integers(0, len(data))
    return np.delete(data, slice(first, first + rng.integers(1, max(2, len(data) // 4))))


def change_one_byte(data: np.ndarray, rng: Generator) -> np.ndarray:
    data[rng.integers(0, len(data))] = rng.integers(0, 256)
    return data


BYTE_MUTATIONS = (flip_bits, overwrite_header, truncate, insert_copies, cut_out, change_one_byte)


def mutate_bytes(data: bytes, rng: Generator) -> bytes:
    """Apply one of `BYTE_MUTATIONS`."""
    return pick(BYTE_MUTATIONS, rng)(np.frombuffer(data, np.uint8).copy(), rng).tobytes()


def mutate_table(data: bytes, rng: Generator, separator: str = ",") -> bytes:
    """Replace, insert or remove one cell of a table in UTF-8."""
    rows = [line.split(separator) for line in data.decode().splitlines()]
    row = rows[rng.integers(0, len(rows))]
    place = rng.integers(0, len(row))
    row[place : place + rng.integers(0, 2)] = [pick(HOSTILE_CELLS, rng)] * rng.integers(0, 2)
    return "\n".join(separator.join(row) for row in rows).encode()


def mutate_json(value: Any, rng: Generator) -> Any:
    """Replace one value in a copy of a JSON value, remove it, or add another next to it."""
    value = json.loads(json.dumps(value))
    containers = list(_iter_containers(value))
    if not containers:
        return pick(HOSTILE_VALUES, rng)
    container = pick(containers, rng)
    keys = list(container) if isinstance(container, dict) else list(range(len(container)))
    key, action = pick(keys, rng), rng.integers(0, 6)
    if action == 0:
        del container[key]
    elif action == 1 and isinstance(container, list):
        container.insert(key, pick(HOSTILE_VALUES, rng))
    elif action == 1:
        container[f"{key}_"] = container.pop(key)
    else:
        container[key] = pick(HOSTILE_VALUES, rng)
    return value


def _iter_containers(value: Any):
    """Yield all objects and lists in a JSON value that are not empty, large ones once."""
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    if children:
        yield value
    for child in list(children)[:100]:
        yield from _iter_containers(child)


def pick(choices, rng: Generator) -> Any:
    return choices[rng.integers(0, len(choices))]


def one_of(*mutations: Callable[[bytes, Generator], bytes]) -> Callable[[bytes, Generator], bytes]:
    """Return a mutation that applies one of several."""
    return lambda data, rng: pick(mutations, rng)(data, rng)


def json_bytes(data: bytes, rng: Generator) -> bytes:
    """Apply `mutate_json` to a file in JSON."""
    return json.dumps(mutate_json(json.loads(data), rng)).encode("utf-8", "surrogatepass")


def json_lines(data: bytes, rng: Generator) -> bytes:
    """Apply `mutate_json` to one line of a file in JSON lines."""
    lines = data.splitlines()
    place = rng.integers(0, len(lines))
    lines[place] = json_bytes(lines[place], rng)
    return b"\n".join(lines)
