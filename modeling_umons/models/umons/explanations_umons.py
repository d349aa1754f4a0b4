# Copyright 2026 The modeling_umons authors.
# SPDX-License-Identifier: MIT
"""Explanations of predictions: Shapley values of the modalities, and what words and moments change.

The value of a set of modalities is the prediction from them, 0 for none; absent modalities contribute nothing, so that
the Shapley values are exact. The contribution of a word or moment is the prediction minus the one without it.

Sources: Shapley, A Value for n-Person Games, 1953; Li et al., Understanding Neural Networks through Representation
Erasure, 2016 (leaving out).
"""

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

import torch


MAX_ROWS = 64  # of a batch of variants
MAX_UNITS = 400  # words of an input that are left out one by one; more are left out in stretches
MOMENT_S = 1.0  # seconds of audio or video that are left out at once
STEP_INPUTS = {"attention_mask": ("input_ids", "word_times"), "input_features_mask": ("input_features", "audio_times")}

Variant = dict[str, list[int]]  # steps that are kept, by the name of the mask


def group_words(spans: Sequence[tuple[int, int]], ends: Sequence[int], size: int) -> list[list[int]]:
    """
    Return the tokens of each stretch of `size` words.

    Args:
        spans: (start, end) of each token in the text; special tokens have equal ones, and belong to no word.
        ends: end of each word in the text.
        size: number of words.
    """
    groups: dict[int, list[int]] = {}
    for token, (start, end) in enumerate(spans):
        if end > start:
            groups.setdefault(bisect_left(ends, end) // size, []).append(token)
    return [groups[index] for index in sorted(groups)]


def group_steps(length: int, step_s: float) -> list[list[int]]:
    """Return the steps of each moment of about `MOMENT_S` seconds."""
    size = max(1, round(MOMENT_S / step_s))
    return [list(range(first, min(first + size, length))) for first in range(0, length, size)]


def list_variants(lengths: dict[str, int], units: dict[str, list[list[int]]]) -> list[Variant]:
    """
    Return the inputs to predict: all proper subsets of the modalities, then the input without each unit.

    Args:
        lengths: steps of each modality that is present, by the name of its mask.
        units: steps of each word or moment, by the name of the mask.
    """
    steps = {mask: list(range(length)) for mask, length in lengths.items()}
    variants = [
        {mask: steps[mask] for mask in subset} for size in range(1, len(steps)) for subset in combinations(steps, size)
    ]
    for mask, groups in units.items():
        for group in groups:
            kept = [step for step in steps[mask] if step not in set(group)]
            is_empty = len(kept) <= lengths[mask] - sum(map(len, groups))  # special tokens only
            others = {other: steps[other] for other in steps if other != mask}
            variants.append(others if is_empty else {**others, mask: kept})
    return variants


def predict_variants(
    predict: Callable[[dict[str, torch.Tensor]], torch.Tensor],
    tensors: dict[str, torch.Tensor],
    variants: list[Variant],
) -> torch.Tensor:
    """
    Predict variants of an input in batches; NaN for a variant without input.

    Args:
        predict: function from a batch to its logits (B, num_labels).
        tensors: inputs of the model, (1, T, ...) each, with their masks.
        variants: steps that each variant keeps.

    Returns:
        Logits (num_variants, num_labels).
    """
    rows = [row for row, variant in enumerate(variants) if any(variant.values())]
    found: list[torch.Tensor | None] = [None] * len(variants)
    # Variants of similar lengths share a batch: less of it is padding.
    rows.sort(key=lambda row: -sum(map(len, variants[row].values())))
    for first in range(0, len(rows), MAX_ROWS):
        batch = rows[first : first + MAX_ROWS]
        logits = predict(_select_steps(tensors, [variants[row] for row in batch]))
        for row, values in zip(batch, logits, strict=True):
            found[row] = values
    if not rows:
        return torch.zeros(0, 0)
    missing = torch.full_like(found[rows[0]], torch.nan)
    return torch.stack([missing if values is None else values for values in found])


def _select_steps(tensors: dict[str, torch.Tensor], variants: list[Variant]) -> dict[str, torch.Tensor]:
    """Return a batch with the kept steps of each variant at the beginning of its row, padded at the end."""
    batch = {}
    for mask in (name for name in tensors if name.endswith("_mask")):
        names = STEP_INPUTS.get(mask, (mask.removesuffix("_mask"),))
        length = max(1, *(len(variant.get(mask, ())) for variant in variants))
        kept = [variant.get(mask, []) for variant in variants]
        index = torch.tensor([[*steps, *[0] * (length - len(steps))] for steps in kept], device=tensors[mask].device)
        is_kept = torch.tensor([[1] * len(steps) + [0] * (length - len(steps)) for steps in kept])
        is_kept = is_kept.to(tensors[mask])
        batch[mask] = is_kept
        for name in (name for name in names if name in tensors):
            values = tensors[name][0][index]
            batch[name] = values * is_kept.reshape(*is_kept.shape, *[1] * (values.ndim - 2)).to(values.dtype)
    return batch


def shapley_values(values: dict[frozenset[str], float], modalities: Sequence[str]) -> dict[str, float]:
    """Return the Shapley value of each modality from the value of each subset; that of none is 0."""
    number, values = len(modalities), {frozenset(): 0.0, **values}
    contributions = dict.fromkeys(modalities, 0.0)
    for modality in modalities:
        others = [other for other in modalities if other != modality]
        for size in range(number):
            weight = math.factorial(size) * math.factorial(number - size - 1) / math.factorial(number)
            for subset in map(frozenset, combinations(others, size)):
                contributions[modality] += weight * (values[subset | {modality}] - values[subset])
    return contributions


def explain_scores(
    full: dict[str, float], found: list[dict[str, float] | None], modalities: Sequence[str], num_units: dict[str, int]
) -> dict[str, Any]:
    """
    Return the contributions to each score.

    Args:
        full: scores of the whole input, by name.
        found: scores of each of the variants of `list_variants`; `None` for one without input.
        modalities: the modalities that are present.
        num_units: number of words or moments of each of them that has some.

    Returns:
        `modalities`, their Shapley values, and for each modality a list of contributions, both by name of the score.
    """
    nothing = dict.fromkeys(full, 0.0)
    subsets = [frozenset(s) for size in range(1, len(modalities)) for s in combinations(modalities, size)]
    of_subset = {frozenset(modalities): full}
    of_subset |= {subset: scores or nothing for subset, scores in zip(subsets, found, strict=False)}
    shares = {
        name: shapley_values({subset: scores[name] for subset, scores in of_subset.items()}, modalities)
        for name in full
    }
    explanation: dict[str, Any] = {
        "modalities": {modality: {name: shares[name][modality] for name in full} for modality in modalities}
    }
    rest = iter(found[len(subsets) :])
    for modality, number in num_units.items():
        without = [next(rest) or nothing for _ in range(number)]
        explanation[modality] = [{name: full[name] - scores[name] for name in full} for scores in without]
    return explanation
