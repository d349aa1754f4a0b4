"""The word-level tokenizer, its twin for published vocabularies, and embeddings from word vectors."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer, BertTokenizer

from modeling_umons.data.safe_pickle import read_pickle
from modeling_umons.models.umons.tokenization_umons import (
    build_embedding_matrix,
    build_original_tokenizer,
    build_tokenizer,
    normalize_typography,
    train_vocabulary,
)


ROOT = Path(__file__).resolve().parents[3]
# Loads a tokenizer where this package cannot be imported, and prints the ids of the texts as JSON.
FRESH = """
import json, sys
sys.modules["modeling_umons"] = None
from transformers import AutoTokenizer, BertTokenizer
folder, texts = sys.argv[1], json.loads(sys.argv[2])
tokenizer = AutoTokenizer.from_pretrained(folder)
print(json.dumps([tokenizer(texts, truncation=True)["input_ids"], tokenizer.padding_side, tokenizer.model_max_length,
                  tokenizer.model_input_names]))
"""
ORIGINAL = {"UNK": 1, "thats": 1, "a": 2, "well known": 3, "fact": 4}


@pytest.fixture
def tokenizer():
    return build_tokenizer(["Hello", "well-known", "hello", "!", "", "it's", "préstamo"])


def published_clean(word: str) -> str:
    return re.sub(r"""[.,'!?"()*#:;]""", "", word.lower()).replace("-", " ").replace("/", " ")


def test_layout_of_new_vocabularies(tokenizer):
    assert tokenizer.get_vocab() == {
        "[PAD]": 0, "[UNK]": 1, "hello": 2, "well": 3, "known": 4, "its": 5, "préstamo": 6,
    }  # fmt: skip
    assert (len(tokenizer), tokenizer.pad_token_id, tokenizer.unk_token_id) == (7, 0, 1)
    assert (tokenizer.padding_side, tokenizer.model_max_length) == ("right", 60)
    assert tokenizer.model_input_names == ["input_ids", "attention_mask"]
    assert build_tokenizer(tokenizer.get_vocab()).get_vocab() == tokenizer.get_vocab()


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ('HELLO, (its) well/known: "it\'s"!', [2, 5, 3, 4, 5]),
        ("h.e,l'l!o? *#;", [2]),
        ("Préstamo\thello\n", [6, 2]),
        ("hello \U0001f600 日本 it\u2019s", [2, 1, 1, 5]),
        ("-", []),
        ("", []),
    ],
)
def test_normalisation(tokenizer, text, ids):
    assert tokenizer(text)["input_ids"] == ids
    assert tokenizer(text.split(), is_split_into_words=True)["input_ids"] == ids


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("it isn\u2019t good", "it isn't good"),
        ("it isn\u00b4t \u2018good\u02bc", "it isn't 'good'"),
        ("\u201cgood\u201d \u00abday\u00bb", '"good" "day"'),
        ("good\u2026 day", "good... day"),
        ("good\u2026day", "good day"),
        ("good\u2014day \u2013 it\u2011isn't", "good-day - it-isn't"),
        ("\uff47\uff4f\uff4f\uff44\uff01", "good!"),
        ("go\u200bo\u00add \ufeffday", "good day"),
        ("isn&#39;t isn&amp;#39;t isn&rsquo;t &quot;good&quot;&nbsp;day", "isn't isn't isn't good day"),
        ("good &amp; day &lt;3", "good & day <3"),
        ("good &amp;amp;amp; isn&amp;amp;#39;t", "good & isn't"),
        ("isn\x92t \x93good\x94 day\x85 good\x96good", "isn't good day good-good"),
        (r"isn\'t \"good\"", "isn't good"),
        ("pre\u0301stamo", "préstamo"),
        ("it is n't good , it 's -LRB- `` good '' -RRB-", "it isn't good, it's good"),
        ("gon na ca n't", "gonna can't"),
        ("it 's-good 'day'", "it s-good day"),
    ],
)
def test_typography_gives_ids_of_plain_text(text, plain):
    tokenizer = build_tokenizer(["it", "isn't", "good", "day", "it's", "préstamo", "gonna", "can't", "&", "<3", "s"])
    assert tokenizer(text)["input_ids"] == tokenizer(plain)["input_ids"] != []
    assert tokenizer.unk_token_id not in tokenizer(text)["input_ids"]


