# Copyright 2026 The modeling_umons authors.
# SPDX-License-Identifier: MIT
"""Word-level tokenizers of the UMONS models, and their embedding matrices from word vectors.

A tokenizer is a plain `PreTrainedTokenizerFast`: it loads with `AutoTokenizer`, without code of this package.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast


PAD_TOKEN, UNK_TOKEN = "[PAD]", "[UNK]"
# The published list of deleted characters.
DELETED = r"""[.,'!?"()*#:;]"""
SEPARATORS = "[-/]"
# Replaces a space inside a vocabulary entry of a published checkpoint; no pre-tokenizer splits on it.
INNER_SPACE = "▁"
# Words of a published list may contain a no-break space: such tokenizers split on ASCII white space only.
ASCII_SPACE = Regex(r"[ \t\n\v\f\r]+")
ACUTE_ACCENTS = "[\u00b4\u1fbd\u1fbf\u1ffd\u1ffe]"  # as apostrophes; NFKC would put a space into the word
# Typography of new tokenizers: (pattern, replacement), in this order, before the published cleaning. Published
# vocabularies contain these characters inside words ("that’s", "new…"), so converted tokenizers leave them.
TYPOGRAPHY = (
    # HTML entities, also escaped several times ("&amp;amp;#39;").
    (r"(?i)&((amp|#38|#x26);)+", "&"),
    (r"(?i)&(apos|[lr]squo|#0*39|#x27|#821[67]|#x201[89]);", "'"),
    (r"(?i)&(quot|[lr]dquo|#34|#x22|#822[01]|#x201[cd]);", '"'),
    (r"(?i)&(lt|#60|#x3c);", "<"),
    (r"(?i)&(gt|#62|#x3e);", ">"),
    (r"(?i)&(nbsp|#160|#xa0|hellip|#8230|#x2026);", " "),
    (r"(?i)&([mn]dash|#821[12]|#x201[34]);", "-"),
    (r"(?i)&(shy|#173|#xad);", ""),
    # Invisible characters: soft hyphen, zero width, direction marks, variation selectors.
    ("[\u00ad\u034f\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff]", ""),
    (r"\\(?=['\"])", ""),  # quotes that are escaped for a program
    ("[\x93\x94]", '"'),  # quotes and dashes of Windows-1252, decoded as Latin-1
    ("[\x91\x92]", "'"),
    ("[\x96\x97]", "-"),
    ("\x85", " "),
    (r"``|''|[\u00ab\u00bb\u201c-\u201f\u2033\u2036\u301d-\u301f]", '"'),
    ("[`\u02b9-\u02bd\u02c8\u2018-\u201b\u2032\u2035\u2039\u203a\ua78b\ua78c]", "'"),
    ("[\u2010-\u2015\u2043\u207b\u208b\u2212\u2e3a\u2e3b]", "-"),
    ("[\u2044\u2215]", "/"),
    (r"\.{2,}", " "),
)
# Tokens of the Penn Treebank: brackets, and the gap before the second part of a word ("do n't", "it 's", "gon na").
TREEBANK = (
    (r"(?i)-[lr][crs]b-", " "),
    (r"(?i)(?<=\w)\s+(?=(n't|'(s|m|re|ve|ll|d))(?![\w-]))", ""),
    (r"(?i)(?<=\bgon|\bwan)\s+(?=na\b)|(?<=\bgot)\s+(?=ta\b)|(?<=\bgim|\blem)\s+(?=me\b)", ""),
)


def _normalizer(separator: str = " ", is_published: bool = False) -> normalizers.Normalizer:
    """
    Return a normalizer that lower-cases, deletes punctuation, and replaces hyphens and slashes by `separator`.

    Unless it `is_published`, it first replaces typographic characters, HTML entities and tokens of the Penn Treebank
    by what a keyboard writes, in the form NFKC.
    """
    published = [normalizers.Lowercase(), *_replacements([(DELETED, ""), (SEPARATORS, separator)])]
    return normalizers.Sequence(published if is_published else [*_keyboard_forms(), *published])


def _keyboard_forms() -> list[normalizers.Normalizer]:
    forms = [*_replacements([(ACUTE_ACCENTS, "'")]), normalizers.NFKC()]
    return [*forms, *_replacements([*TYPOGRAPHY, *TREEBANK])]


def _replacements(pairs: Iterable[tuple[str, str]]) -> list[normalizers.Normalizer]:
    return [normalizers.Replace(Regex(pattern), content) for pattern, content in pairs]


def _split_words(texts: Iterable[str]) -> Iterable[str]:
    """Yield the words of all texts, normalised and split as by the tokenizer."""
    if isinstance(texts, str):
        raise ValueError("Expected several texts or words, got one string: pass a list of strings.")
    normalizer, pre_tokenizer = _normalizer(), pre_tokenizers.WhitespaceSplit()
    for position, text in enumerate(texts):
        if not isinstance(text, str):
            raise ValueError(
                f"Item {position} is {type(text).__name__} {text!r:.50}: texts and words must be strings."
            )
        for word, _ in pre_tokenizer.pre_tokenize_str(normalizer.normalize_str(text)):
            yield word


def _wrap(backend: Tokenizer, max_length: int) -> PreTrainedTokenizerFast:
    if not isinstance(max_length, int) or max_length < 1:
        raise ValueError(f"max_length is {max_length!r}: it must be a positive integer.")
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        unk_token=UNK_TOKEN,
        pad_token=PAD_TOKEN,
        padding_side="right",
        model_max_length=max_length,
        model_input_names=["input_ids", "attention_mask"],
    )


