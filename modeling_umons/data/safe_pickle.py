# Copyright 2026 The modeling_umons authors.
# SPDX-License-Identifier: MIT
"""Reads the pickles of the published implementation (data files and checkpoints) without executing anything.

A pickle is a program. `pickletools.genops` of the standard library takes it apart into instructions, and `_DataPickle`
carries out those that build data. A global is never more than a name here: a few names have a builder of ours, every
other is refused, and no import machinery is within reach. The usual tools fall short:

- `torch.load(weights_only=True)` refuses checkpoints of torch < 1.6 that hold a loss module, and calls `bytearray(n)`
  for any n that a file asks for.
- `pickle.Unpickler` with a restricted `find_class` takes gigabytes for a nine-byte file (a large memo index) and
  crashes the process on a deeply nested tuple that is used as a key.

Here memory is taken only for bytes that the file really holds.
"""

import io
import math
import os
import pickletools
import re
import struct
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch


MAX_NESTING = 100
SCALARS = (str, bytes, int, float, bool, type(None))
# What zipfile raises on damaged archives.
ZIP_ERRORS = (
    zipfile.BadZipFile, EOFError, NotImplementedError, OSError, OverflowError, RuntimeError, ValueError, struct.error,
)  # fmt: skip
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001
STORAGES = {
    "torch.FloatStorage": torch.float32,
    "torch.DoubleStorage": torch.float64,
    "torch.HalfStorage": torch.float16,
    "torch.LongStorage": torch.int64,
}
# How numpy writes the dtype of Python objects.
OBJECT_STATE = (3, "|", None, None, None, -1, -1, 63)
LOSSES = ("torch.nn.modules.loss.BCEWithLogitsLoss", "torch.nn.modules.loss.CrossEntropyLoss")


class _Refused(Exception):
    """The file asks for something outside of the allow list."""


class _Damaged(Exception):
    """The file is not what it should be: cut off, or no pickle at all."""


class _Global(NamedTuple):
    """A name that stands in a pickle; never the thing it names."""

    name: str


class _Holder(dict):
    """The attributes of an object whose class is not instantiated."""


def _expect(condition: bool, fact: str) -> None:
    if not condition:
        raise _Refused(fact)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _build_set(*args) -> set:
    _expect(len(args) < 2 and all(type(arg) is list for arg in args), "a set that is not made of a list")
    items = args[0] if args else []
    _expect(all(type(item) in SCALARS for item in items), "a set of something other than scalars")
    return set(items)


def _build_empty(kind: type) -> Callable:
    def build(*args):
        _expect(args == (), f"a call of {kind.__name__} with arguments")
        return kind()

    return build


def _build_bytes(*args) -> bytes:
    # Protocol 2 has no bytes: they are written as text, one character per byte.
    ok = len(args) == 2 and type(args[0]) is str and args[1] in ("latin1", "latin-1")
    _expect(ok, "_codecs.encode of something other than text in latin-1")
    return args[0].encode("latin-1")


def _build_dtype(*args) -> np.dtype:
    code = args[0] if args else None
    ok = type(code) is str and re.fullmatch(r"b1|O8|[iu][1248]|f[248]|[SU][1-9][0-9]{0,6}", code)
    _expect(
        bool(ok) and all(arg in (0, 1) for arg in args[1:]),
        f"the numpy dtype {code!r}; only numbers, text and scalars",
    )
    return np.dtype(code, False, True)  # a copy of its own: the byte order is set later, in place


