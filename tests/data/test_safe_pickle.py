"""Allow-list reader of pickles: real files are read, hostile ones are refused and execute nothing."""

import argparse
import builtins
import io
import os
import pickle
import random
import resource
import struct
import subprocess
import sys
import tracemalloc
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

from modeling_umons.data.safe_checkpoint import read_checkpoint
from modeling_umons.data.safe_pickle import read_pickle


class Calls:
    """Pickles as a call of `function`."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def write_archive(path: Path, program: bytes, records: dict[str, bytes] | None = None, compression=0) -> Path:
    """A torch zip archive around a pickle."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in {"data.pkl": program, "byteorder": b"little", **(records or {})}.items():
            archive.writestr(f"archive/{name}", data)
    return path


def example_checkpoint() -> dict:
    weight = torch.arange(12, dtype=torch.float32).reshape(3, 4)
    state_dict = OrderedDict(weight=weight, tied=weight, transposed=weight.t(), empty=torch.zeros(0, 4))
    state_dict["double"] = torch.tensor(2.5, dtype=torch.float64)
    state_dict._metadata = OrderedDict({"": {"version": 1}})
    losses = {"loss_fn": torch.nn.CrossEntropyLoss(reduction="sum"), "other": torch.nn.BCEWithLogitsLoss()}
    return {"state_dict": state_dict, "args": argparse.Namespace(model="Model_LA", layer=4, lr=1e-4, **losses)}


@pytest.mark.parametrize("protocol", [0, 2, 3, 4, 5])
def test_plain_pickles(tmp_path, protocol):
    data = {
        "words": {"a[0]": ["That's", "é"], "a[1]": []},
        "scalars": (1, -(2**70), 1.5, None, True, b"\xff\x00" if protocol > 0 else "", {"x", "y"}),
        "ordered": OrderedDict(b=1, a=2),
        "arrays": [np.arange(6, dtype=t).reshape(2, 3) for t in ("f4", "f8", "i8", ">f4", "u1")],
        "empty": np.zeros((0, 80), dtype=np.float32),
        "fortran": np.asfortranarray(np.eye(3)),
        "text": np.array(["yes", "no"]),
        "objects": np.array(
            [["a$_$0", None, 1.5], [b"\xff" if protocol > 0 else "", True, np.str_("é")]], dtype=object
        ),
        "scalar": np.float64(0.5),
    }
    program = pickle.dumps(data, protocol=protocol)
    read = read_pickle(write(tmp_path / "a.p", program))
    assert read.keys() == data.keys()
    assert all(read[key] == data[key] for key in ("words", "scalars", "ordered", "scalar"))
    for ours, theirs in zip(read["arrays"], pickle.loads(program)["arrays"], strict=True):
        assert ours.dtype == theirs.dtype
        assert np.array_equal(ours, theirs)
    assert read["empty"].shape == (0, 80)
    assert np.array_equal(read["fortran"], np.eye(3))
    assert read["text"].tolist() == ["yes", "no"]
    assert read["objects"].dtype == object
    assert read["objects"].tolist() == data["objects"].tolist()


