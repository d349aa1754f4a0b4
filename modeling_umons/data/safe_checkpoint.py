"""Reader of the published implementation's checkpoints that executes nothing in them.

`torch.load(weights_only=True)` refuses files of torch < 1.6 that contain a loss module, and allocates what a file
declares.
"""

import io
import math
import os
import zipfile
from typing import Any

import torch

from .safe_pickle import (
    PLAIN_BUILDERS,
    Builders,
    SafeUnpickler,
    call_class,
    check_instructions,
    expect,
    load_pickle,
    read_file,
)


OBJECTS = (
    "argparse.Namespace",
    "torch.nn.modules.loss.BCEWithLogitsLoss",
    "torch.nn.modules.loss.CrossEntropyLoss",
)
STORAGES = {
    "torch.FloatStorage": torch.float32,
    "torch.DoubleStorage": torch.float64,
    "torch.HalfStorage": torch.float16,
    "torch.LongStorage": torch.int64,
}
LEGACY_HEADER = (0x1950A86A20F9469CFC6C, 1001)  # magic number and protocol of torch < 1.6


def _build_tensor(arguments: tuple, *_: Any) -> torch.Tensor:
    storage, offset, size, stride = arguments[:4]
    last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
    ok = isinstance(storage, torch.Tensor) and storage.dim() == 1 and min((offset, *size, *stride)) >= 0
    # Strides of 0 would turn a few bytes into a huge tensor.
    ok = ok and math.prod(size) <= len(storage) and (not math.prod(size) or last < len(storage))
    expect(ok, f"a tensor of shape {size!s:.80} outside of its storage")
    return storage.as_strided(size, stride, offset)


def _build_object(arguments: tuple, items: dict, state: Any) -> dict[str, Any]:
    return dict(state or {})


CHECKPOINT_BUILDERS: Builders = {
    **PLAIN_BUILDERS,
    **dict.fromkeys(OBJECTS, _build_object),
    **dict.fromkeys(STORAGES),
    "torch._utils._rebuild_tensor_v2": _build_tensor,
}


class _CheckpointUnpickler(SafeUnpickler):
    """Unpickler with storages, of `size` bytes at most in all, that are filled after the pickle is read."""

    def __init__(self, stream: Any, size: int):
        super().__init__(stream, CHECKPOINT_BUILDERS)
        self.left, self.storages = size, {}

    def persistent_load(self, identity: Any) -> Any:
        kind, storage, key, *rest = identity
        if kind == "module":
            return storage  # torch < 1.6 stores the source text of a module's class next to it
        ok = (
            kind == "storage"
            and isinstance(storage, type)
            and storage.__name__ in STORAGES
            and rest[2:] in ([], [None])
        )
        expect(ok and type(key) is str, "a persistent id that is not a storage of numbers")
        dtype, count = STORAGES[storage.__name__], rest[1]
        if key not in self.storages:
            self.left -= count * dtype.itemsize
            expect(count >= 0 <= self.left, f"the storage {key!r:.40} with more elements than the file")
            self.storages[key] = torch.empty(count, dtype=dtype)
        tensor = self.storages[key]
        expect((tensor.dtype, len(tensor)) == (dtype, count), f"two descriptions of the storage {key!r:.40}")
        call = call_class("storage")()  # the instructions of the pickle do not get the tensor itself
        call.value = tensor
        return call


def _read_torch(stream: io.BufferedReader) -> dict[str, Any]:
    size = os.fstat(stream.fileno()).st_size
    result = (_read_zip if stream.peek(4)[:4] == b"PK\x03\x04" else _read_legacy)(stream, size)
    ok = isinstance(result, dict) and all(isinstance(result.get(name), dict) for name in ("state_dict", "args"))
    expect(ok, "something else than a checkpoint with state_dict and args")
    tensors = dict(result["state_dict"])
    ok = all(type(name) is str and isinstance(tensor, torch.Tensor) for name, tensor in tensors.items())
    expect(ok, "a state_dict of something else than names and tensors")
    return {**result, "state_dict": tensors}


def _read_zip(stream: io.BufferedReader, size: int) -> Any:
    with zipfile.ZipFile(stream) as archive:
        folder = _find_folder(archive)
        order = f"{folder}/byteorder"  # archives of torch < 2.1 have none
        little = order not in archive.namelist() or _read_record(archive, order) == b"little"
        expect(little, "numbers that are not little-endian")
        program = io.BytesIO(_read_record(archive, f"{folder}/data.pkl"))
        value, unpickler = load_pickle(program, _CheckpointUnpickler, size)
        for key, storage in unpickler.storages.items():
            _fill(storage, _read_record(archive, f"{folder}/data/{key}"))
        return value


def _find_folder(archive: zipfile.ZipFile) -> str:
    """Return the folder of the records of an archive of torch."""
    folders = [name.rpartition("/")[0] for name in archive.namelist() if name.endswith("/data.pkl")]
    expect(len(folders) == 1, f"{len(folders)} records data.pkl in place of one")
    return folders[0]


def _read_record(archive: zipfile.ZipFile, name: str) -> bytes:
    expect(archive.getinfo(name).compress_type == zipfile.ZIP_STORED, f"a compressed record {name}")
    return archive.read(name)


def _read_legacy(stream: io.BufferedReader, size: int) -> Any:
    """Read a file of torch < 1.6: five pickles (magic number, protocol, machine, object, keys), then the storages."""
    header = tuple(load_pickle(stream, SafeUnpickler, {})[0] for _ in range(2))
    expect(header == LEGACY_HEADER, "neither a zip archive nor the magic number of torch < 1.6")
    expect(load_pickle(stream, SafeUnpickler, {})[0]["little_endian"] is True, "numbers that are not little-endian")
    value, unpickler = load_pickle(stream, _CheckpointUnpickler, size)
    for key in load_pickle(stream, SafeUnpickler, {})[0]:
        count, storage = int.from_bytes(stream.read(8), "little"), unpickler.storages.pop(key)
        expect(count == len(storage), f"{count} elements in storage {key!r}, expected {len(storage)}")
        _fill(storage, stream.read(storage.nbytes))
    expect(not unpickler.storages, "tensors without storages")
    return value


def _fill(storage: torch.Tensor, data: bytes) -> None:
    expect(len(data) == storage.nbytes, f"a storage of {len(data)} bytes, expected {storage.nbytes}")
    if data:
        storage.copy_(torch.frombuffer(bytearray(data), dtype=storage.dtype))


def read_checkpoint(path: str | os.PathLike) -> dict[str, Any]:
    """
    Read a checkpoint of the published implementation, in the zip format of `torch.save` or that of torch < 1.6.

    Returns:
        the saved dict: `state_dict` is {name: CPU tensor}, `args` the attributes of the argparse.Namespace. A loss
            module
        is the dict of its attributes. Tensors that shared a storage still do.

    Raises:
        OSError: the file cannot be opened; ValueError: it is damaged, or not such a checkpoint.
    """
    return read_file(path, _read_torch, CHECKPOINT_BUILDERS)


def check_archive(path: str | os.PathLike) -> None:
    """
    Check the instructions of the pickle in a file of `torch.save`. `torch.load(weights_only=True)` executes nothing of
    a hostile file, but some instructions end the process.

    Raises:
        OSError: the file cannot be opened; ValueError: it is damaged, or an instruction is refused.
    """

    def check(stream: io.BufferedReader) -> None:
        with zipfile.ZipFile(stream) as archive:
            check_instructions(io.BytesIO(_read_record(archive, f"{_find_folder(archive)}/data.pkl")))

    read_file(path, check, {})