def _set_dtype_state(dtype: np.dtype, state: Any) -> None:
    # (version, byte order, subdtype, names, fields, item size, alignment, flags[, metadata])
    ok = type(state) is tuple and len(state) == 8 and state[0] == 3 and state[1] in ("<", ">", "|", "=")
    if dtype.hasobject:  # its flags are what keeps numpy from taking bytes for pointers: never set from a file
        _expect(ok and state == OBJECT_STATE, "the numpy dtype of Python objects with a state of its own")
        return
    ok = ok and state[2:5] == (None, None, None) and state[5] in (-1, dtype.itemsize) and state[7] in (0, 8)
    _expect(bool(ok), "a numpy dtype with fields, objects or another state than plain numbers have")
    size = (dtype.itemsize, dtype.alignment) if dtype.kind in "SU" else (-1, -1)
    dtype.__setstate__((3, state[1], None, None, None, *size, 0))


def _build_array(*args) -> np.ndarray:
    ok = len(args) == 3 and args[0] == _Global("numpy.ndarray") and args[1] == (0,)
    _expect(bool(ok), "a numpy array that starts as anything but an empty numpy.ndarray")
    return np.empty(0, dtype=np.int8)


def _set_array_state(array: np.ndarray, state: Any) -> None:
    # (version, shape, dtype, Fortran order, raw bytes; of Python objects: a list of them)
    _expect(array.dtype == np.int8 and array.size == 0, "a numpy array that is filled twice")
    ok = type(state) is tuple and len(state) == 5 and state[0] == 1 and type(state[1]) is tuple
    ok = ok and all(map(_is_count, state[1])) and type(state[3]) is bool
    _expect(ok and len(state[1]) <= 32 and isinstance(state[2], np.dtype), "a numpy array with an unknown state")
    if state[2].hasobject:
        ok = type(state[4]) is list and all(type(item) in SCALARS or isinstance(item, np.generic) for item in state[4])
        _expect(ok, "a numpy array of Python objects (dtype object) other than text, bytes, numbers and None")
    else:
        _expect(type(state[4]) is bytes, "a numpy array of numbers or text that is not made of bytes")
    _check_size(state[1], state[2], state[4])
    array.__setstate__(state)


def _check_size(shape: tuple[int, ...], dtype: np.dtype, data: bytes | bytearray | list) -> None:
    needed, unit = math.prod(shape), "items"
    if type(data) is not list:
        needed, unit = needed * dtype.itemsize, "bytes"
    if len(data) != needed:
        raise _Damaged(f"a numpy array of shape {shape} needs {needed} {unit}, the file gives it {len(data)}")


def _build_array_of_buffer(*args) -> np.ndarray:
    # What protocol 5 has instead of an array's state: (raw bytes, dtype, shape, order)
    ok = len(args) == 4 and type(args[0]) in (bytes, bytearray) and isinstance(args[1], np.dtype)
    ok = ok and not args[1].hasobject and type(args[2]) is tuple and all(map(_is_count, args[2]))
    _expect(ok and len(args[2]) <= 32 and args[3] in ("C", "F"), "a numpy array of a buffer of an unknown kind")
    _check_size(args[2], args[1], args[0])
    return np.ndarray(args[2], args[1], args[0] or None, order=args[3])


def _build_numpy_scalar(*args) -> np.generic:
    ok = len(args) == 2 and isinstance(args[0], np.dtype) and not args[0].hasobject and type(args[1]) is bytes
    _expect(ok, "a numpy scalar that is not made of a dtype and bytes (dtype object)")
    if len(args[1]) != args[0].itemsize:
        raise _Damaged(f"a numpy scalar of {args[0].itemsize} bytes, the file gives it {len(args[1])}")
    return np.frombuffer(args[1], dtype=args[0])[0]


def _build_tensor(*args) -> torch.Tensor:
    ok = len(args) in (6, 7) and isinstance(args[0], torch.Tensor) and args[0].dim() == 1 and _is_count(args[1])
    ok = ok and all(type(arg) is tuple and all(map(_is_count, arg)) for arg in args[2:4])
    _expect(ok and len(args[2]) == len(args[3]) <= 32, "a tensor that is not a view of a stored array")
    storage, offset, size, stride = args[:4]
    last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
    count = math.prod(size)
    # No view may show more elements than are stored: strides of 0 would turn a few bytes into a huge tensor.
    if count > storage.numel() or (count and last >= storage.numel()) or max((*size, *stride, offset)) > 2**40:
        raise _Damaged(f"a tensor of shape {size} lies outside of its storage of {storage.numel()} elements")
    return storage.as_strided(size, stride, offset)


