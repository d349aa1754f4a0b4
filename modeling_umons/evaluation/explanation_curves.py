"""Tests of explanations: effects of the words with the largest contributions, one by one and together.

Source of the curves: Petsiuk et al., RISE, BMVC 2018 (deletion and insertion).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


SHARES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
NUM_TEXTS = 40
NUM_WORDS = (4, 25)  # the best words at each step cost the square of the number of words
BATCH_SIZE = 64
SAME = 1e-3  # two words whose effects differ by less are equally good


@dataclass
class _Text:
    """
    Explained text.

    Attributes:
        words: words that the model reads.
        score: name of the score that is explained.
        sign: sign of a sentiment, 1 of other scores: the words support `sign * score`.
        contributions: (num_words,) of the explanation, with this sign.
        values: signed score of each subset of the words that was predicted, by its indices.
    """

    words: list[str]
    score: str
    sign: float
    contributions: np.ndarray
    values: dict[tuple[int, ...], float]


def measure_explanations(
    recognize, texts: Sequence[str | None], num_texts: int = NUM_TEXTS, seed: int = 0
) -> dict[str, Any] | None:
    """
    Measure the explanations of a model on texts, by predicting the texts without words afresh.

    Args:
        recognize: pipeline of a model with text.
        texts: texts of unseen rows; those of `NUM_WORDS` words are used.
        num_texts: number of texts, evenly spaced.
        seed: seed of the random orders of words.

    Returns:
        `texts`, their number; `score`, "sentiment" or "label"; `top_word`, the mean absolute change of the score
        without the word of the largest contribution (`explanation`), without the word that changes it most (`best`),
        and without a random one; `agreement`, the share of texts in which the first two are the same; `shares` of
        words, and for each the mean score that is left without these words (`deletion`) and of these words only
        (`insertion`), in the order of the contributions, at random, and of the best next word. `None` without texts.
    """
    low, high = NUM_WORDS
    known = [text for text in texts if text is not None and low <= len(text.split()) <= high]
    known = known[:: max(1, len(known) // num_texts)][:num_texts]
    explained = [found for text in known if (found := _explain(recognize, text)) is not None]
    if not explained:
        return None
    everything = {id(text): tuple(range(len(text.words))) for text in explained}
    without = {key: [(*every[:i], *every[i + 1 :]) for i in every] for key, every in everything.items()}
    _predict(recognize, explained, [[everything[id(text)], *without[id(text)]] for text in explained])
    changes = [
        np.array([abs(text.values[everything[id(text)]] - text.values[kept]) for kept in without[id(text)]])
        for text in explained
    ]
    chosen = [change[np.abs(text.contributions).argmax()] for text, change in zip(explained, changes, strict=True)]
    best = [change.max() for change in changes]
    rng = np.random.default_rng(seed)
    orders = {
        "explanation": [np.argsort(-text.contributions, kind="stable").tolist() for text in explained],
        "random": [rng.permutation(len(text.words)).tolist() for text in explained],
    }
    curves: dict[str, dict[str, list[float]]] = {"deletion": {}, "insertion": {}}
    for kind, found in curves.items():
        best_orders = _find_best_orders(recognize, explained, kind)
        for name, of_texts in {**orders, "best": best_orders}.items():
            found[name] = _measure_curve(recognize, explained, of_texts, kind)
    return {
        "texts": len(explained),
        "score": "sentiment" if explained[0].score == "sentiment" else "label",
        "top_word": {
            "explanation": float(np.mean(chosen)),
            "best": float(np.mean(best)),
            "random": float(np.mean([change.mean() for change in changes])),
        },
        "agreement": float(np.mean([top >= most - SAME for top, most in zip(chosen, best, strict=True)])),
        "shares": list(SHARES),
        **curves,
    }


def _explain(recognize, text: str) -> _Text | None:
    """Return the explanation of a text; `None` if the model knows fewer than two of its words."""
    result = recognize({"text": text}, return_explanations=True, on_error="return")
    units = result.get("explanations", {}).get("text", [])
    if len(units) < 2:
        return None
    scores = _read_scores(result)
    score = "sentiment" if "sentiment" in scores else max(scores, key=lambda name: scores[name])
    sign = float(np.sign(scores[score])) or 1.0
    return _Text([unit["word"] for unit in units], score, sign, sign * np.array([u[score] for u in units]), {(): 0.0})


def _read_scores(result: dict[str, Any]) -> dict[str, float]:
    """Return the scores of a result by name, the sentiment of classes left out."""
    entries = result.get("emotions") or result.get("labels") or result.get("values") or []
    scores = {entry["label"]: entry["score"] for entry in entries}
    return scores if "sentiment" not in result or "labels" in result else {"sentiment": result["sentiment"], **scores}


def _predict(recognize, texts: list[_Text], subsets: list[list[tuple[int, ...]]]):
    """Add the values of subsets of the words of each text; those of unknown words only are 0."""
    wanted = [
        (text, kept) for text, some in zip(texts, subsets, strict=True) for kept in some if kept not in text.values
    ]
    inputs = [{"text": " ".join(text.words[i] for i in kept)} for text, kept in wanted]
    results = recognize(inputs, batch_size=BATCH_SIZE, on_error="return")
    for (text, kept), result in zip(wanted, results, strict=True):
        text.values[kept] = text.sign * _read_scores(result).get(text.score, 0.0)


def _find_best_orders(recognize, texts: list[_Text], kind: str) -> list[list[int]]:
    """Return the words in the order in which each next one lowers (deletion) or raises (insertion) the score most."""
    orders: list[list[int]] = [[] for _ in texts]
    for _ in range(max(len(text.words) for text in texts)):
        options = []
        for text, order in zip(texts, orders, strict=True):
            rest = [word for word in range(len(text.words)) if word not in order]
            options.append({word: _select(text, [*order, word], kind) for word in rest})
        _predict(recognize, texts, [list(some.values()) for some in options])
        for text, order, some in zip(texts, orders, options, strict=True):
            if some:
                values = {word: text.values[kept] for word, kept in some.items()}
                order.append((min if kind == "deletion" else max)(values, key=values.__getitem__))
    return orders


def _select(text: _Text, chosen: list[int], kind: str) -> tuple[int, ...]:
    """Return the words that are left without the chosen ones (deletion), or the chosen ones (insertion)."""
    is_chosen = set(chosen)
    return tuple(word for word in range(len(text.words)) if (word in is_chosen) == (kind == "insertion"))


def _measure_curve(recognize, texts: list[_Text], orders: list[list[int]], kind: str) -> list[float]:
    """Return the mean score for each of `SHARES` of the words, deleted or inserted in the order given."""
    subsets = [
        [_select(text, order[: round(share * len(order))], kind) for share in SHARES]
        for text, order in zip(texts, orders, strict=True)
    ]
    _predict(recognize, texts, subsets)
    values = [[text.values[kept] for kept in some] for text, some in zip(texts, subsets, strict=True)]
    return np.mean(values, axis=0).tolist()
