"""Small folders in the exact layouts of the published files."""

import pickle
from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np


Records = Mapping[str, tuple[np.ndarray, np.ndarray]]


def seconds(*intervals: tuple[float, float]) -> np.ndarray:
    return np.array(intervals, dtype=np.float64).reshape(-1, 2)


def byte_words(*words: bytes) -> np.ndarray:
    return np.array(words, dtype="S32").reshape(-1, 1)


def write_sequence(path: Path, root: str, records: Records) -> Path:
    """Write a `.csd` file as the CMU Multimodal SDK does; `records` are {id: (features, intervals)}."""
    path.unlink(missing_ok=True)  # a source may still have the old one open
    with h5py.File(path, "w") as file:
        file.create_group(f"{root}/data")
        for key, (features, intervals) in records.items():
            group = file.create_group(f"{root}/data/{key}")
            group.create_dataset("features", data=features, compression="gzip", maxshape=(None, *features.shape[1:]))
            group.create_dataset("intervals", data=intervals, compression="gzip", maxshape=(None, 2))
        metadata = file.create_group(f"{root}/metadata")
        metadata.create_dataset("root name", data=f'"{root}"', dtype=h5py.string_dtype())
    return path


def write_csd_folder(folder: Path) -> Path:
    """
    Write two videos of the official splits, train and validation, and one that is in none: labels, words, COVAREP (5
    values every half second), FACET (3 values every second), and two files that are not read.
    """
    folder.mkdir()
    labels = {
        "-3g5yACwYnA": (
            np.array([[1.0, 2 / 3, 0, 0, 0, 0, 1 / 3], [-2.5, 0, 3, 1, 0, 2, 0]]), seconds((1, 3), (3, 5)),
        ),
        "aB3dE6gH9jK": (np.array([[0.5, 0, 0, 0, 0, 0, 0]]), seconds((0, 2))),
        "wF8980oGklk": (np.array([[0, 0, 0, 0, 1, 0, 0]], dtype=np.float32), seconds((0, 9.5))),
    }  # fmt: skip
    # "great" reaches into the second segment, its middle does not; "late" is in none
    words = byte_words(b"and", b"sp", b"so", b"great", b"movie", b"late")
    times = seconds((1, 1.4), (1.4, 1.6), (1.6, 2.75), (2.75, 3.15), (3.2, 4), (5, 5.5))
    audio = np.arange(60, dtype=np.float32).reshape(12, 5)
    audio[4] = -np.inf
    half = np.arange(12) / 2
    video = np.arange(18, dtype=np.float64).reshape(6, 3)
    whole = np.arange(6.0)
    write_sequence(folder / "CMU_MOSEI_Labels.csd", "All Labels", labels)
    write_sequence(
        folder / "CMU_MOSEI_TimestampedWords.csd", "words",
        {"-3g5yACwYnA": (words, times), "wF8980oGklk": (byte_words("é".encode(), b"sp"), seconds((0, 1), (1, 2)))},
    )  # fmt: skip
    write_sequence(
        folder / "CMU_MOSEI_COVAREP.csd", "COVAREP", {"-3g5yACwYnA": (audio, np.stack([half, half + 0.5], axis=1))}
    )
    write_sequence(
        folder / "CMU_MOSEI_VisualFacet42.csd", "FACET 4.2",
        {"-3g5yACwYnA": (video, np.stack([whole, whole + 1], axis=1))},
    )  # fmt: skip
    write_sequence(folder / "CMU_MOSEI_TimestampedPhones.csd", "phones", {"-3g5yACwYnA": (words, times)})
    vectors = np.zeros((6, 300), dtype=np.float32)
    write_sequence(folder / "CMU_MOSEI_TimestampedWordVectors.csd", "glove_vectors", {"-3g5yACwYnA": (vectors, times)})
    return folder


def mmsa_content() -> dict[str, dict]:
    """
    Folds of 2, 1 and 1 segments, audio (N, 4, 5) and vision (N, 3, 2), padded with zeros at the end or the start.
    """
    audio = np.zeros((2, 4, 5), dtype=np.float32)
    audio[0, :3] = np.arange(1, 16).reshape(3, 5)
    audio[0, 1] = 0  # within the frames, so not padding
    vision = np.zeros((2, 3, 2), dtype=np.float64)
    vision[0, 2] = 0.5, -0.25
    vision[1] = 7
    train = {
        "id": ["-3g5yACwYnA$_$10", "-3g5yACwYnA$_$2"],
        "raw_text": np.array(["I liked it", ""], dtype=object),
        "text": np.zeros((2, 3, 4), dtype=np.float32),
        "text_bert": np.zeros((2, 3, 4)),
        "audio": audio,
        "vision": vision,
        "annotations": np.array(["Positive", "Negative"]),
        "classification_labels": np.array([2.0, 0.0]),
        "regression_labels": np.array([1.5, -3.0]),
    }
    one = {name: values[:1] for name, values in train.items()}
    return {
        "train": train,
        "valid": one | {"id": np.array(["wF8980oGklk$_$13"])},
        "test": one | {"id": np.array(["-6rXp3zJ3kc$_$0"], dtype=object), "regression_labels": np.array([[0.0]])},
    }


def write_mmsa_folder(folder: Path) -> Path:
    """Write `aligned_50.pkl` with `mmsa_content`."""
    folder.mkdir()
    (folder / "aligned_50.pkl").write_bytes(pickle.dumps(mmsa_content(), protocol=4))
    return folder


def write_umons_folder(folder: Path) -> Path:
    """Write all files of the three splits: 2, 1 and 1 segments, mels of 4 values."""
    folder.mkdir()
    ids = {"train": ["-3g5yACwYnA[0]", "-3g5yACwYnA[1]"], "valid": ["wF8980oGklk[13]"], "test": ["-6rXp3zJ3kc[0]"]}
    for split, names in ids.items():
        parts = {
            "sentences": {name: ["That's", "fine"] for name in names},
            "mels": {name: np.arange(12, dtype=np.float32).reshape(3, 4) - i for i, name in enumerate(names)},
            "sentiment": {name: -0.5 + i for i, name in enumerate(names)},
            "emotion": {name: np.array([0.5, 0, 0, 0, i, 3], dtype=np.float32) for i, name in enumerate(names)},
        }
        for part, values in parts.items():
            (folder / f"{split}_{part}.p").write_bytes(pickle.dumps(values, protocol=4))
    return folder
