"""Computational sequences, the files of the CMU Multimodal SDK (Zadeh et al., 2018), read without trusting them.

A `.csd` file is HDF5: `<root>/data/<id>/features` (N, D) and `<root>/data/<id>/intervals` (N, 2), seconds. HDF5 can
point to other files and can declare arrays that its bytes do not hold; both are refused before anything of an array is
read.
"""

import math
import os
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np


if TYPE_CHECKING:
    import h5py

MAX_RECORD_BYTES = 2**30
MAX_PACKING = 1032  # how much deflate, which is what gzip does, saves at most
# What h5py raises on damaged files, which is what HDF5 happens to stumble over.
H5_ERRORS = (KeyError, OSError, OverflowError, RuntimeError, TypeError, ValueError)


class _Faulty(Exception):
    """A key is refused, or not of the layout."""


class ComputationalSequence:
    """
    One `.csd` file.

    The file is opened by each process where it first reads, and an open file does not go along when this is pickled.

    Args:
        path: the file. Raises OSError where it is missing or no HDF5, and ValueError where it has not one root with
            `data` in it.
    """

    def __init__(self, path: Path):
        self.path = path
        self._file: tuple[int, h5py.File] | None = None
        names = self._guard("/", lambda: _names(self._open()))
        roots = [name for name in names if self._guard(name, lambda name=name: self._has_data(name))]
        if len(roots) != 1:
            raise ValueError(f"{path} has {len(roots)} groups with a group `data`, expected the one of its sequence.")
        self.root: str = roots[0]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_file": None}

    @cached_property
    def keys(self) -> dict[str, None]:
        """Ids under `data`, in the order of the file. Raises OSError or ValueError if they cannot be listed."""
        return self._guard(f"{self.root}/data", lambda: dict.fromkeys(_names(self._data())))

    def shape(self, key: str) -> tuple[int, ...]:
        """Return the shape of the features of a key without reading them. Raises as `read`."""
        return self._guard(f"{self.root}/data/{key}/features", lambda: self._dataset(key, "features").shape)

    def read(self, key: str) -> tuple[np.ndarray, np.ndarray]:
        """
        Features (N, D), numbers or byte strings, and intervals (N, 2), float64 seconds.

        Raises:
            OSError: the file is damaged; ValueError: the key is not of this layout, or not safe to read. Both name the
            file, the key and the fact.
        """
        where = f"{self.root}/data/{key}"
        features = self._guard(f"{where}/features", lambda: self._dataset(key, "features")[()])
        intervals = self._guard(f"{where}/intervals", lambda: self._dataset(key, "intervals")[()])
        if intervals.dtype.kind not in "fiu" or intervals.ndim != 2 or intervals.shape[1] != 2:
            raise ValueError(
                f"{self.path}, {where}/intervals has the shape {intervals.shape} and the dtype {intervals.dtype}, "
                "expected numbers of shape (rows, 2)."
            )
        if features.ndim == 0:
            raise ValueError(f"{self.path}, {where}/features is a single value, expected a row for each interval.")
        if len(features) != len(intervals):
            raise ValueError(f"{self.path}, {where}: features has {len(features)} rows, intervals {len(intervals)}.")
        intervals = intervals.astype(np.float64)
        if not np.isfinite(intervals).all():
            row = int(np.argmin(np.isfinite(intervals).all(axis=1)))
            raise ValueError(f"{self.path}, {where}/intervals has the row {intervals[row]} at {row}, no seconds.")
        return features, intervals

    def _open(self) -> "h5py.File":
        try:
            import h5py
        except ImportError:
            raise ImportError(f"{self.path}: .csd files are HDF5, which `pip install h5py` reads.") from None

        if self._file is None or self._file[0] != os.getpid():  # an open file must not be shared after a fork
            # No lock: folders of data are often mounted for reading only.
            self._file = os.getpid(), h5py.File(self.path, "r", locking=False)
        return self._file[1]

    def _guard(self, key: str, access: Any) -> Any:
        """Return `access()`; errors of h5py and of the checks have clear messages."""
        try:
            return access()
        except _Faulty as fault:
            raise ValueError(f"{self.path}, {key} {fault}.") from None
        except FileNotFoundError:
            raise FileNotFoundError(f"{self.path}: there is no such file.") from None
        except H5_ERRORS as error:
            raise OSError(f"{self.path}, {key}: this HDF5 cannot be read, it is damaged or none ({error}).") from error

    def _has_data(self, name: str) -> bool:
        import h5py

        file = self._open()
        return _is_hard_link(file, name) and isinstance(file[name], h5py.Group) and _has_link(file[name], "data")

    def _data(self) -> "h5py.Group":
        import h5py

        return _follow(_follow(self._open(), self.root, h5py.Group), "data", h5py.Group)

    def _dataset(self, key: str, name: str) -> "h5py.Dataset":
        import h5py

        dataset = _follow(_follow(self._data(), key, h5py.Group), name, h5py.Dataset)
        _check_dataset(dataset)
        return dataset


def _names(group: "h5py.Group") -> list[str]:
    names = list(group)
    if wrong := [name for name in names if not isinstance(name, str)]:
        raise _Faulty(f"has the name {wrong[0]!r:.80}, which is not UTF-8 text")
    return names


def _has_link(group: "h5py.Group", name: str) -> bool:
    return group.id.links.exists(name.encode())


def _is_hard_link(group: "h5py.Group", name: str) -> bool:
    from h5py import h5l

    return group.id.links.get_info(name.encode()).type == h5l.TYPE_HARD


def _follow(group: "h5py.Group", name: str, kind: type) -> Any:
    """Return a member of a group in the same file."""
    if not _has_link(group, name):
        raise _Faulty(f"cannot be read: {group.name} has no {name}")
    if not _is_hard_link(group, name):
        raise _Faulty(f"is refused: {group.name}/{name} is a link to somewhere else")
    member = group[name]
    if not isinstance(member, kind):
        raise _Faulty(f"cannot be read: {group.name}/{name} is a {type(member).__name__}, expected a {kind.__name__}")
    return member


def _check_dataset(dataset: "h5py.Dataset") -> None:
    """Check a dataset before it is read."""
    if dataset.is_virtual or dataset.external:
        raise _Faulty("is refused: its values lie in other files")
    if dataset.dtype.kind not in "fiuS" or dataset.shape is None:
        raise _Faulty(f"has the dtype {dataset.dtype}, expected numbers or byte strings")
    if 0 in dataset.shape[1:]:  # any number of such rows takes no bytes
        raise _Faulty(f"is refused: its shape {dataset.shape} has rows without values")
    declared = math.prod(dataset.shape) * dataset.dtype.itemsize
    chunk = math.prod(dataset.chunks) * dataset.dtype.itemsize if dataset.chunks else 0
    if max(declared, chunk) > MAX_RECORD_BYTES:
        raise _Faulty(
            f"is refused: it declares {max(declared, chunk)} bytes, more than {MAX_RECORD_BYTES} in one record"
        )
    # Packed data may unpack to far more than was declared, and chunks that are not stored are zeros.
    stored = dataset.id.get_storage_size()
    if stored > 2 * (declared + chunk) + 2**16 or declared > MAX_PACKING * stored + 2**20:
        raise _Faulty(f"is refused: it stores {stored} bytes for the {declared} bytes of its shape {dataset.shape}")
