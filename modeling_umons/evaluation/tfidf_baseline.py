"""TF-IDF baseline trained on the same rows. A model that scores below it has learnt nothing from the text."""

import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from ..tasks.task import BEST_METRICS, Task
from .metrics import classification_metrics, emotion_metrics


# Candidates for the validation split; the first ones are used without it.
NGRAMS = ((1, 2), (1, 1), (1, 3))
RIDGE_ALPHAS = (1.0, 0.3, 3.0, 10.0)
# Inverse regularisation and class weights.
LOGISTIC_SETTINGS = tuple((c, weight) for weight in (None, "balanced") for c in (1.0, 0.3, 3.0, 10.0, 30.0))

# From this number of rows on, words in a single row are ignored.
ENOUGH_ROWS = 200

# Lower bound of logits, also for classes without training rows.
LOWEST = -15.0

# Maps a matrix (N, words) to logits (N, labels).
Predict = Callable[[object], np.ndarray]
# Compares models on the validation rows: the lower, the better.
Loss = Callable[[Predict], tuple[float, float]]


class Fitted(NamedTuple):
    """Linear model with its settings and its loss on the validation rows."""

    settings: dict[str, object]
    predict: Predict
    loss: tuple[float, float] | None = None


class TfidfBaseline:
    """
    TF-IDF of words and their n-grams (sublinear, L2) with ridge regression for numbers, logistic regression for each
    emotion or other label on the rows where it is known, and multinomial logistic regression for classes.

    N-grams, regularisation and class weights are chosen on the validation split by the metric that also chooses the
    epoch of a model, for emotions by that of each; equals, and metrics of other kinds, by log loss. Regressions are
    chosen by mean absolute error.

    Args:
        task: the task.
        texts: texts of the training rows; may contain `None`.
        truth: labels of the training rows as returned by [`Task.label_array`].
        validation_texts: texts of the validation rows; without them the first candidates are used.
        validation_truth: labels of the validation rows.
        metric: metric of `task_metrics` to choose by, or "loss"; by default that of the task.

    Raises:
        ValueError: no row has a text, or all labels are equal. The message is a note for a report.
    """

    def __init__(
        self,
        task: Task,
        texts: Sequence[str | None],
        truth: np.ndarray,
        validation_texts: Sequence[str | None] = (),
        validation_truth: np.ndarray | None = None,
        metric: str | None = None,
    ):
        has_text = _has_text(texts)
        if not has_text.any():
            raise ValueError("There is no TF-IDF baseline because the training rows have no text.")
        self.task, self.metric = task, metric or BEST_METRICS[task.name]
        self.chosen: dict[str, dict[str, object]] = {}  # settings by label, or by task
        usable = _has_text(validation_texts)
        self.is_chosen_on_validation = bool(usable.any())
        truth, train = np.asarray(truth), [texts[row] for row in np.flatnonzero(has_text)]
        held_out = [validation_texts[row] for row in np.flatnonzero(usable)]
        held_out_truth = np.asarray(validation_truth)[usable] if held_out else None
        # Base rates are of all training rows, with and without text.
        self.typical = self._typical(truth)
        lowest: tuple[float, float] | None = None
        for ngrams in NGRAMS if held_out else NGRAMS[:1]:
            vectorizer, words = _vectorize(train, ngrams)
            check = vectorizer.transform(held_out) if held_out else None
            # N-grams are compared with the first candidates of the other settings.
            first = self._fit(truth[has_text], words, check, held_out_truth, num_candidates=1)
            losses = [model.loss for model in first if model is not None and model.loss is not None]
            loss = tuple(np.mean(losses, axis=0)) if losses else (0.0, 0.0)
            if lowest is None or loss < lowest:
                self.vectorizer, self.ngrams, lowest, inputs = vectorizer, ngrams, loss, (words, check)
        self.models = self._fit(truth[has_text], *inputs, held_out_truth)
        names = (task.name,) if task.problem_type == "single_label_classification" else task.labels
        self.chosen = {
            name: model.settings for name, model in zip(names, self.models, strict=True) if model is not None
        }

    def logits(self, texts: Sequence[str | None]) -> np.ndarray:
        """
        Predict (N, num_labels) float64. Rows without text have the training median and the logits of the base rates.
        """
        logits = np.tile(self.typical, (len(texts), 1))
        rows = np.flatnonzero(_has_text(texts))
        if len(rows):
            words = self.vectorizer.transform([texts[row] for row in rows])
            if self.task.problem_type == "single_label_classification":
                logits[rows] = self.models[0].predict(words)
                return logits
            for i, model in enumerate(self.models):
                if model is not None:
                    logits[rows, i] = model.predict(words)
        return logits

    def describe(self) -> str:
        """Return a note for a report."""
        kinds = {"ridge regression" if _is_number(self.task, label) else "logistic regression": label
                 for label in self.task.labels}  # fmt: skip
        how = "chosen on validation" if self.is_chosen_on_validation else "by default, without validation texts"
        values = ", ".join(
            " ".join([name, *(str(value) for value in settings.values() if value is not None)])
            for name, settings in self.chosen.items()
        )
        return (
            f"TF-IDF baseline trained on the same rows: {' and '.join(kinds)} on {len(self.vectorizer.vocabulary_)} "
            f"n-grams of 1 to {self.ngrams[1]} words; n-grams, alpha or C, and class weights {how}: {values}. A model "
            "that scores below it has learnt nothing from the text."
        )

    def _typical(self, truth: np.ndarray) -> np.ndarray:
        """Return the logits (labels,) of a row without text."""
        if self.task.problem_type == "single_label_classification":
            counts = np.bincount(truth.astype(int), minlength=len(self.task.labels)) + 0.5
            return np.log(counts / counts.sum())
        columns = zip(self.task.labels, truth.reshape(len(truth), -1).astype(float).T, strict=True)
        return np.array(
            [(_middle if _is_number(self.task, label) else _base_logit)(values[~np.isnan(values)])
             for label, values in columns]
        )  # fmt: skip

    def _fit(self, truth, words, held_out, held_out_truth, num_candidates: int | None = None) -> list[Fitted | None]:
        """Fit a model for the classes, or one for each label, `None` for a label that is constant."""
        if self.task.problem_type == "single_label_classification":
            if len(np.unique(truth)) < 2:
                raise ValueError(
                    "There is no TF-IDF baseline because all training rows with text have the same class."
                )
            check = None if held_out is None else (held_out, held_out_truth.astype(int))
            num_classes = len(self.task.labels)
            return [_fit_classes(words, truth.astype(int), check, num_classes, self.metric, num_candidates)]
        truth = truth.reshape(len(truth), -1).astype(float)
        models: list[Fitted | None] = []
        for i, label in enumerate(self.task.labels):
            known = np.flatnonzero(~np.isnan(truth[:, i]))
            inputs, target, check = words[known], truth[known, i], None
            if held_out is not None:
                column = held_out_truth.reshape(len(held_out_truth), -1)[:, i].astype(float)
                seen = np.flatnonzero(~np.isnan(column))
                check = (held_out[seen], column[seen]) if len(seen) else None
            if len(np.unique(target)) < 2:
                models.append(None)
            elif _is_number(self.task, label):
                models.append(_fit_ridge(inputs, target, check, num_candidates))
            else:
                models.append(_fit_logistic(inputs, target > 0, check, self.metric, num_candidates))
        if not any(models):
            raise ValueError("There is no TF-IDF baseline because all training rows with text have the same labels.")
        return models