# Protocol 2 writes `__builtin__` for `builtins`; numpy 2 renamed `numpy.core`.
PLAIN_BUILDERS: dict[str, Callable | None] = {
    "__builtin__.bytes": _build_empty(bytes),
    "__builtin__.set": _build_set,
    "builtins.set": _build_set,
    "_codecs.encode": _build_bytes,
    "collections.OrderedDict": _build_empty(OrderedDict),
    "numpy.core.multiarray._reconstruct": _build_array,
    "numpy._core.multiarray._reconstruct": _build_array,
    "numpy.core.multiarray.scalar": _build_numpy_scalar,
    "numpy._core.multiarray.scalar": _build_numpy_scalar,
    "numpy.core.numeric._frombuffer": _build_array_of_buffer,
    "numpy._core.numeric._frombuffer": _build_array_of_buffer,
    "numpy.dtype": _build_dtype,
    "numpy.ndarray": None,  # may be named, is never called
}
CHECKPOINT_BUILDERS = {
    **PLAIN_BUILDERS,
    "torch._utils._rebuild_tensor_v2": _build_tensor,
    "argparse.Namespace": None,
    **dict.fromkeys((*LOSSES, *STORAGES)),
}
# gensim 4 and 3; its version 3 has a Vocab for each word.
KEYED_VECTORS = tuple(
    f"gensim.models.keyedvectors.{name}" for name in ("KeyedVectors", "Word2VecKeyedVectors", "Vocab")
)
KEYED_VECTORS_BUILDERS = {**PLAIN_BUILDERS, **dict.fromkeys(KEYED_VECTORS)}
# The objects that are made by class and then filled: what the dictionary in their place starts with.
HOLDERS = {"argparse.Namespace": {}} | {name: {"__class__": name} for name in (*LOSSES, *KEYED_VECTORS)}

