"""Training data of umons-base and umons-mini: corpora of texts and of voices as one data set."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from datasets import Features, Value

from ...models.umons.configuration_umons import EMOTIONS, NEUTRAL
from ..layouts import Source, open_source
from ..schema import FEATURE_COLUMNS, SPLITS, make_features
from .goemotions import GROUP_OF


# Corpora of texts, by name of the folder: their layouts.
TEXTS = {"mosei": "labels", "mosi": "mosi", "goemotions": "goemotions", "meld": "meld"}
VOICES = ("ravdess", "emodb", "prompts")
SOURCES = (*TEXTS, *VOICES)

# Sentiment of a voice by its emotion, as no corpus of voices has one: of the size of the means of MOSEI's training
# segments in which it is the strongest emotion (0.97, -0.64, -0.86, -0.36, -1.43, 0.13, 0.08). Few of these are
# surprise or fear.
VOICE_SENTIMENTS = {
    "happy": 1.0, "sad": -0.7, "anger": -0.9, "surprise": 0.0, "disgust": -1.4, "fear": -0.4, "neutral": 0.0,
}  # fmt: skip
# Rows with words and voice for each training recording.
PAIRS_PER_VOICE = 2
PAIR = "+"  # between the id of a recording and the number of the pair
CERTAIN = 0.9  # least probability of the emotion of words that are paired
# Probability that a reader calls a comment emotional, by original label of GoEmotions; 1 for all others. A question
# ("curiosity") is rarely a surprise to anybody, and what remains is neutral.
WEAK_LABELS = {
    "curiosity": 0.3, "realization": 0.4, "confusion": 0.5, "approval": 0.5, "disapproval": 0.5, "optimism": 0.6,
    "caring": 0.6, "desire": 0.6, "annoyance": 0.7, "embarrassment": 0.7, "amusement": 0.8, "disappointment": 0.8,
    "admiration": 0.9, "nervousness": 0.9,
}  # fmt: skip
NEUTRAL_BESIDE_OTHERS = 0.5
# Names in place of GoEmotions' masks.
NAMES = ("Anna", "Ben", "Carla", "David", "Emma", "Frank", "Grace", "Jack", "Maria", "Peter", "Sarah", "Tom")
MASK = re.compile(r"\[(NAME|RELIGION)\]")
CURLY_QUOTES = str.maketrans({"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"'})


class MiniMixture(Source):
    """
    A folder with any of `mosei` (labels and transcripts), `mosi`, `goemotions`, `meld`, `ravdess`, `emodb` and
    `prompts`.

    All corpora keep their splits: by video, comment, dialogue or speaker. `segment_id` and `video_id` begin with the
    name of the source, which is in the column `source`. Segments of MOSEI without a transcript are left out.

    The six emotions and the column `neutral` are probabilities that the emotion is present (see
    [`present_emotions`]). The sentiment of texts outside MOSEI and MOSI is null; that of voices is in
    `VOICE_SENTIMENTS`.

    No corpus has free speech together with its words. For training, each recording is therefore repeated
    `PAIRS_PER_VOICE` times next to words, selected by a hash: an emotional voice with neutral words and with words of
    the same emotion, a neutral voice with any words. The labels are those of the part that is not neutral.

    Args:
        folder: folder of the sources.
        sources: sources to read; by default, those of `SOURCES` that are there.
        voices_only: leave out rows without a recording.
        options: of the layouts of voices.
    """

    def __init__(
        self, folder: str | Path, sources: Sequence[str] | None = None, voices_only: bool = False, **options: Any
    ):
        super().__init__(folder)
        if sources is None:
            sources = [name for name in SOURCES if (self.folder / name).is_dir()]
        if not sources or not set(sources) <= set(SOURCES):
            raise ValueError(f"The sources are {', '.join(sources) or 'none'}; there are {', '.join(SOURCES)}.")
        voices = set(sources) & set(VOICES)
        if not voices and (options or voices_only):
            raise ValueError(f"{', '.join([*options, *['voices_only'] * voices_only])} applies to audio: add a voice.")
        self.voices_only = voices_only
        self.sources = {
            name: open_source(TEXTS.get(name, name), self.folder / name, **({} if name in TEXTS else options))
            for name in SOURCES
            if name in sources
        }

    @cached_property
    def features(self) -> Features:
        more: dict[str, Any] = {"neutral": Value("float32"), "source": Value("string")}
        voice = next((self.sources[name] for name in VOICES if name in self.sources), None)
        if voice is None:
            return make_features(**more)
        more["speaker"] = Value("string")
        if "audio" in voice.features:  # files in place of features
            columns = make_features(**more)
            columns = {name: kind for name, kind in columns.items() if name not in FEATURE_COLUMNS}
            return Features({**columns, "audio": voice.features["audio"]})
        return make_features(voice.features["audio_features"].feature.length, **more)

    @cached_property
    def _origin(self) -> dict[str, tuple[str, str, str]]:
        """Map segment ids to their source, and their split and id in it."""
        origin = {}
        for name, source in self.sources.items():
            for split, ids in source.segments.items():
                for segment_id in ids:
                    if name in TEXTS and not source.read(split, segment_id)["text"]:
                        self.left_out[f"{name}/{segment_id}"] = "it has no text"
                    else:
                        origin[f"{name}/{segment_id}"] = (name, split, segment_id)
            self.left_out.update({f"{name}/{key}": reason for key, reason in source.left_out.items()})
        return origin

    @cached_property
    def segments(self) -> dict[str, list[str]]:
        segments: dict[str, list[str]] = {split: [] for split in SPLITS}
        has_words = bool(set(self.sources) & set(TEXTS))
        for segment_id, (name, split, _) in self._origin.items():
            if name not in TEXTS or not self.voices_only:
                segments[split].append(segment_id)
            if name in VOICES and split == "train" and has_words:
                segments[split] += [f"{segment_id}{PAIR}{number}" for number in range(1, PAIRS_PER_VOICE + 1)]
        return {split: names for split, names in segments.items() if names}

    def read(self, split: str, segment_id: str) -> dict[str, Any]:
        segment_id, _, number = segment_id.partition(PAIR)
        name, original_split, original_id = self._origin[segment_id]
        original = self.sources[name].read(original_split, original_id)
        row = {column: value for column, value in original.items() if column in self.features}
        row |= present_emotions(name, original)
        row |= {"segment_id": segment_id, "video_id": f"{name}/{row['video_id']}", "source": name}
        if name in TEXTS:
            return row | {"text": clean_text(row["text"], segment_id)}
        row |= {"text": None, "words": None, "sentiment": VOICE_SENTIMENTS[_strongest(row)]}
        return self._add_words(row, int(number), original["text"]) if number else row

    def _add_words(self, voice: dict[str, Any], number: int, sentence: str | None) -> dict[str, Any]:
        """Return the row of a voice next to words; `sentence` is its transcript, if that is neutral."""
        row = voice | {"segment_id": f"{voice['segment_id']}{PAIR}{number}"}
        choice, emotion = _hash(row["segment_id"]), _strongest(voice)
        if emotion != NEUTRAL and number % 2:  # the words say nothing about the emotion
            if sentence and choice % 2:
                return row | {"text": sentence, "sentiment": None}
            return row | {"text": self._choose(NEUTRAL, choice)["text"], "sentiment": None}
        wanted = (*EMOTIONS, NEUTRAL)[choice // 7 % 7] if emotion == NEUTRAL else emotion
        words = self._choose(wanted, choice)
        names = (*EMOTIONS, NEUTRAL)
        return row | {name: words[name] for name in ("text", "sentiment", *names)}

    def _choose(self, emotion: str, choice: int) -> dict[str, Any]:
        """Return a training text with this emotion as the strongest one."""
        names = self._texts_by_emotion[emotion]
        row = self.read("train", names[choice % len(names)])
        return {"sentiment": None, **row}

    @cached_property
    def _texts_by_emotion(self) -> dict[str, list[str]]:
        """Map emotions to the training texts in which they are certain."""
        texts: dict[str, list[str]] = {name: [] for name in (*EMOTIONS, NEUTRAL)}
        for segment_id, (name, split, original_id) in self._origin.items():
            if name in TEXTS and split == "train":
                present = present_emotions(name, self.sources[name].read(split, original_id))
                if present[NEUTRAL] is not None and max(present.values()) >= CERTAIN:
                    texts[_strongest(present)].append(segment_id)
        return texts


def _strongest(row: Mapping[str, Any]) -> str:
    return max((*EMOTIONS, NEUTRAL), key=lambda name: row[name])


def _hash(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")


def clean_text(text: str, segment_id: str) -> str:
    """Return a text with straight quotes, without caption marks, and with names in place of GoEmotions' masks."""
    text = text.translate(CURLY_QUOTES).removeprefix("^").strip()
    name = NAMES[_hash(segment_id) % len(NAMES)]
    return MASK.sub(lambda mask: name if mask[1] == "NAME" else "religion", text)