def test_large_pickle_is_in_memory_once(tmp_path):
    array = np.arange(10**7, dtype=np.float32)
    path = write(tmp_path / "a.p", pickle.dumps(array, protocol=4))
    tracemalloc.start()
    try:
        read = read_pickle(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert np.array_equal(read, array)
    assert array.nbytes < peak < 1.1 * array.nbytes


@pytest.mark.parametrize("protocol", [3, 5])
def test_pickles_of_numpy_1(tmp_path, protocol):
    data = pickle.dumps(np.arange(3.0), protocol=protocol).replace(b"\x8c\x13numpy._core.", b"\x8c\x12numpy.core.")
    data = data.replace(b"cnumpy._core.", b"cnumpy.core.")  # the names of protocol 3 have no length
    if protocol == 5:  # the length of its frame
        data = data[:3] + struct.pack("<Q", struct.unpack("<Q", data[3:11])[0] - 1) + data[11:]
    assert b"numpy.core." in data
    assert read_pickle(write(tmp_path / "a.p", data)).tolist() == [0, 1, 2]


@pytest.mark.parametrize("zip_format", [True, False])
def test_checkpoints_of_both_formats(tmp_path, zip_format):
    checkpoint = example_checkpoint()
    torch.save(checkpoint, tmp_path / "a.pkl", _use_new_zipfile_serialization=zip_format)
    read = read_checkpoint(tmp_path / "a.pkl")
    assert read.keys() == {"state_dict", "args"}
    assert read["state_dict"].keys() == checkpoint["state_dict"].keys()
    for name, tensor in checkpoint["state_dict"].items():
        assert read["state_dict"][name].dtype == tensor.dtype
        assert torch.equal(read["state_dict"][name], tensor)
    loss, other = read["args"].pop("loss_fn"), read["args"].pop("other")
    assert read["args"] == {"model": "Model_LA", "layer": 4, "lr": 1e-4}
    assert (loss["reduction"], other["reduction"]) == ("sum", "mean")


@pytest.mark.shared
def test_every_real_data_file(shared):
    paths = sorted((shared / "golden" / "original" / "MOSEI").glob("*.p*"))
    assert len(paths) == 13
    for path in paths:
        first = next(iter(read_pickle(path).values()))
        kinds = {"emotion": np.ndarray, "mels": np.ndarray, "sentences": list, "sentiment": float, "to_ix": int}
        assert isinstance(first, kinds[path.stem.split("_", 1)[1]]), path


@pytest.mark.shared
def test_real_checkpoints_as_torch_reads_them(shared):
    paths = sorted((shared / "golden" / "original" / "ckpt").glob("*/*.pkl"))
    assert len(paths) == 2
    allowed = [(argparse.Namespace, "argparse.Namespace")]
    allowed += [torch.nn.CrossEntropyLoss, torch.nn.BCEWithLogitsLoss]
    for path in paths:
        with torch.serialization.safe_globals(allowed):
            expected = torch.load(path, weights_only=True)
        read = read_checkpoint(path)
        assert read.keys() == expected.keys()
        assert read["state_dict"].keys() == expected["state_dict"].keys()
        assert all(torch.equal(tensor, expected["state_dict"][name]) for name, tensor in read["state_dict"].items())
        theirs = vars(expected["args"])
        assert read["args"].keys() == theirs.keys()
        assert all(value == theirs[name] for name, value in read["args"].items() if name != "loss_fn")
        assert read["args"]["loss_fn"]["reduction"] == theirs["loss_fn"].reduction


def test_loss_modules_are_not_instantiated(tmp_path):
    torch.save(example_checkpoint(), tmp_path / "a.pkl")
    code = (
        "import sys; from modeling_umons.data.safe_checkpoint import read_checkpoint; import torch\n"
        "def fail(*args, **kwargs): raise SystemExit('instantiated')\n"
        "torch.nn.Module.__init__ = torch.nn.Module.__setstate__ = torch.nn.Module.__new__ = fail\n"
        "print(type(read_checkpoint(sys.argv[1])['args']['loss_fn']).__mro__[-2].__name__)"
    )
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", code, str(tmp_path / "a.pkl")]
    result = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert (result.returncode, result.stdout.strip()) == (0, "dict"), result.stderr


def hostile_programs(canary: str) -> dict[str, tuple[bytes, str]]:
    """Programs that would make the file `canary`, each with the global's name that the error must give."""
    touch = f"open({canary!r}, 'w').close()"
    text = struct.pack("<BI", ord("X"), len(canary) + 6) + b"touch " + canary.encode()
    system = "nt" if os.name == "nt" else "posix"
    attribute = pickle.dumps(Calls(getattr, Calls(__import__, "os"), "system"), protocol=2)
    return {
        "os.system": (pickle.dumps(Calls(os.system, f"touch {canary}"), protocol=4), f"{system}.system"),
        "eval": (pickle.dumps(Calls(builtins.eval, touch), protocol=4), "builtins.eval"),
        "eval, protocol 0": (pickle.dumps(Calls(builtins.eval, touch), protocol=0), "__builtin__.eval"),
        "raw": (b"cposix\nsystem\n" + text + b"\x85R.", "posix.system"),
        "raw, never called": (b"\x80\x02}cposix\nsystem\nK\x01s.", "posix.system"),
        "INST": (b"(" + text + b"iposix\nsystem\n.", "posix.system"),
        "OBJ": (b"(cposix\nsystem\n" + text + b"o.", "the pickle instruction OBJ"),
        "nested torch.load": (pickle.dumps(Calls(torch.load, canary), protocol=4), "torch.serialization.load"),
        "nested pickle": (pickle.dumps(Calls(pickle.loads, b"."), protocol=4), "_pickle.loads"),
        "getattr": (attribute, "__builtin__.getattr"),
        "dotted name": (b"\x80\x04\x8c\x08builtins\x8c\x10object.__class__\x93.", "builtins.object.__class__"),
        "dotted allowed name": (
            b"\x80\x04\x8c\x0bcollections\x8c\x14OrderedDict.fromkeys\x93.",
            "collections.OrderedDict.fromkeys",
        ),
        "bytearray": (pickle.dumps(Calls(bytearray, 2**33), protocol=4), "builtins.bytearray"),
        "numpy loader": (pickle.dumps(Calls(np.load, canary), protocol=4), "numpy.load"),
    }


@pytest.mark.parametrize("case", hostile_programs("x"))
@pytest.mark.parametrize("kind", ["plain", "zip", "legacy"])
def test_hostile_globals_are_refused_by_name(tmp_path, monkeypatch, case, kind):
    monkeypatch.chdir(tmp_path)
    program, name = hostile_programs("canary")[case]
    path = tmp_path / "hostile.pkl"
    if kind == "plain":
        reader, path = read_pickle, write(path, program)
    elif kind == "zip":
        reader, path = read_checkpoint, write_archive(path, program)
    else:
        torch.save({}, path, _use_new_zipfile_serialization=False)
        reader, path = read_checkpoint, write(path, path.read_bytes().replace(b"\x80\x02}q\x00.", program))
    with pytest.raises(
        ValueError, match=rf"hostile\.pkl is refused: it contains .*{name}\b(?s:.*)Allowed are .*numpy\.dtype"
    ):
        reader(path)
    assert os.listdir(tmp_path) == ["hostile.pkl"]


NUMBERS = b"<", 0
OBJECTS = b"|", 63  # as numpy writes the dtype of Python objects: byte order, flags


def dtype_program(code: bytes, state: tuple[bytes, int] = NUMBERS) -> bytes:
    order, flags = state
    dtype = b"cnumpy\ndtype\nX" + struct.pack("<I", len(code)) + code + b"\x89\x88\x87R"
    return dtype + b"(K\x03X\x01\0\0\0" + order + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK" + bytes([flags]) + b"tb"


def array_program(shape: bytes, code: bytes, raw: bytes, state: tuple[bytes, int] = NUMBERS) -> bytes:
    """A numpy array with a shape of its own, pickled by hand."""
    array = b"cnumpy._core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\0\x85C\x01btR"
    return b"\x80\x04" + array + b"(K\x01" + shape + dtype_program(code, state) + b"\x89" + raw + b"tb."


def buffer_program(raw: bytes, shape: bytes, code: bytes = b"f8", state: tuple[bytes, int] = NUMBERS) -> bytes:
    """The same as protocol 5 has it."""
    start = b"\x80\x05cnumpy._core.numeric\n_frombuffer\n("
    return start + raw + dtype_program(code, state) + shape + b"X\x01\0\0\0CtR."


HUGE = b"\x8a\x05" + (2**33).to_bytes(5, "little")
BOMBS = {
    "object array": (pickle.dumps(np.array([{}, None], dtype=object), protocol=4), ValueError, "dtype object"),
    "array of arrays": (
        pickle.dumps(np.array([np.zeros(1), None], dtype=object), protocol=4), ValueError, "dtype object",
    ),
    "array of globals": (
        array_program(b"K\x01\x85", b"O8", b"]cnumpy\ndtype\na", OBJECTS), ValueError, "a global that is not called",
    ),
    "objects of another state": (array_program(b"K\x01\x85", b"O8", b"]Na"), None, ""),
    "pointers": (
        array_program(b"K\x01\x85", b"O8", b"C\x08" + b"\x41" * 8, OBJECTS), ValueError, "numpy array of object",
    ),
    "scalar of a pointer": (
        b"cnumpy.core.multiarray\nscalar\n(" + dtype_program(b"O8", OBJECTS) + b"C\x08" + b"\x41" * 8 + b"tR.",
        ValueError, "numpy array of object",
    ),
    "fewer objects": (
        array_program(b"K\x02\x85", b"O8", b"]Na", OBJECTS), ValueError, "not made of 2 bytes or objects",
    ),
    "huge shape of objects": (
        array_program(HUGE + b"\x85", b"O8", b"]Na", OBJECTS), ValueError, "not made of 8589934592 bytes or objects",
    ),
    "filled twice": (
        array_program(b"K\x01\x85", b"O8", b"]Na", OBJECTS)[:-1]
        + b"(K\x01K\x01\x85" + dtype_program(b"i1") + b"\x89C\x01atb.", ValueError, "filled twice",
    ),
    "list for bytes": (array_program(b"K\x01\x85", b"f8", b"]Na"), ValueError, "not made of 8 bytes"),
    "buffer of pointers": (
        buffer_program(b"C\x08" + b"\x41" * 8, b"K\x01\x85", b"O8", OBJECTS), ValueError, "numpy array of object",
    ),
    "buffer of text": (buffer_program(b"X\x08\0\0\0AAAAAAAA", b"K\x01\x85"), ValueError, "numpy array of float64"),
    "buffer of a huge shape": (
        buffer_program(b"C\x08AAAAAAAA", HUGE + b"\x85"), ValueError, "not made of 68719476736 bytes",
    ),
    "buffer of no bytes": (buffer_program(b"C\0", b"K\0" + HUGE * 2 + b"\x87"), ValueError, "damaged"),
    "buffer out of band": (b"\x80\x05\x97.", ValueError, "NEXT_BUFFER"),
    "fields": (pickle.dumps(np.zeros(2, dtype=[("a", "f4")]), protocol=4), ValueError, "dtype 'V4'"),
    "huge shape": (array_program(HUGE + b"\x85", b"f8", b"C\x01a"), ValueError, "not made of 68719476736 bytes"),
    "no bytes": (array_program(b"K\0" + HUGE * 2 + b"\x87", b"f8", b"C\x01a"), ValueError, "not made of 0 bytes"),
    "text without size": (array_program(HUGE + b"\x85", b"U0", b"C\0"), ValueError, "dtype 'U0'"),
    "huge start": (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n" + HUGE + b"\x85C\x01btR.", ValueError, "damaged",
    ),
    "huge memo": (b"\x80\x02Nr\xff\xff\xff\x7f}.", ValueError, "memo index 2147483647"),
    "huge bytes": (b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b".", ValueError, "damaged"),
    "huge bytearray": (b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b".", ValueError, "damaged"),
    "huge frame": (b"\x80\x04\x95" + struct.pack("<Q", 2**60) + b"N.", ValueError, "damaged"),
    "doubled lists that are read": (
        b"]q\0" + b"".join(b"]q%c(" % (i + 1) + b"h%c" % i * 50 + b"e" for i in range(30)) + b".",
        ValueError, "fill the memory",
    ),
    "encoded again and again": (
        b"\x80\x02](c_codecs\nencode\nq\0" + b"X" + struct.pack("<I", 10**6) + b"a" * 10**6
        + b"q\1X\6\0\0\0latin1q\2\x86R"
        + b"h\0h\1h\2\x86R" * 10**5 + b"e.", ValueError, "fill the memory",
    ),
    "two pickles": (b"N.N.", ValueError, "more than one pickle"),
    "nested lists": (b"]" * 10**5 + b"a" * (10**5 - 1) + b".", ValueError, "100 containers"),
    "nested key": (b"}N" + b"\x85" * 10**6 + b"Ns.", ValueError, "a key that is a tuple"),
    "doubled key": (  # a tuple of 2**60 items
        b"}N" + b"q\0h\0\x86" * 60 + b"Ns.", ValueError, "a key that is a tuple",
    ),
    "tuple key": (b"}K\x01\x85Ns.", ValueError, "a key that is a tuple"),
    "holds itself": (b"]q\0h\0a.", ValueError, "holds itself|fill the memory"),
    "holds itself later": (b"]q\0\x85h\0h\0a.", ValueError, "holds itself|fill the memory"),
    "doubled lists": (b"]" + b"q\0]h\0ah\0a" * 60 + b"K\x01\x93.", ValueError, "damaged"),
    "backslash": (b"cos\\q\nsystem\n.", ValueError, r"the global os\\q.system"),
    "marks": (b"(" * 10**6 + b".", ValueError, "damaged|without its arguments"),
    "pops below the mark": (b"N(\x85.", ValueError, "damaged|without its arguments"),
    "extension": (b"\x80\x02\x82\x05.", ValueError, "EXT1"),
    "persistent id": (b"\x80\x02Nq\0Q.", ValueError, "damaged"),
    "text persistent id": (b"Pstorage\n.", ValueError, "PERSID"),
    "calls a dict": (b"\x80\x02})R.", ValueError, "damaged"),
    "fills a number": (b"\x80\x02K\x01}b.", ValueError, "damaged"),
    "appends to a dict": (b"\x80\x02}Na.", ValueError, "damaged"),
}  # fmt: skip


@pytest.mark.parametrize("case", BOMBS)
def test_bombs_are_refused(tmp_path, case):
    program, error, message = BOMBS[case]
    path = write(tmp_path / "bomb.p", program)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if error is None:
        assert read_pickle(path) in (None, {})
    else:
        with pytest.raises(error, match=rf"bomb\.p.*({message})"):
            read_pickle(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 600_000  # kilobytes


STORAGE = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpu%stQ"
TENSOR = b"ctorch._utils\n_rebuild_tensor_v2\n(%s%s%s%s\x89ccollections\nOrderedDict\n)RtR"


def checkpoint_program(tensor: bytes, name: bytes = b"w") -> bytes:
    """{"state_dict": {name: tensor}, "args": Namespace()} by hand."""
    state = b"}X" + struct.pack("<I", len(name)) + name + tensor + b"s"
    return b"\x80\x02}(X\n\0\0\0state_dict" + state + b"X\x04\0\0\0argscargparse\nNamespace\n)\x81u."


def tensor(count=b"K\x04", offset=b"K\0", size=b"K\x02K\x02\x86", stride=b"K\x02K\x01\x86") -> bytes:
    return TENSOR % (STORAGE % count, offset, size, stride)


ARCHIVES = {
    "more than stored": (tensor(count=HUGE), ValueError, "more elements than the file"),
    "other length": (tensor(count=b"K\x05"), ValueError, "a storage of 16 bytes, expected 20"),
    "outside": (tensor(offset=b"K\x01"), ValueError, "outside of its storage"),
    "stride outside": (tensor(stride=b"K\x09K\x01\x86"), ValueError, "outside of its storage"),
    "expanded": (tensor(size=HUGE + b"K\x01\x86", stride=b"K\0K\0\x86"), ValueError, "outside of its storage"),
    "negative": (tensor(offset=b"J\xff\xff\xff\xff"), ValueError, "outside of its storage"),
    "two ways": (tensor() + b"0" + tensor(count=b"K\x02"), ValueError, "POP"),
    "no tensor": (b"K\x07", ValueError, "something else than names and tensors"),
    "other id": (b"(X\x04\0\0\0evalK\x01tQ", ValueError, "damaged"),
    "id of a global": (
        b"(X\x07\0\0\0storagecargparse\nNamespace\nX\x01\0\0\x000NK\x01tQ",
        ValueError, "persistent id that is not a storage",
    ),
    "id of a path": (
        tensor().replace(b"X\x01\0\0\x000", b"X\x05\0\0\0../.."), ValueError, "no item named 'archive/data/../..'",
    ),
}  # fmt: skip


def test_archive_written_by_hand_reads(tmp_path):
    path = write_archive(tmp_path / "a.pkl", checkpoint_program(tensor()), {"data/0": struct.pack("<4f", 1, 2, 3, 4)})
    read = read_checkpoint(path)
    assert read["state_dict"]["w"].tolist() == [[1, 2], [3, 4]]
    assert read["args"] == {}


@pytest.mark.parametrize("case", ARCHIVES)
def test_hostile_archives_are_refused(tmp_path, case):
    program, error, message = ARCHIVES[case]
    path = write_archive(tmp_path / "a.pkl", checkpoint_program(program), {"data/0": bytes(16)})
    with pytest.raises(error, match=rf"a\.pkl.*{message}"):
        read_checkpoint(path)


def test_archives_that_are_not_torch_archives(tmp_path):
    program = checkpoint_program(tensor())
    numbers = {"data/0": bytes(16)}
    packed = write_archive(tmp_path / "packed.pkl", program, numbers, zipfile.ZIP_DEFLATED)
    with pytest.raises(ValueError, match="a compressed record archive/byteorder"):
        read_checkpoint(packed)
    with pytest.raises(ValueError, match="little-endian"):
        read_checkpoint(write_archive(tmp_path / "big.pkl", program, {**numbers, "byteorder": b"big"}))
    with pytest.raises(ValueError, match=r"2 records data\.pkl in place of one"):
        read_checkpoint(write_archive(tmp_path / "two.pkl", program, {"more/data.pkl": program}))
    with pytest.raises(ValueError, match="no item named 'archive/data/0'"):
        read_checkpoint(write_archive(tmp_path / "less.pkl", program))
    with pytest.raises(ValueError, match="`read_checkpoint` reads"):
        read_pickle(packed)
    with pytest.raises(ValueError, match="magic number"):
        read_checkpoint(write(tmp_path / "plain.p", pickle.dumps(1) * 2))
    torch.save({"weight": torch.zeros(1)}, tmp_path / "bare.pkl")
    with pytest.raises(ValueError, match="something else than a checkpoint with state_dict and args"):
        read_checkpoint(tmp_path / "bare.pkl")


def test_legacy_storage_larger_than_the_file(tmp_path):
    torch.save({"state_dict": {"w": torch.ones(4)}, "args": argparse.Namespace()}, tmp_path / "a.pkl",
               _use_new_zipfile_serialization=False)  # fmt: skip
    data = (tmp_path / "a.pkl").read_bytes()
    bomb = write(tmp_path / "bomb.pkl", data.replace(b"K\x04N", HUGE + b"N"))
    assert bomb.read_bytes() != data
    with pytest.raises(ValueError, match="more elements than the file"):
        read_checkpoint(bomb)
    other = write(
        tmp_path / "other.pkl", data.replace(struct.pack("<q", 4) + b"\0\0\x80?", struct.pack("<q", 5) + b"\0\0\x80?")
    )
    with pytest.raises(ValueError, match="5 elements in storage"):
        read_checkpoint(other)


def small_pickle() -> bytes:
    return pickle.dumps({"a[0]": np.arange(40, dtype=np.float32), "words": ["x", "y"] * 20}, protocol=4)


def small_checkpoint(zip_format: bool) -> bytes:
    buffer = io.BytesIO()
    torch.save(example_checkpoint(), buffer, _use_new_zipfile_serialization=zip_format)
    return buffer.getvalue()


FILES = {
    "plain": (read_pickle, small_pickle),
    "zip": (read_checkpoint, lambda: small_checkpoint(True)),
    "legacy": (read_checkpoint, lambda: small_checkpoint(False)),
}


@pytest.mark.parametrize("kind", FILES)
def test_truncated_files_raise(tmp_path, kind):
    reader, make = FILES[kind]
    data = make()
    for tenth in range(10):
        path = write(tmp_path / "cut.pkl", data[: len(data) * tenth // 10])
        with pytest.raises(ValueError, match=r"cut\.pkl (is refused|\(\d+ bytes\) is damaged)"):
            reader(path)


@pytest.mark.parametrize("reader", [read_pickle, read_checkpoint])
def test_missing_files_raise(tmp_path, reader):
    with pytest.raises(FileNotFoundError, match=r"absent\.pkl"):
        reader(tmp_path / "absent.pkl")
    with pytest.raises(IsADirectoryError):
        reader(tmp_path)


def readable(reader, path) -> bool:
    """Return whether the file is read. Errors other than OSError and ValueError are raised."""
    message = None
    try:
        reader(path)
    except ValueError as error:
        message = str(error)
    assert message is None or str(path) in message
    return message is None


def test_random_bytes(tmp_path):
    generator = random.Random(0)
    for _ in range(200):
        data = generator.randbytes(generator.randrange(200))
        for start in (b"", b"\x80\x02", b"\x80\x04", b"PK\x03\x04"):
            path = write(tmp_path / "random.p", start + data)
            for reader in (read_pickle, read_checkpoint):
                readable(reader, path)
        # No instruction starts with this byte.
        assert not readable(read_checkpoint, write(tmp_path / "random.p", b"\xff" + data))


@pytest.mark.parametrize("kind", FILES)
def test_flipped_bytes(tmp_path, kind):
    reader, make = FILES[kind]
    data, generator = make(), random.Random(0)
    outcomes = []
    for _ in range(200):
        changed = bytearray(data)
        for _ in range(generator.randrange(1, 4)):
            changed[generator.randrange(len(data))] = generator.randrange(256)
        outcomes.append(readable(reader, write(tmp_path / "changed.pkl", bytes(changed))))
    assert outcomes.count(False) > 20