def train_vocabulary(texts: Iterable[str], min_count: int = 1, max_size: int | None = None) -> list[str]:
    """Collect the words of a training set for [`build_tokenizer`].

    Args:
        texts: transcripts.
        min_count: words with fewer occurrences are dropped.
        max_size: maximum number of words, the most frequent ones; `None` for all. `[PAD]` and `[UNK]` are not counted.

    Returns:
        Normalised words by decreasing frequency, then by code point.

    Raises:
        ValueError: `texts` is a single string or has an item that is not a string, or a number is below 1.
    """
    if min_count < 1 or (max_size is not None and max_size < 1):
        raise ValueError(f"min_count ({min_count}) and max_size ({max_size}) must be at least 1.")
    counts = Counter(_split_words(texts))
    words = sorted((word for word in counts if counts[word] >= min_count), key=lambda word: (-counts[word], word))
    return words[:max_size]


def build_tokenizer(words: Iterable[str] | Mapping[str, int], max_length: int = 60) -> PreTrainedTokenizerFast:
    """Build the tokenizer of a new model: id 0 is `[PAD]`, 1 is `[UNK]`, and words start at 2.

    Typographic quotes, dashes and ellipses, full-width forms (NFKC), common HTML entities and tokens of the Penn
    Treebank ("do n't") become what a keyboard writes; invisible characters are removed. The text is lower-cased,
    `. , ' ! ? " ( ) * # : ;` are deleted, `-`, `/` and two or more dots become spaces, and white space separates
    words. A text without words has no ids.

    Args:
        words: the vocabulary in the order of its ids. Words are normalised like texts ("well-known" enters as two
            words); duplicates and empty words are dropped. Or a mapping of words to ids, as `get_vocab()` of such a
            tokenizer returns.
        max_length: number of words to which `truncation=True` truncates.

    Raises:
        ValueError: `words` is a single string or has an item that is not a string, or the ids of a mapping differ from
            this layout.
    """
    ordered = words
    if isinstance(words, Mapping):
        ordered = sorted(words.keys() - {PAD_TOKEN, UNK_TOKEN}, key=lambda word: words[word])
    vocabulary = {PAD_TOKEN: 0, UNK_TOKEN: 1}
    for word in _split_words(ordered):
        vocabulary.setdefault(word, len(vocabulary))
    if isinstance(words, Mapping):
        for word, index in words.items():
            if vocabulary.get(word) != index:
                raise ValueError(
                    f"The mapping gives {word!r} the id {index}, the vocabulary {vocabulary.get(word)}: words must be "
                    "normalised and have the ids 2, 3, ... Pass a list to have ids assigned, or use "
                    "build_original_tokenizer for a token_to_ix of the published implementation."
                )
    backend = Tokenizer(WordLevel(vocabulary, unk_token=UNK_TOKEN))
    backend.normalizer = _normalizer()
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return _wrap(backend, max_length)