def _is_number(task: Task, label: str) -> bool:
    """Return whether a label is a number, and not the presence of something."""
    return task.problem_type == "regression" or (task.name == "joint" and label == "sentiment")


def _vectorize(texts: list[str], ngrams: tuple[int, int]):
    """Return a vectorizer and the matrix (N, words) of the texts."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(
        ngram_range=ngrams,
        sublinear_tf=True,
        min_df=2 if len(texts) >= ENOUGH_ROWS else 1,
        token_pattern=r"(?u)\b\w[\w']*\b",  # includes words of one letter and apostrophes ("don't")
    )
    try:
        return vectorizer, vectorizer.fit_transform(texts)
    except ValueError as error:  # scikit-learn's message names stop words and pruning
        raise ValueError(
            "There is no TF-IDF baseline because no word of the training rows occurs often enough."
        ) from error


def _has_text(texts: Sequence[str | None]) -> np.ndarray:
    return np.array([bool(text and text.strip()) for text in texts], dtype=bool)


def _middle(values: np.ndarray) -> float:
    return float(np.median(values)) if len(values) else 0.0


def _base_logit(present: np.ndarray) -> float:
    """Compute the logit of the base rate, smoothed by half a row with and half a row without the emotion."""
    rate = ((present > 0).sum() + 0.5) / (len(present) + 1)
    return float(np.log(rate / (1 - rate)))


def _choose(candidates: Sequence[dict], fit: Callable[..., Predict], loss: Loss | None, limit: int | None) -> Fitted:
    """Return the best of the first `limit` candidates by `loss`; the first one without a loss."""
    if loss is None:
        return Fitted(candidates[0], fit(**candidates[0]))
    fitted = []
    for settings in candidates[:limit]:
        predict = fit(**settings)
        fitted.append(Fitted(settings, predict, loss(predict)))
    return min(fitted, key=lambda model: model.loss)


def _choose_logistic(fit: Callable[..., Predict], loss: Loss | None, limit: int | None) -> Fitted:
    return _choose([{"c": c, "class_weight": weight} for c, weight in LOGISTIC_SETTINGS], fit, loss, limit)


def _loss_of(score: float | None, log_loss: float) -> tuple[float, float]:
    """Return a loss that compares by the metric, if the task has it, and then by log loss."""
    return (log_loss if score is None else -score), log_loss


def _fit_ridge(inputs, target, check, limit: int | None) -> Fitted:
    from sklearn.linear_model import Ridge

    def fit(alpha: float) -> Predict:
        return Ridge(alpha=alpha, solver="sparse_cg").fit(inputs, target).predict

    def absolute_error(predict: Predict) -> tuple[float, float]:
        return _loss_of(None, float(np.abs(predict(check[0]) - check[1]).mean() / np.ptp(target)))

    return _choose([{"alpha": alpha} for alpha in RIDGE_ALPHAS], fit, check and absolute_error, limit)


def _fit_logistic(inputs, target, check, metric: str, limit: int | None) -> Fitted:
    def fit(c: float, class_weight: str | None) -> Predict:
        return _logistic(inputs, target, c, class_weight).decision_function

    def loss(predict: Predict) -> tuple[float, float]:
        logits, present = predict(check[0]), check[1] > 0
        scores = emotion_metrics(present[:, None], logits[:, None], ["label"])
        return _loss_of(scores.get(metric), float((np.logaddexp(0, logits) - present * logits).mean()))

    return _choose_logistic(fit, check and loss, limit)


def _fit_classes(inputs, target, check, num_classes: int, metric: str, limit: int | None) -> Fitted:
    def fit(c: float, class_weight: str | None) -> Predict:
        model = _logistic(inputs, target, c, class_weight)

        def predict(words) -> np.ndarray:
            logits = np.full((words.shape[0], num_classes), LOWEST)
            with np.errstate(divide="ignore"):  # logarithm of 0
                logits[:, model.classes_] = np.maximum(model.predict_log_proba(words), LOWEST)
            return logits

        return predict

    def loss(predict: Predict) -> tuple[float, float]:
        logits = predict(check[0])
        scores = classification_metrics(check[1], logits)
        return _loss_of(scores.get(metric), float(-logits[np.arange(len(logits)), check[1]].mean()))

    return _choose_logistic(fit, check and loss, limit)


def _logistic(inputs, target, c: float, class_weight: str | None):
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        # Not fully converged is good enough: the best of several is chosen.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return LogisticRegression(C=c, max_iter=300, tol=1e-3, class_weight=class_weight).fit(inputs, target)
