"""TF-IDF baseline trained on the same rows. A model that scores below it has learnt nothing from the text."""

import warnings
from collections.abc import Callable, Sequence

import numpy as np

from ..tasks.task import Task


# Candidates for the validation split; the first one is used without it.
RIDGE_ALPHAS = (1.0, 0.3, 3.0, 10.0)
LOGISTIC_CS = (1.0, 0.3, 3.0, 10.0)

# From this number of rows on, words in a single row are ignored.
ENOUGH_ROWS = 200

# Lower bound of logits, also for classes without training rows.
LOWEST = -15.0

# Maps a matrix (N, words) to logits (N, labels).
Predict = Callable[[object], np.ndarray]


class TfidfBaseline:
    """
    TF-IDF of words and word pairs (sublinear, L2) with ridge regression for a sentiment, logistic regression for each
    emotion on the rows where it is known, and multinomial logistic regression for classes. The regularisation is
    chosen on the validation split by mean absolute error or log loss.

    Args:
        task: the task.
        texts: texts of the training rows; may contain `None`.
        truth: labels of the training rows as returned by [`Task.label_array`].
        validation_texts: texts of the validation rows; without them the regularisation is 1.
        validation_truth: labels of the validation rows.

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
    ):
        from sklearn.feature_extraction.text import TfidfVectorizer

        has_text = _has_text(texts)
        if not has_text.any():
            raise ValueError("There is no TF-IDF baseline because the training rows have no text.")
        self.task = task
        min_df = 2 if has_text.sum() >= ENOUGH_ROWS else 1
        # Includes words of one letter and apostrophes ("don't").
        pattern = r"(?u)\b\w[\w']*\b"
        self.vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=min_df, token_pattern=pattern)
        try:
            words = self.vectorizer.fit_transform([texts[row] for row in np.flatnonzero(has_text)])
        except ValueError as error:  # scikit-learn's message names stop words and pruning
            raise ValueError(
                "There is no TF-IDF baseline because no word of the training rows occurs often enough."
            ) from error
        usable = _has_text(validation_texts)
        held_out = None
        if usable.any():
            held_out = self.vectorizer.transform([validation_texts[row] for row in np.flatnonzero(usable)])
            validation_truth = np.asarray(validation_truth)[usable]
        self.chosen: dict[str, float] = {}  # by label, or by task
        self.is_chosen_on_validation = held_out is not None
        # Base rates are of all training rows, with and without text.
        self.typical, self.predict = self._fit(np.asarray(truth), has_text, words, held_out, validation_truth)

    def logits(self, texts: Sequence[str | None]) -> np.ndarray:
        """
        Predict (N, num_labels) float64. Rows without text have the training median and the logits of the base rates.
        """
        logits = np.tile(self.typical, (len(texts), 1))
        rows = np.flatnonzero(_has_text(texts))
        if len(rows):
            logits[rows] = self.predict(self.vectorizer.transform([texts[row] for row in rows]))
        return logits

    def describe(self) -> str:
        """Return a note for a report."""
        kind = {"regression": "ridge regression"}.get(self.task.problem_type, "logistic regression")
        if self.task.name == "joint":
            kind = "ridge regression (sentiment) and logistic regressions (emotions)"
        how = "chosen on validation" if self.is_chosen_on_validation else "by default, without validation texts"
        values = ", ".join(f"{name} {value:g}" for name, value in self.chosen.items())
        return (
            f"TF-IDF baseline trained on the same rows: {kind} on {len(self.vectorizer.vocabulary_)} words and word "
            f"pairs, alpha or C {how}: {values}. A model that scores below it has learnt nothing from the text."
        )

    def _fit(self, truth, has_text, words, held_out, validation_truth) -> tuple[np.ndarray, Predict]:
        """Return the logits (labels,) of a row without text, and the function that predicts rows with text."""
        if self.task.problem_type == "single_label_classification":
            return self._fit_classes(truth, has_text, words, held_out, validation_truth)
        truth = truth.reshape(len(truth), -1).astype(float)
        if validation_truth is not None:
            validation_truth = validation_truth.reshape(len(validation_truth), -1).astype(float)
        typical, columns, num_fitted = [], [], 0
        for i, label in enumerate(self.task.labels):
            known = ~np.isnan(truth[:, i])
            is_sentiment = label == "sentiment"
            typical.append(_middle(truth[known, i]) if is_sentiment else _base_logit(truth[known, i]))
            rows = known[has_text]
            inputs, target = words[np.flatnonzero(rows)], truth[has_text, i][rows]
            if len(np.unique(target)) < 2:
                columns.append(None)
                continue
            num_fitted += 1
            check = None
            if held_out is not None:
                seen = np.flatnonzero(~np.isnan(validation_truth[:, i]))
                check = (held_out[seen], validation_truth[seen, i]) if len(seen) else None
            fit = _fit_ridge if is_sentiment else _fit_logistic
            value, predict = fit(inputs, target, check)
            self.chosen[label] = value
            columns.append(predict)
        if not num_fitted:
            raise ValueError("There is no TF-IDF baseline because all training rows with text have the same labels.")
        typical = np.array(typical)

        def predict(inputs) -> np.ndarray:
            parts = [
                np.full(inputs.shape[0], typical[i]) if column is None else column(inputs)
                for i, column in enumerate(columns)
            ]
            return np.stack(parts, axis=1)

        return typical, predict

    def _fit_classes(self, truth, has_text, words, held_out, validation_truth) -> tuple[np.ndarray, Predict]:
        num_classes = len(self.task.labels)
        target = truth[has_text].astype(int)
        if len(np.unique(target)) < 2:
            raise ValueError("There is no TF-IDF baseline because all training rows with text have the same class.")
        check = None if held_out is None else (held_out, validation_truth.astype(int))
        self.chosen[self.task.name], model = _fit_classes(words, target, check, num_classes)
        counts = np.bincount(truth.astype(int), minlength=num_classes)
        typical = np.log((counts + 0.5) / (counts + 0.5).sum())
        return typical, model


def _has_text(texts: Sequence[str | None]) -> np.ndarray:
    return np.array([bool(text and text.strip()) for text in texts], dtype=bool)


def _middle(values: np.ndarray) -> float:
    return float(np.median(values)) if len(values) else 0.0


def _base_logit(present: np.ndarray) -> float:
    """Compute the logit of the base rate, smoothed by half a row with and half a row without the emotion."""
    rate = ((present > 0).sum() + 0.5) / (len(present) + 1)
    return float(np.log(rate / (1 - rate)))


def _choose(values: Sequence[float], fit: Callable[[float], Predict], loss) -> tuple[float, Predict]:
    """Return the value with the lowest `loss(predict)` and its model; the first value without a loss."""
    if loss is None:
        return values[0], fit(values[0])
    fitted = [(value, fit(value)) for value in values]
    losses = [loss(predict) for _, predict in fitted]
    return fitted[int(np.argmin(losses))]


def _fit_ridge(inputs, target, check) -> tuple[float, Predict]:
    from sklearn.linear_model import Ridge

    def fit(alpha: float) -> Predict:
        return Ridge(alpha=alpha, solver="sparse_cg").fit(inputs, target).predict

    loss = None if check is None else lambda predict: np.abs(predict(check[0]) - check[1]).mean()
    return _choose(RIDGE_ALPHAS, fit, loss)


def _fit_logistic(inputs, target, check) -> tuple[float, Predict]:
    def fit(c: float) -> Predict:
        return _logistic(inputs, target > 0, c).decision_function

    def log_loss(predict: Predict) -> float:
        logits = predict(check[0])
        return float((np.logaddexp(0, logits) - (check[1] > 0) * logits).mean())

    return _choose(LOGISTIC_CS, fit, None if check is None else log_loss)


def _fit_classes(inputs, target, check, num_classes: int) -> tuple[float, Predict]:
    def fit(c: float) -> Predict:
        model = _logistic(inputs, target, c)

        def predict(words) -> np.ndarray:
            logits = np.full((words.shape[0], num_classes), LOWEST)
            with np.errstate(divide="ignore"):  # logarithm of 0
                logits[:, model.classes_] = np.maximum(model.predict_log_proba(words), LOWEST)
            return logits

        return predict

    def log_loss(predict: Predict) -> float:
        return float(-predict(check[0])[np.arange(len(check[1])), check[1]].mean())

    return _choose(LOGISTIC_CS, fit, None if check is None else log_loss)


def _logistic(inputs, target, c: float):
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        # Not fully converged is good enough: the best of several is chosen.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return LogisticRegression(C=c, max_iter=300, tol=1e-3).fit(inputs, target)