def present_emotions(source: str, row: Mapping[str, Any]) -> dict[str, float | None]:
    """
    Return the probability that each of the six emotions, and none of them (`neutral`), is present in a row of a
    source, whose corpora have different columns. `None` is unknown.

    MOSEI rates each emotion from 0 to 3, averaged over three annotators: the probability is the intensity, at most 1.
    A segment without emotions is neutral unless its sentiment is above 1 or below -1. The labels of GoEmotions count
    by `WEAK_LABELS`, those of the others with 1.
    """
    if source in VOICES:
        return {name: row[name] for name in (*EMOTIONS, NEUTRAL)}
    present: dict[str, float | None] = {name: row.get(name) for name in EMOTIONS}
    if None in present.values():
        return {**present, NEUTRAL: None}
    if source == "goemotions":
        labels = row["labels"].split(",")
        weights = {label: WEAK_LABELS.get(label, 1.0) for label in labels if label != NEUTRAL}
        for name in EMOTIONS:
            present[name] = max((weight for label, weight in weights.items() if GROUP_OF[label] == name), default=0.0)
        least = NEUTRAL_BESIDE_OTHERS if NEUTRAL in labels else 0.0
        return {**present, NEUTRAL: max(least, 1 - max(present.values()))}
    present = {name: min(value, 1.0) for name, value in present.items()}
    strongest = max(present.values())
    is_known = strongest > 0 or abs(row.get("sentiment") or 0.0) <= 1
    return {**present, NEUTRAL: 1 - strongest if is_known else None}