def test_umons_mini_has_normalizer_of_new_tokenizers():
    saved = json.loads((ROOT / "hub" / "umons-mini" / "tokenizer.json").read_text(encoding="utf-8"))
    assert saved["normalizer"] == json.loads(build_tokenizer([]).backend_tokenizer.to_str())["normalizer"]


def test_umons_base_has_normalizer_of_new_encoder_models():
    saved = AutoTokenizer.from_pretrained(ROOT / "hub" / "umons-base")
    backend = normalize_typography(bert_tokenizer()).backend_tokenizer
    assert saved.backend_tokenizer.normalizer.__getstate__() == backend.normalizer.__getstate__()


def bert_tokenizer() -> BertTokenizer:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "it", "isn", "'", "t", "so", "bad", "don", ".", "!"]
    return BertTokenizer(vocab={word: index for index, word in enumerate(words)}, model_max_length=12)


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("It isn\u2019t", "it isn't"),
        ("\uff33\uff4f \uff42\uff41\uff44\uff01", "so bad!"),
        ("It do n't", "it don't"),
        ("isn&amp;#39;t so b\u00adad", "isn't so bad"),
    ],
)
def test_typography_of_encoder_tokenizers(text, plain, tmp_path):
    normalize_typography(bert_tokenizer()).save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer(text)["input_ids"] == bert_tokenizer()(plain)["input_ids"]
    assert tokenizer.unk_token_id not in tokenizer(text)["input_ids"]


def test_encoder_tokenizers_keep_their_settings():
    original = bert_tokenizer()
    original.padding_side = original.truncation_side = "left"
    tokenizer = normalize_typography(original)
    texts = ["it isn't so bad . " * 4, "so [MASK]"]
    assert (tokenizer.special_tokens_map, tokenizer.model_max_length) == (original.special_tokens_map, 12)
    expected = original(texts, padding=True, truncation=True)["input_ids"]
    assert tokenizer(texts, padding=True, truncation=True)["input_ids"] == expected


def test_vocabulary_of_typographic_texts():
    assert train_vocabulary(["It isn\u2019t\u2014really", "it is n't"]) == ["isnt", "it", "really"]


def test_original_tokenizer_keeps_typography():
    tokenizer = build_original_tokenizer({"UNK": 1, "a": 1, "it\u2019s": 2, "its": 3, "new\u2026": 4})
    assert tokenizer("it\u2019s it's new\u2026")["input_ids"] == [2, 3, 4]


def test_batches_are_padded_and_cut(tokenizer):
    batch = tokenizer(["hello " * 500, "its", ""], padding=True, truncation=True, return_tensors="np")
    assert batch["input_ids"].shape == (3, 60)
    assert batch["input_ids"][1].tolist() == [5] + [0] * 59
    assert batch["attention_mask"].sum(axis=1).tolist() == [60, 1, 0]


def test_tokenizer_decodes_extends_and_reloads(tokenizer, tmp_path):
    assert tokenizer.decode([2, 3, 4, 1, 0]) == "hello well known [UNK] [PAD]"
    assert tokenizer.decode([2, 0], skip_special_tokens=True) == "hello"
    assert tokenizer.convert_ids_to_tokens([2, 1]) == ["hello", "[UNK]"]
    assert tokenizer.add_tokens(["stutter"]) == 1
    assert (len(tokenizer), tokenizer("hello Stutter")["input_ids"]) == (8, [2, 7])
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded.get_vocab() == tokenizer.get_vocab()


@pytest.mark.parametrize("kind", ["new", "original"])
def test_loads_without_this_package(kind, tokenizer, tmp_path):
    tokenizer = tokenizer if kind == "new" else build_original_tokenizer(ORIGINAL)
    tokenizer.save_pretrained(tmp_path / "saved")
    texts = ["It's a WELL-known fact", "", "hello " * 100, "日本"]
    command = [sys.executable, "-I", "-c", FRESH, str(tmp_path / "saved"), json.dumps(texts)]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    ids = tokenizer(texts, truncation=True)["input_ids"]
    assert json.loads(result.stdout) == [ids, "right", 60, ["input_ids", "attention_mask"]]
    assert len(ids[2]) == 60