def normalize_typography(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """Return the tokenizer of a pretrained encoder that first normalises typography, as [`build_tokenizer`] does.

    The same words have the same ids, however they are typed. The tokenizer is a plain `PreTrainedTokenizerFast`,
    because classes such as `BertTokenizer` build their own normalizer when they are loaded.

    Args:
        tokenizer: a fast tokenizer.
    """
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    own = [] if backend.normalizer is None else [backend.normalizer]
    backend.normalizer = normalizers.Sequence([*_keyboard_forms(), *own])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        model_max_length=tokenizer.model_max_length,
        padding_side=tokenizer.padding_side,
        truncation_side=tokenizer.truncation_side,
        **tokenizer.special_tokens_map,
    )


def build_original_tokenizer(token_to_ix: Mapping[str, int], max_length: int = 60) -> PreTrainedTokenizerFast:
    """Build the tokenizer of a converted checkpoint, with the ids of the published implementation.

    There a hyphen or slash becomes a space inside one word ("well-known" is the entry "well known"), and `UNK` shares
    id 1 with the first training word. That word is dropped here (unknown words have id 1 anyway); 0 is `[PAD]`, whose
    embedding was used for padding. Word lists (`is_split_into_words=True`) and their words joined by spaces have the
    same ids. Words that are empty without punctuation are dropped; a lone "-" remains a word.

    Args:
        token_to_ix: the published vocabulary, with `UNK` at 1 and ids up to its size.
        max_length: number of words to which `truncation=True` truncates.

    Raises:
        ValueError: `token_to_ix` is not such a vocabulary.
    """
    if token_to_ix.get("UNK") != 1:
        raise ValueError(f"token_to_ix gives 'UNK' the id {token_to_ix.get('UNK')!r}; the published code gives it 1.")
    normalizer = _normalizer(INNER_SPACE, is_published=True)
    vocabulary = {PAD_TOKEN: 0, UNK_TOKEN: 1}
    for word, index in token_to_ix.items():
        if word == "UNK" or index == 1:
            continue
        entry = word.replace(" ", INNER_SPACE)
        if normalizer.normalize_str(entry) != entry:
            raise ValueError(f"token_to_ix has {word!r}, which the published cleaning of words cannot produce.")
        if entry in vocabulary:
            raise ValueError(f"token_to_ix has {word!r} and another word that both become {entry!r} here.")
        vocabulary[entry] = index
    if sorted(vocabulary.values()) != list(range(len(vocabulary))):
        raise ValueError(
            f"token_to_ix has {len(token_to_ix)} words with ids from {min(token_to_ix.values())} to "
            f"{max(token_to_ix.values())}; expected 1 for 'UNK' and one more word, then every id once without a gap."
        )
    backend = Tokenizer(WordLevel(vocabulary, unk_token=UNK_TOKEN))
    backend.normalizer = normalizer
    backend.pre_tokenizer = pre_tokenizers.Split(ASCII_SPACE, behavior="removed")
    # Words joined by spaces ("#" never occurs in one), then the inner spaces restored.
    backend.decoder = decoders.Sequence(
        [decoders.WordPiece(prefix="##", cleanup=False), decoders.Replace(INNER_SPACE, " ")]
    )
    return _wrap(backend, max_length)


