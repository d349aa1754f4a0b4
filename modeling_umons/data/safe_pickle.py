"""Reader of pickles of data that executes nothing in them.

A pickle is a program, and three steps keep a hostile one harmless. `check_instructions` reads its instructions with
`pickletools` and refuses all that do more than build data, or that take memory or time out of proportion to the file.
`SafeUnpickler` imports nothing: an allowed global becomes a subclass of `_Call`, which only stores its arguments.
`_Builder` then makes arrays of these, out of bytes that are in the file, and limits nesting and size.
"""

import io
import math
import os
import pickle
import pickletools
import re
import warnings
from collections import OrderedDict
from collections.abc import Callable
from functools import cache
from types import SimpleNamespace
from typing import Any, BinaryIO

import numpy as np


MAX_NESTING = 100
MAX_EXPANSION = 10  # items once shared containers are copied, in multiples of the instructions of the pickle
SCALARS = (str, bytes, int, float, bool, type(None))
TUPLES = {"EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"}
REFUSED = {"INST", "OBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4", "PERSID", "NEXT_BUFFER", "READONLY_BUFFER", "DUP",
           "POP", "POP_MARK"}  # fmt: skip
ALLOWED = {opcode.name for opcode in pickletools.opcodes if opcode.proto <= 5} - REFUSED
# Instructions that hash some of their arguments. The hash of nested tuples costs unlimited time and stack.
HASHED = {"SETITEM": slice(1, 2), "SETITEMS": slice(1, None, 2), "DICT": slice(0, None, 2), "ADDITEMS": slice(1, None),
          "FROZENSET": slice(0, None)}  # fmt: skip
# {global: function of arguments, items and state that makes the result of a call; `None` if it is never called}
Builders = dict[str, Callable[[tuple, dict, Any], Any] | None]


class RefusedError(Exception):
    """The file contains something that is not allowed."""


def expect(condition: Any, fact: str) -> None:
    """Raise RefusedError, for a file that contains `fact`, unless the condition holds."""
    if not condition:
        raise RefusedError(fact)


def check_instructions(stream: BinaryIO) -> int:
    """Check the instructions of one pickle, and return their number."""
    start, size = stream.tell(), stream.seek(0, 2)
    stream.seek(start)
    # pickletools may ask for more bytes than the file has, and `read` would allocate them.
    bounded = SimpleNamespace(read=lambda n: stream.read(min(n, size)), readline=stream.readline, tell=stream.tell)
    stack, marks, memo = [], [], {}  # of each item, the instruction that made it
    for number, (opcode, argument, _) in enumerate(pickletools.genops(bounded), 1):
        name, before = opcode.name, opcode.stack_before
        if name not in ALLOWED:
            raise RefusedError(f"the pickle instruction {name}" + (f" ({argument!s:.80})" if argument else ""))
        if name.endswith("PUT") or name == "MEMOIZE":
            index = len(memo) if argument is None else argument
            expect(0 <= index <= len(memo) + 1, f"the memo index {index!s:.20}")
            memo[index] = stack[-1]
        elif name.endswith("GET"):
            stack.append(memo[argument])
        elif name == "MARK":
            marks.append(len(stack))
        elif name == "STOP":
            return number
        else:
            is_marked = pickletools.markobject in before
            start = marks.pop() - before.index(pickletools.markobject) if is_marked else len(stack) - len(before)
            expect(start >= (marks[-1] if marks else 0), f"{name} without its arguments")
            expect(name not in HASHED or TUPLES.isdisjoint(stack[start:][HASHED[name]]), "a key that is a tuple")
            stack[start:] = [name] * len(opcode.stack_after)


class _Call:
    """Arguments of the call of a global, items set on its result, and state. Nothing is called."""

    arguments, items, state, value = (), (), None, None

    def __init__(self, *arguments: Any):
        self.arguments, self.items = arguments, []

    def __setitem__(self, key: Any, value: Any) -> None:
        self.items.append((key, value))

    def __setstate__(self, state: Any) -> None:
        expect(self.state is None, "an object that is filled twice")
        self.state = state