IGNORED = {"PROTO", "FRAME"}
LITERALS = {
    "BININT", "BININT1", "BININT2", "INT", "LONG", "LONG1", "LONG4", "BINFLOAT", "FLOAT",
    "BINUNICODE", "BINUNICODE8", "SHORT_BINUNICODE", "UNICODE", "BINBYTES", "BINBYTES8", "SHORT_BINBYTES", "BYTEARRAY8",
}  # fmt: skip
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
CONTAINERS = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_SET": set}
COUNTED = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class _DataPickle:
    """Carries out the instructions of a pickle that build data.

    Args:
        builders: what each allowed global does with its arguments; None for a name that is never called.
        storage: gives the 1-d tensor for (dtype, key, number of elements); None where tensors have no place.
    """

    def __init__(self, builders: dict[str, Callable | None], storage: Callable | None = None):
        self.builders = builders
        self.storage = storage
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        # Of every container: how deep it is, whether another one holds it, and itself (so that its id stays its own).
        self.depth: dict[int, int] = {}
        self.held: set[int] = set()
        self.alive: list[Any] = []

    def load(self, stream: "io.BytesIO | _Bounded") -> Any:
        """Reads one pickle and leaves the stream behind its end."""
        instructions = pickletools.genops(stream)
        # genops decodes names with a function that warns about the stray backslashes of damaged files
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
            while True:
                try:
                    opcode, argument, _ = next(instructions)
                except ValueError as error:
                    raise _Damaged(f"it is cut off or no pickle ({error})") from None
                try:
                    if opcode.name == "STOP":
                        return self.stack.pop()
                    self.step(opcode.name, argument)
                except (IndexError, KeyError, OverflowError, RuntimeError, TypeError, ValueError):
                    raise _Damaged(f"the instruction {opcode.name} lacks its arguments, or they do not fit") from None

    def step(self, name: str, argument: Any) -> None:
        stack = self.stack
        if name in LITERALS:
            stack.append(argument)
        elif name in CONSTANTS:
            stack.append(CONSTANTS[name])
        elif name in CONTAINERS:
            stack.append(self.track(CONTAINERS[name]()))
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = stack[-1]
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self.memo[argument] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(self.memo[argument])
        elif name == "MARK":
            self.marks.append(len(stack))
        elif name == "TUPLE" or name in COUNTED:
            items = self.pop(COUNTED[name]) if name in COUNTED else self.pop_to_mark()
            stack.append(self.hold(self.track(tuple(items)), items) if items else ())
        elif name in ("LIST", "DICT"):
            items = self.pop_to_mark()
            stack.append(self.track([] if name == "LIST" else {}))
            self.fill(name, items)
        elif name in ("APPEND", "SETITEM"):
            self.fill(name, self.pop(1 if name == "APPEND" else 2))
        elif name in ("APPENDS", "SETITEMS", "ADDITEMS"):
            self.fill(name, self.pop_to_mark())
        elif name not in IGNORED:
            self.step_object(name, argument)

    def step_object(self, name: str, argument: Any) -> None:
        """The instructions that make more than plain containers."""
        if name == "GLOBAL":
            self.stack.append(self.find_global(argument.replace(" ", ".", 1)))
        elif name == "STACK_GLOBAL":
            self.stack.append(self.find_global(".".join(self.pop(2))))
        elif name == "INST":
            self.find_global(argument.replace(" ", ".", 1))
            raise _Refused(f"an object made by the instruction INST ({argument})")
        elif name == "REDUCE":
            function, arguments = self.pop(2)
            builder = self.builders.get(function.name) if type(function) is _Global else None
            _expect(builder is not None and type(arguments) is tuple, f"a call of {_describe(function)}")
            self.stack.append(self.track(builder(*arguments)))
        elif name == "NEWOBJ":
            cls, arguments = self.pop(2)
            ok = type(cls) is _Global and cls.name in HOLDERS and arguments == ()
            _expect(ok, f"an object of {_describe(cls)}")
            self.stack.append(self.track(_Holder(HOLDERS[cls.name])))
        elif name == "FROZENSET":
            items = self.pop_to_mark()
            _expect(all(type(item) in SCALARS for item in items), "a set of something other than scalars")
            self.stack.append(frozenset(items))
        elif name == "BUILD":
            (state,) = self.pop(1)
            self.set_state(self.stack[-1], state)
        elif name == "BINPERSID":
            self.stack.append(self.load_persistent(*self.pop(1)))
        else:
            raise _Refused(f"the pickle instruction {name}" + (f" ({argument})" if argument is not None else ""))

    def pop(self, count: int) -> list:
        floor = self.marks[-1] if self.marks else 0
        if len(self.stack) - count < floor:
            raise IndexError
        items = self.stack[-count:]
        del self.stack[-count:]
        return items

    def pop_to_mark(self) -> list:
        mark = self.marks.pop()
        items = self.stack[mark:]
        del self.stack[mark:]
        return items

    def track(self, container: Any) -> Any:
        self.depth[id(container)] = 1
        self.alive.append(container)
        return container

    def hold(self, container: Any, items: list) -> Any:
        """Notes that `container` takes `items` in.

        What is inside a container is never changed again, so nothing can come to hold itself.
        """
        _expect(id(container) not in self.held, "an object that holds itself")
        for item in items:
            depth = self.depth.get(id(item))
            if depth is not None:
                _expect(item is not container, "an object that holds itself")
                self.held.add(id(item))
                self.depth[id(container)] = max(self.depth[id(container)], depth + 1)
        _expect(self.depth[id(container)] <= MAX_NESTING, f"more than {MAX_NESTING} containers inside each other")
        return container

    def fill(self, name: str, items: list) -> None:
        container = self.stack[-1]
        kinds = {"ADDITEMS": (set,), "APPEND": (list,), "APPENDS": (list,), "LIST": (list,)}
        _expect(type(container) in kinds.get(name, (dict, OrderedDict)), f"{name} on {_describe(container)}")
        self.hold(container, items)
        if type(container) is list:
            container.extend(items)
            return
        keys = items if type(container) is set else items[::2]
        # Scalars only: the hash of nested tuples costs unlimited time and stack.
        _expect(all(type(key) in SCALARS for key in keys), "a key that is not text, bytes, a number or None")
        if type(container) is set:
            container.update(items)
        elif len(items) % 2:
            raise IndexError
        else:
            container.update(zip(keys, items[1::2], strict=True))

    def find_global(self, name: str) -> _Global:
        _expect(name in self.builders, f"the global {name}")
        return _Global(name)

    def set_state(self, target: Any, state: Any) -> None:
        if isinstance(target, np.dtype):
            _set_dtype_state(target, state)
        elif type(target) is np.ndarray:
            _set_array_state(target, state)
        elif type(target) is _Holder:
            _expect(type(state) is dict and all(type(key) is str for key in state), "attributes that are not a dict")
            self.hold(target, [state])
            target.update(state)
        else:
            # torch hangs `_metadata` (version numbers) on the OrderedDict of a state_dict: of no use here.
            _expect(type(target) is OrderedDict, f"a state for {_describe(target)}")

    def load_persistent(self, identity: Any) -> Any:
        ok = self.storage is not None and type(identity) is tuple and len(identity) >= 2
        _expect(ok, f"the persistent id {_describe(identity)}")
        if identity[0] == "module" and type(identity[1]) is _Global:
            return identity[1]  # torch < 1.6 puts the source text of a module's class beside its name
        kind, (key, _location, count), view = identity[1], (identity[2:5] + (None,) * 3)[:3], identity[5:]
        ok = identity[0] == "storage" and type(kind) is _Global and kind.name in STORAGES
        ok = ok and type(key) is str and _is_count(count) and view in ((), (None,))
        _expect(ok, f"the persistent id {_describe(identity)}")
        return self.storage(STORAGES[kind.name], key, count)