def encode_history(
    tokenizer: PreTrainedTokenizerFast,
    history: Sequence[Mapping[str, str | None]],
    speaker: str | None,
    max_utterances: int,
    max_length: int,
) -> list[int]:
    """Return the ids of the previous utterances of a text, which a model with `context_size` takes as `history_ids`.

    An utterance is "speaker: text", or its text if the speaker is unknown; the separator of the tokenizer, if it has
    one, follows. Last is "speaker:", of the text itself. Source of the form: Kim and Vossen, EmoBERTa, 2021.

    Args:
        tokenizer: tokenizer of the model.
        history: utterances with `text` and, optionally, `speaker`, the oldest first.
        speaker: speaker of the text; `None` if unknown.
        max_utterances: number of utterances that are used, the latest ones (`config.context_size`).
        max_length: number of ids that are returned, the latest ones (`config.max_context_length`).
    """
    texts = [
        ": ".join(part for part in (utterance.get("speaker"), utterance["text"]) if part)
        for utterance in history[max(0, len(history) - max_utterances) :]
    ]
    texts += [f"{speaker}:"] if speaker else []
    if not texts:
        return []
    ids = tokenizer(texts, add_special_tokens=False, truncation=True, max_length=max_length)["input_ids"]
    separator = [] if tokenizer.sep_token_id is None else [tokenizer.sep_token_id]
    joined = [index for of_text in ids[:-1] for index in (*of_text, *separator)]
    joined += ids[-1] if speaker else [*ids[-1], *separator]
    return joined[max(0, len(joined) - max_length) :]


def find_word_times(
    tokenizer: PreTrainedTokenizerFast,
    input_ids: torch.LongTensor,
    words: Sequence[Sequence[tuple[str, float | None, float | None]] | None],
) -> torch.Tensor:
    """Return the times of ids, each those of its word.

    Args:
        tokenizer: tokenizer of the ids.
        input_ids: (B, T).
        words: word, start and end in seconds, of each row; `None` where unknown.

    Returns:
        (B, T, 2) float32, start and end in seconds; NaN if unknown: in padding, in rows without times, and in rows
        whose words have other ids.
    """
    times = torch.full((*input_ids.shape, 2), torch.nan)
    rows = {i: row for i, row in enumerate(words) if row and any(None not in word for word in row)}
    if not rows:
        return times
    spoken = [[word[0] for word in row] for row in rows.values()]
    encoded = tokenizer(spoken, is_split_into_words=True, truncation=True)
    for number, (i, row) in enumerate(rows.items()):
        ids = encoded["input_ids"][number][: input_ids.shape[1]]
        if input_ids[i, : len(ids)].tolist() != ids:
            continue  # other words than the text
        for place, index in enumerate(encoded.word_ids(number)[: len(ids)]):
            if index is not None and None not in row[index]:
                times[i, place] = torch.tensor(row[index][1:])
    return times


def build_embedding_matrix(
    tokenizer: PreTrainedTokenizerFast, vectors: Mapping[str, np.ndarray], size: int = 300, seed: int = 0
) -> tuple[np.ndarray, float]:
    """Initialise the embedding matrix of a tokenizer's vocabulary from word vectors.

    A word without a vector, and the unknown token, get the vector of "unk", or without it the mean of all `vectors`.
    Padding is zero. If `vectors` is empty, all words are drawn from a standard normal distribution, as in
    `torch.nn.Embedding`.

    Args:
        tokenizer: from [`build_tokenizer`] or [`build_original_tokenizer`].
        vectors: {word: (size,)}, from `modeling_umons.data.word_vectors.load_word_vectors`.
        size: dimension of the vectors.
        seed: random seed.

    Returns:
        The matrix, float32 (vocabulary size, size), and the coverage: the fraction of words, without special tokens,
        that have a vector.

    Raises:
        ValueError: a vector has another dimension than `size`.
    """
    vectors = {word: np.asarray(vector, dtype=np.float32) for word, vector in vectors.items()}
    for word, vector in vectors.items():
        if vector.shape != (size,):
            raise ValueError(f"The vector of {word!r} has the shape {vector.shape}, expected ({size},).")
    vocabulary = tokenizer.get_vocab()
    matrix = np.random.default_rng(seed).standard_normal((len(tokenizer), size), dtype=np.float32)
    if vectors:
        matrix[:] = vectors["unk"] if "unk" in vectors else np.mean(list(vectors.values()), axis=0)
    matrix[tokenizer.pad_token_id] = 0
    words = vocabulary.keys() - set(tokenizer.all_special_tokens)
    found = 0
    for word in words:
        known = vectors.get(word, vectors.get(word.replace(INNER_SPACE, " ")))
        if known is not None:
            matrix[vocabulary[word]] = known
            found += 1
    return matrix, found / len(words) if words else 0.0