@cache
def call_class(name: str) -> type[_Call]:
    """Return the class that takes the place of a global."""
    return type(name, (_Call,), {})


class SafeUnpickler(pickle.Unpickler):
    """Unpickler of plain data and `_Call`s of the `allowed` globals."""

    def __init__(self, stream: Any, allowed: Builders):
        super().__init__(stream)
        self.allowed = allowed

    def find_class(self, module: str, name: str) -> type[_Call]:
        expect(f"{module}.{name}" in self.allowed, f"the global {module}.{name}")
        return call_class(f"{module}.{name}")


class _Builder:
    """Maker of the values that a pickle describes, of at most `left` items and bytes of new objects."""

    def __init__(self, allowed: Builders, left: int):
        self.allowed, self.left = allowed, left

    def __call__(self, value: Any, depth: int = 0) -> Any:
        self.left -= 1
        expect(self.left >= 0, "shared containers that would fill the memory")
        expect(depth <= MAX_NESTING, f"more than {MAX_NESTING} containers inside each other, or one that holds itself")
        kind = type(value)
        if isinstance(value, _Call):
            if value.value is None:
                build = self.allowed[kind.__name__]
                expect(build, f"a call of {kind.__name__}")
                parts = (value.arguments, dict(value.items), value.state)
                made = value.value = build(*(self(part, depth + 1) for part in parts))
                # Bytes and scalars are copies of what may be stored once; arrays are views of it.
                self.left -= len(made) if type(made) is bytes else made.nbytes if isinstance(made, np.generic) else 0
            return value.value
        expect(not isinstance(value, type) or value is call_class("numpy.ndarray"), "a global that is not called")
        if kind is dict:
            keys = self(list(value), depth)
            expect(all(type(key) in SCALARS for key in keys), "a key that is not text, bytes, a number or None")
            return dict(zip(keys, [self(item, depth + 1) for item in value.values()], strict=True))
        if kind in (list, tuple, set, frozenset):
            items = [self(item, depth + 1) for item in value]
            expect(kind in (list, tuple) or all(type(item) in SCALARS for item in items), "a set of non-scalars")
            return kind(items)
        return value


def load_pickle(stream: BinaryIO, unpickler_class: type[SafeUnpickler], *arguments: Any) -> tuple[Any, SafeUnpickler]:
    """Read one pickle with an unpickler made of the stream and `arguments`. Damaged bytes may raise any exception."""
    start = stream.tell()
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # of names with stray backslashes
        left = MAX_EXPANSION * check_instructions(stream) + stream.tell() - start
    stream.seek(start)
    unpickler = unpickler_class(stream, *arguments)
    value = _Builder(unpickler.allowed, left)(unpickler.load())
    expect(not isinstance(value, (type, np.dtype)), "no data")
    return value, unpickler


def _build_ordered_dict(arguments: tuple, items: dict, _: Any) -> OrderedDict:
    expect(not arguments, "a call of OrderedDict with arguments")
    return OrderedDict(items)


def _build_set(arguments: tuple, *_: Any) -> set:
    expect(all(type(item) in SCALARS for item in list(*arguments)), "a set of non-scalars")
    return set(*arguments)


def _build_bytes(arguments: tuple, *_: Any) -> bytes:
    # Protocol 2 writes bytes as text in latin-1, and empty ones as `bytes()`.
    expect(not arguments or arguments[1] in ("latin1", "latin-1"), "bytes that are not text in latin-1")
    return arguments[0].encode("latin-1") if arguments else b""


def _build_dtype(arguments: tuple, items: dict, state: Any) -> np.dtype:
    ok = re.fullmatch(r"b1|O8|[iu][1248]|f[248]|[SU][1-9][0-9]{0,6}", arguments[0])
    expect(ok and (state is None or state[2:5] == (None, None, None)), f"the numpy dtype {arguments[0]!r:.40}")
    return np.dtype(arguments[0]).newbyteorder(state[1] if state and state[1] in ("<", ">") else "=")