def _describe(value: Any) -> str:
    """A short text for a message, whatever the value holds."""
    if type(value) is _Global:
        return value.name
    if type(value) is tuple:
        return "(" + ", ".join(_describe(item) if type(item) is not tuple else "(...)" for item in value[:6]) + ")"
    if type(value) is int and value.bit_length() > 64:
        return "a large int"
    return repr(value)[:80] if type(value) in SCALARS else f"a {type(value).__name__}"


class _Storages:
    """The arrays of numbers behind the tensors of one checkpoint, each read once."""

    def __init__(self, total: int):
        self.left = total  # bytes that the file can still give
        self.tensors: dict[str, torch.Tensor] = {}

    def __call__(self, dtype: torch.dtype, key: str, count: int) -> torch.Tensor:
        if key not in self.tensors:
            self.left -= count * dtype.itemsize
            if self.left < 0:
                raise _Damaged(f"storage {key!r} should have {count} elements, more than the file holds")
            self.tensors[key] = self.read(dtype, key, count)
        tensor = self.tensors[key]
        if (tensor.dtype, tensor.numel()) != (dtype, count):
            raise _Damaged(f"storage {key!r} is described in two ways")
        return tensor

    def read(self, dtype: torch.dtype, key: str, count: int) -> torch.Tensor:
        return torch.zeros(count, dtype=dtype)  # the legacy format has the numbers behind the pickle: filled in later


class _ZipStorages(_Storages):
    def __init__(self, archive: zipfile.ZipFile, folder: str, total: int):
        super().__init__(total)
        self.archive, self.folder = archive, folder

    def read(self, dtype: torch.dtype, key: str, count: int) -> torch.Tensor:
        return _as_tensor(_read_record(self.archive, f"{self.folder}/data/{key}"), dtype, key, count)