def test_train_vocabulary():
    texts = ["The cat, the dog", "THE well-known cat; zebra", ""]
    assert train_vocabulary(texts) == ["the", "cat", "dog", "known", "well", "zebra"]
    assert train_vocabulary(texts, min_count=2) == ["the", "cat"]
    assert train_vocabulary(texts, max_size=3) == ["the", "cat", "dog"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: build_tokenizer("hello"), "got one string"),
        (lambda: train_vocabulary(["a", None]), "Item 1 is NoneType"),
        (lambda: train_vocabulary(["a"], min_count=0), "at least 1"),
        (lambda: build_tokenizer(["a"], max_length=0), "max_length is 0"),
        (lambda: build_tokenizer({"a": 5}), "the id 5"),
        (lambda: build_tokenizer({"Hello": 2}), "'Hello'"),
        (lambda: build_original_tokenizer({"a": 1, "b": 2}), "'UNK' the id None"),
        (lambda: build_original_tokenizer({**ORIGINAL, "b": 4}), "without a gap"),
        (lambda: build_original_tokenizer({**ORIGINAL, "b": 6}), "without a gap"),
        (lambda: build_original_tokenizer({**ORIGINAL, "Hello": 5}), "'Hello'"),
    ],
)
def test_wrong_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_original_tokenizer():
    tokenizer = build_original_tokenizer(ORIGINAL)
    words = ["That's", "a", "Well-known", "well/known", "...", "fact!", "-", "new", "a\xa0fact"]
    expected = [1, 2, 3, 3, 4, 1, 1, 1]
    assert tokenizer(words, is_split_into_words=True)["input_ids"] == expected
    assert tokenizer(" ".join(words))["input_ids"] == expected
    assert tokenizer.decode([2, 3, 4]) == "a well known fact"
    assert len(tokenizer) == 5


@pytest.mark.shared
def test_original_tokenizer_gives_the_published_ids(shared):
    folder = shared / "golden" / "original" / "MOSEI"
    token_to_ix = read_pickle(folder / "token_to_ix.pkl")
    tokenizer = build_original_tokenizer(token_to_ix)
    sentences = {split: read_pickle(folder / f"{split}_sentences.p") for split in ("train", "valid", "test")}
    # The rule for cleaning words reproduces the published vocabulary, in order.
    cleaned = dict.fromkeys(published_clean(word) for words in sentences["train"].values() for word in words)
    assert ["UNK", *cleaned] == list(token_to_ix)
    unknown = 0
    for words in [words for split in sentences.values() for words in split.values()]:
        expected = [token_to_ix.get(published_clean(word), 1) for word in words if published_clean(word)]
        unknown += expected.count(1)
        assert tokenizer(words, is_split_into_words=True)["input_ids"] == expected
        assert tokenizer(" ".join(words))["input_ids"] == expected
    assert len(tokenizer) == len(token_to_ix) == 454
    assert unknown > 100


def test_embedding_matrix(tokenizer):
    vectors = {"hello": [1.0, 2.0], "its": [3.0, 4.0], "cat": [8.0, 9.0]}
    matrix, coverage = build_embedding_matrix(tokenizer, vectors, size=2)
    assert (matrix.shape, matrix.dtype, coverage) == ((7, 2), np.float32, 2 / 5)
    assert matrix[[0, 2, 5]].tolist() == [[0, 0], [1, 2], [3, 4]]
    assert matrix[[1, 3, 4, 6]].tolist() == [[4, 5]] * 4  # the mean
    with_unk, _ = build_embedding_matrix(tokenizer, {**vectors, "unk": [-1, -2]}, size=2)
    assert with_unk[[1, 3]].tolist() == [[-1, -2]] * 2


def test_embedding_matrix_of_an_original_vocabulary():
    matrix, coverage = build_embedding_matrix(build_original_tokenizer(ORIGINAL), {"well known": [1, 2]}, size=2)
    assert matrix[3].tolist() == [1, 2]
    assert coverage == 1 / 3


def test_embedding_matrix_of_another_size(tokenizer):
    with pytest.raises(ValueError, match=r"'cat' has the shape \(3,\), expected \(2,\)"):
        build_embedding_matrix(tokenizer, {"hello": [1, 2], "cat": [1, 2, 3]}, size=2)


def test_embedding_matrix_without_vectors(tokenizer):
    (matrix, coverage), (again, _), (other, _) = (
        build_embedding_matrix(tokenizer, {}, size=50, seed=seed) for seed in (3, 3, 4)
    )
    assert coverage == 0
    assert not matrix[0].any()
    assert 0.8 < matrix[1:].std() < 1.2
    assert (matrix == again).all()
    assert (matrix[1:] != other[1:]).any()