def _check_array(data: bytes | bytearray | list, dtype: np.dtype, shape: tuple[int, ...]) -> None:
    size = math.prod(shape) * (1 if dtype.hasobject else dtype.itemsize)
    ok = type(data) in ((list,) if dtype.hasobject else (bytes, bytearray)) and min(shape, default=0) >= 0
    expect(ok and len(data) == size, f"a numpy array of {dtype}, {shape!s:.80}, not made of {size} bytes or objects")
    ok = not dtype.hasobject or all(type(item) in SCALARS or isinstance(item, np.generic) for item in data)
    expect(ok, "a numpy array of dtype object with items other than text, bytes, numbers and None")


def _build_array(arguments: tuple, items: dict, state: Any) -> np.ndarray:
    _, shape, dtype, is_fortran, data = state
    _check_array(data, dtype, shape)
    array = np.empty(0, np.int8)
    array.__setstate__((1, shape, dtype, bool(is_fortran), data))
    return array


def _build_buffer_array(arguments: tuple, *_: Any) -> np.ndarray:
    data, dtype, shape, order = arguments
    _check_array(data, dtype, shape)
    return np.ndarray(shape, dtype, data or None, order=order)


PLAIN_BUILDERS: Builders = {
    **dict.fromkeys(("builtins.set", "__builtin__.set"), _build_set),
    **dict.fromkeys(("__builtin__.bytes", "_codecs.encode"), _build_bytes),
    "collections.OrderedDict": _build_ordered_dict,
    "numpy.dtype": _build_dtype,
    "numpy.ndarray": None,
}
for _core in ("numpy.core", "numpy._core"):  # numpy 1 and 2
    PLAIN_BUILDERS |= {
        f"{_core}.multiarray._reconstruct": _build_array,
        f"{_core}.multiarray.scalar": lambda arguments, *_: _build_buffer_array((*arguments[::-1], (), "C"))[()],
        f"{_core}.numeric._frombuffer": _build_buffer_array,
    }


def _read_plain(stream: io.BufferedReader) -> Any:
    expect(stream.peek(4)[:4] != b"PK\x03\x04", "a zip archive; `read_checkpoint` reads torch checkpoints")
    value, _ = load_pickle(stream, SafeUnpickler, PLAIN_BUILDERS)
    expect(not stream.read(1), "more than one pickle")
    return value


def read_file(path: str | os.PathLike, read: Callable[[io.BufferedReader], Any], allowed: Builders) -> Any:
    """Return the value of `read` for a file. Raises OSError if it cannot be opened, ValueError if `read` fails."""
    with open(path, "rb") as file:
        try:
            return read(file)
        except RefusedError as error:
            raise ValueError(
                f"{path} is refused: it contains {error}. Nothing in it was executed. Allowed are plain containers, "
                f"text, numbers, and these globals: {', '.join(sorted(allowed))}."
            ) from None
        except Exception as error:  # whatever damaged bytes do to pickle, zipfile and the builders
            size = os.fstat(file.fileno()).st_size
            raise ValueError(f"{path} ({size} bytes) is damaged, or not a pickle ({error!s:.200}).") from None


def read_pickle(path: str | os.PathLike) -> Any:
    """
    Read a pickle of data in protocol 0 to 5, such as those of the published implementation and of MMSA.

    Returns:
        containers, text, bytes, numbers, and numpy scalars and (perhaps read-only) arrays of numbers or text. An array
        of Python objects contains text, bytes, numbers and None. Keys are scalars; containers are at most 100 deep.

    Raises:
        OSError: the file cannot be opened; ValueError: it is damaged, or contains something else.
    """
    return read_file(path, _read_plain, PLAIN_BUILDERS)
