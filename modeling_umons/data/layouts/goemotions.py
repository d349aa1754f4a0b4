"""GoEmotions (Demszky et al., ACL 2020): Reddit comments with 27 emotions or neutral."""

from functools import cached_property
from typing import Any

from datasets import Features, Value

from ...models.umons.configuration_umons import EMOTIONS
from ..layouts import Source
from ..schema import SPLIT_NAMES, SPLITS, make_features


# The authors' grouping of their 28 labels to Ekman's six emotions and neutral, under the names of MOSEI.
EKMAN_GROUPS = {
    "happy": (
        "joy", "amusement", "approval", "excitement", "gratitude", "love", "optimism", "relief", "pride", "admiration",
        "desire", "caring",
    ),
    "sad": ("sadness", "disappointment", "embarrassment", "grief", "remorse"),
    "anger": ("anger", "annoyance", "disapproval"),
    "surprise": ("surprise", "realization", "confusion", "curiosity"),
    "disgust": ("disgust",),
    "fear": ("fear", "nervousness"),
    "neutral": ("neutral",),
}  # fmt: skip
GROUP_OF = {label: group for group, labels in EKMAN_GROUPS.items() for label in labels}


class GoEmotionsTables(Source):
    """
    Any of `train.tsv`, `dev.tsv` and `test.tsv` (text, label numbers separated by commas, id) with `labels.txt`.

    The six emotions and the column `neutral` are 1 or 0 by `EKMAN_GROUPS`; the column `labels` has the names of the
    original labels, separated by commas. `sentiment` is null. There is neither audio nor video.
    """

    features: Features = make_features(neutral=Value("float32"), labels=Value("string"))

    @cached_property
    def _names(self) -> list[str]:
        path = self.folder / "labels.txt"
        names = path.read_text(encoding="utf-8").split()
        if unknown := [name for name in names if name not in GROUP_OF]:
            raise ValueError(f"{path}: unknown label(s) {', '.join(unknown)}; expected {', '.join(GROUP_OF)}.")
        return names

    @cached_property
    def _rows(self) -> dict[str, dict[str, tuple[str, list[str]]]]:
        paths = {name: self.folder / f"{name}.tsv" for name in ("train", "dev", "test")}
        rows = {SPLIT_NAMES[name]: self._read_table(path) for name, path in paths.items() if path.is_file()}
        if not rows:
            raise FileNotFoundError(f"{self.folder} has none of the tables train.tsv, dev.tsv and test.tsv.")
        return rows

    def _read_table(self, path) -> dict[str, tuple[str, list[str]]]:
        """Return {id: (text, labels)}. The tables are not quoted, so that `csv` would join lines at a quote."""
        rows: dict[str, tuple[str, list[str]]] = {}
        for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
            if not line:
                continue
            cells = line.rstrip("\r").split("\t")
            if len(cells) != 3:
                raise ValueError(f"{path}, line {number}: {len(cells)} cells, expected a text, its labels and an id.")
            text, labels, name = cells
            try:
                rows[name] = (text.strip(), [self._names[int(label)] for label in labels.split(",")])
            except (ValueError, IndexError):
                raise ValueError(
                    f"{path}, line {number}: the labels are {labels!r}, expected numbers below {len(self._names)}."
                ) from None
        return rows

    @cached_property
    def segments(self) -> dict[str, list[str]]:
        return {split: list(self._rows[split]) for split in SPLITS if split in self._rows}

    def read(self, split: str, segment_id: str) -> dict[str, Any]:
        text, labels = self._rows[split][segment_id]
        groups = {GROUP_OF[label] for label in labels}
        return {
            "segment_id": segment_id,
            "video_id": segment_id,
            "text": text or None,
            "labels": ",".join(labels),
            **{name: float(name in groups) for name in (*EMOTIONS, "neutral")},
        }
