"""Definitions of all metrics in reports, printed by `umons explain-metrics` and listed in docs/metrics.md."""

import re
from collections.abc import Collection

from ..utils.suggest import did_you_mean


# Definition of each metric by name, in sections. `<label>` is an emotion or a label; "lower" marks errors.
SECTIONS: dict[str, dict[str, str]] = {
    "Sentiment": {
        "mae": "mean absolute error of the sentiment in [-3, 3], or mean of `<label>_mae`; lower is better",
        "corr": "Pearson correlation of prediction and label, 0 if either is constant, or mean of `<label>_corr`",
        "acc2_has0": "accuracy of negative against non-negative, all segments",
        "acc2_non0": "accuracy of negative against positive, only segments whose label is not 0",
        "f1_has0": "weighted F1 of negative against non-negative, all segments",
        "f1_non0": "weighted F1 of negative against positive, only segments whose label is not 0",
        "acc7": "accuracy of seven classes by the bins of the CMU SDK: below -2, [-2, -1), [-1, 0), 0, (0, 1], "
        "(1, 2], above 2",
        "acc7_rounded": "accuracy of seven classes by rounding to the nearest integer, as in MulT and MMSA",
    },
    "Emotions": {
        "emotion_acc": "mean accuracy over segments and emotions at a threshold of 0.5",
        "<emotion>_acc": "accuracy of presence",
        "<emotion>_f1": "F1 of presence and absence, weighted by their frequency",
        "<emotion>_f1_macro": "mean of the F1 of presence and absence",
        "<emotion>_wa": "weighted accuracy, (TP N / P + TN) / 2N: balanced accuracy",
        "<emotion>_auroc": "area under the ROC curve: probability that a segment with the emotion has a higher score "
        "than one without it; 0.5 is chance",
        "<emotion>_ap": "average precision; the share of segments with the emotion is chance",
        "emotion_f1": "mean of `<emotion>_f1` over emotions",
        "emotion_f1_macro": "mean of `<emotion>_f1_macro` over emotions",
        "emotion_wa": "mean of `<emotion>_wa` over emotions",
        "emotion_auroc": "mean of `<emotion>_auroc` over emotions; in groups, over those that occur in the group",
        "emotion_ap": "mean of `<emotion>_ap` over emotions",
    },
    "Your own labels": {
        "label_accuracy": "accuracy over all segments and labels",
        "f1_micro": "F1 of presence over all segments and labels together",
        "f1_macro": "mean F1 of presence over labels; of classes, over those that occur or are predicted",
        "auroc_macro": "mean of `<label>_auroc` over labels",
        "ap_macro": "mean of `<label>_ap` over labels",
        "<label>_f1": "F1 of presence, 0 for a label that neither occurs nor is predicted",
        "<label>_auroc": "area under the ROC curve of a label; 0.5 is chance",
        "<label>_ap": "average precision of a label",
        "ccc": "concordance correlation coefficient (Lin, 1989), mean over labels",
        "<label>_ccc": "concordance correlation coefficient of a label, 0 if either side is constant",
        "<label>_corr": "Pearson correlation of a label, 0 if either side is constant",
        "<label>_mae": "mean absolute error of a label; lower is better",
    },
    "Classes": {
        "accuracy": "share of segments with the right class",
        "balanced_accuracy": "mean recall of the classes that occur",
        "f1_weighted": "F1 of each class, weighted by its frequency",
    },
    "Calibration": {
        "ece": "expected calibration error: mean distance between scores and the share of right predictions with such "
        "scores, in ten bins (Guo et al., 2017); lower is better",
        "coverage": "share of annotated sentiments in their 90 % interval",
        "interval_width": "mean width of the 90 % interval of the sentiment",
        "surest rows": "accuracy if only this share of the rows, the most confident ones, is predicted",
    },
    "Robustness and explanations": {
        "shift": "mean absolute change of the predictions from those of the clean recordings; lower is better",
        "deletion": "mean score that is left without the words that have the largest contributions; lower is better",
        "insertion": "mean score of only the words with the largest contribution; higher is better",
        "top_word": "mean change of the score without the word that has the largest contribution, and without the "
        "word whose removal changes it most",
        "agreement": "share of texts in which these two words are the same, or change the score equally",
    },
}
DEFINITIONS = {name: definition for section in SECTIONS.values() for name, definition in section.items()}
OF_A_LABEL = re.compile(r"<(\w+)>_")
HINT = "`umons explain-metrics` prints the definition of every metric."  # in reports


def explain_metric(name: str) -> list[str]:
    """
    Return the definition of a metric, such as `mae` or `anger_f1`; several if it depends on the task. Raises
    ValueError for an unknown name.
    """
    if name in DEFINITIONS:
        return [DEFINITIONS[name]]
    found = []
    for known, definition in DEFINITIONS.items():
        suffix = OF_A_LABEL.sub("_", known)
        if suffix != known and name.endswith(suffix) and len(name) > len(suffix):
            found.append(f"{definition} ({known})")
    if not found:
        raise ValueError(
            f"There is no metric {name!r}.{did_you_mean(name, DEFINITIONS)} `umons explain-metrics` lists all."
        )
    return found


def format_legend(names: Collection[str] = ()) -> str:
    """Return the definitions of some metrics, or of all in sections. Raises ValueError for an unknown name."""
    if names:
        return "\n".join(f"{name}: {definition}" for name in names for definition in explain_metric(name))
    width = max(map(len, DEFINITIONS))
    sections = (
        [title, *(f"  {name:{width}}  {text}" for name, text in section.items())]
        for title, section in SECTIONS.items()
    )
    return "\n\n".join(map("\n".join, sections))