def _as_tensor(data: bytes, dtype: torch.dtype, key: str, count: int) -> torch.Tensor:
    if len(data) != count * dtype.itemsize:
        raise _Damaged(f"storage {key!r} should have {count * dtype.itemsize} bytes, it has {len(data)}")
    # frombuffer refuses empty buffers, and warns on ones that cannot be written to
    return torch.frombuffer(bytearray(data), dtype=dtype) if data else torch.empty(0, dtype=dtype)


def _read_record(archive: zipfile.ZipFile, name: str) -> bytes:
    try:
        info = archive.getinfo(name)
    except KeyError:
        raise _Damaged(f"the archive lacks {name}") from None
    _expect(
        info.compress_type == zipfile.ZIP_STORED and not info.flag_bits & 1, f"a packed or encrypted record {name}"
    )
    return archive.read(info)


def _read_zip_checkpoint(data: bytes) -> Any:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            folders = [name.rpartition("/")[0] for name in archive.namelist() if name.endswith("/data.pkl")]
            if len(folders) != 1:
                raise _Damaged(f"a torch archive has one data.pkl, this one has {len(folders)}")
            order = f"{folders[0]}/byteorder"
            if order in archive.namelist():  # archives of torch < 2.1 do not say
                _expect(_read_record(archive, order) == b"little", "numbers that are not little-endian")
            stream = io.BytesIO(_read_record(archive, f"{folders[0]}/data.pkl"))
            return _DataPickle(CHECKPOINT_BUILDERS, _ZipStorages(archive, folders[0], len(data))).load(stream)
    except ZIP_ERRORS as error:
        raise _Damaged(f"the zip archive cannot be read ({error})") from None


def _read_legacy_checkpoint(data: bytes) -> Any:
    """torch < 1.6: pickles of magic number, protocol, machine, object and storage keys, then the storages.

    Each storage has its length before it.
    """
    stream = io.BytesIO(data)
    magic, protocol = (_DataPickle({}).load(stream) for _ in range(2))
    if (magic, protocol) != (LEGACY_MAGIC, LEGACY_PROTOCOL):
        raise _Damaged("it is neither a torch zip archive nor a torch < 1.6 file (magic number)")
    machine = _DataPickle({}).load(stream)
    _expect(isinstance(machine, dict) and machine.get("little_endian") is True, "numbers that are not little-endian")
    storages = _Storages(len(data))
    result = _DataPickle(CHECKPOINT_BUILDERS, storages).load(stream)
    keys = _DataPickle({}).load(stream)
    ok = type(keys) is list and all(type(key) is str for key in keys)
    if not ok or sorted(keys) != sorted(storages.tensors):
        raise _Damaged("the list of storages does not fit the tensors")
    for key in keys:
        tensor = storages.tensors[key]
        count = int.from_bytes(stream.read(8), "little", signed=True)
        if count != tensor.numel():
            raise _Damaged(f"storage {key!r} should have {tensor.numel()} elements, its header says {count}")
        tensor.copy_(_as_tensor(stream.read(tensor.numel() * tensor.element_size()), tensor.dtype, key, count))
    return result


class _Bounded:
    """A file as `pickletools.genops` takes it, which gives no room to lengths that the file itself does not have."""

    def __init__(self, file: io.BufferedReader, size: int):
        self.file, self.size, self.readline = file, size, file.readline

    def read(self, count: int) -> bytes:
        return self.file.read(min(count, self.size))


def _read(path: str | os.PathLike, reader: Callable[[io.BufferedReader, int], Any], allowed: dict) -> Any:
    """Runs `reader` on the open file and its size, and puts what it finds into words."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        try:
            return reader(file, size)
        except _Damaged as damage:
            raise OSError(f"cannot read {path} ({size} bytes): {damage}") from None
        except _Refused as refusal:
            raise ValueError(
                f"{path} is refused: it holds {refusal}. Nothing of it was executed. "
                f"Allowed are plain containers, text, numbers, and these globals: {', '.join(sorted(allowed))}."
            ) from None


def _read_plain(file: io.BufferedReader, size: int) -> Any:
    if file.peek(4)[:4] == b"PK\x03\x04":
        raise _Damaged("it is a zip archive, no plain pickle; `read_checkpoint` reads torch checkpoints")
    # Straight from the file: of arrays of gigabytes, its bytes would be a second copy.
    return _DataPickle(PLAIN_BUILDERS).load(_Bounded(file, size))


def _read_keyed_vectors(file: io.BufferedReader, size: int) -> dict[str, Any]:
    result = _DataPickle(KEYED_VECTORS_BUILDERS).load(_Bounded(file, size))
    _expect(type(result) is _Holder, f"{_describe(result)} where gensim's KeyedVectors belong")
    return dict(result)


def _read_torch(file: io.BufferedReader, size: int) -> dict[str, Any]:
    data = file.read()
    result = (_read_zip_checkpoint if data[:4] == b"PK\x03\x04" else _read_legacy_checkpoint)(data)
    _expect(isinstance(result, dict) and {"state_dict", "args"} <= result.keys(), "no dict of state_dict and args")
    state_dict, args = result["state_dict"], result["args"]
    _expect(isinstance(state_dict, dict) and isinstance(args, dict), "a state_dict or args that are no mapping")
    for name, tensor in state_dict.items():
        ok = type(name) is str and isinstance(tensor, torch.Tensor)
        _expect(ok, f"a state_dict with {_describe(tensor)} under {_describe(name)} where tensors belong")
    return {**result, "state_dict": dict(state_dict), "args": dict(args)}


def read_pickle(path: str | os.PathLike) -> Any:
    """Reads a data file of the published implementation (`*_sentences.p`, `*_mels.p`, `token_to_ix.pkl`, ...).

    Protocols 0 to 5.

    Returns:
        What was pickled: containers, text, bytes, numbers, and numpy arrays and scalars of numbers or text; an array of
        Python objects holds text, bytes, numbers and None only. Keys of dicts and members of sets are scalars; containers are at most 100 deep and none holds itself.

    Raises:
        OSError: the file is missing, cut off, or no pickle.
        ValueError: the file names a global outside of the allow list, or holds what these data files never hold.
    """
    return _read(path, _read_plain, PLAIN_BUILDERS)


def read_keyed_vectors(path: str | os.PathLike) -> dict[str, Any]:
    """Reads word vectors that gensim saved (`KeyedVectors.save`); gensim is neither imported nor needed.

    Returns:
        The attributes: `index_to_key` (gensim 3: `index2word`) lists the words, and `vectors` is their array, unless
        gensim put it into a `.vectors.npy` beside. `__class__` is the name of the class, which is not instantiated.

    Raises:
        OSError: the file is missing, cut off, or no pickle.
        ValueError: the file names a global outside of the allow list, or is not built as such vectors.
    """
    return _read(path, _read_keyed_vectors, KEYED_VECTORS_BUILDERS)


def read_checkpoint(path: str | os.PathLike) -> dict[str, Any]:
    """Reads a checkpoint of the published implementation, as `torch.save` wrote it.

    Both its formats are read: the zip archive, and the one before torch 1.6.

    Returns:
        The saved dict, of which `state_dict` is {name: CPU tensor} and `args` the attributes of the
        argparse.Namespace. A loss module becomes the dict of its attributes, with its full class name under
        `__class__`; its class is neither imported nor instantiated. Tensors that shared their storage still share it.

    Raises:
        OSError: the file is missing, cut off, or no checkpoint.
        ValueError: the file names a global outside of the allow list, or is not built as such a checkpoint.
    """
    return _read(path, _read_torch, CHECKPOINT_BUILDERS)
