"""Builders of `datasets` for the layouts of utterances, streamed or prepared in its cache.

builder = MoseiBuilder(config_name="emotion", layout="umons", data_dir="MOSEI")
builder.as_streaming_dataset(split="validation")
builder.download_and_prepare(num_proc=2)
builder.as_dataset(split="train")
"""

import inspect
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import datasets
import multiprocess
import pyarrow as pa
from datasets.builder import Key

from .. import __version__
from ..utils.workers import limit_threads
from .layouts import Source, open_source, source_class
from .official_splits import OFFICIAL_COUNTS
from .schema import CONFIGURATIONS, class_columns, to_table


logger = logging.getLogger(__name__)

ROWS_PER_TABLE = 32  # rows read before the first row of a stream is returned
SHOWN_SEGMENTS = 5


@dataclass
class UtteranceConfig(datasets.BuilderConfig):
    """
    A configuration of an [`UtteranceBuilder`].

    Attributes:
        layout: a layout of the builder.
        data_dir: folder of the files.
        on_bad_rows: treatment of segments that cannot be read: "error" raises, "warn" logs and skips them, "skip"
            skips them.
        options: further arguments of the layout's `Source`.
        shard_size: consecutive segments that one process reads.
    """

    layout: str | None = None
    on_bad_rows: Literal["error", "warn", "skip"] = "error"
    options: dict[str, Any] = field(default_factory=dict)
    shard_size: int = 256

    def create_config_id(self, config_kwargs: dict, custom_features: datasets.Features | None = None) -> str:
        """Return the name of the cache, which changes with the files of the source and the version of the package."""
        if self.data_dir is not None:
            folder = os.path.abspath(self.data_dir)
            files = [state for path in (folder, *self._option_paths()) for state in _file_states(path)]
            config_kwargs = {**config_kwargs, "data_dir": folder, "files": files, "code": __version__}
        return super().create_config_id(config_kwargs, custom_features)

    def _option_paths(self) -> list[str]:
        paths = [os.fspath(value) for value in self.options.values() if isinstance(value, (str, os.PathLike))]
        return [path for path in paths if os.path.exists(path)]


def _file_states(path: str) -> list[tuple[str, int, int]]:
    """Return (path, bytes, time of the last change in ns) of a file, or of all files of a folder."""
    paths = [os.path.join(folder, name) for folder, _, names in os.walk(path) for name in names] or [path]
    states = []
    for name in sorted(paths):
        if os.path.exists(name):  # false for a broken link
            state = os.stat(name)
            states.append((name, state.st_size, state.st_mtime_ns))
    return states


def check_options(layout: str, options: dict[str, Any]) -> None:
    """Raise ValueError for options that the source of a layout does not take."""
    parameters = inspect.signature(source_class(layout)).parameters.values()
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
        return
    known = [parameter.name for parameter in parameters if parameter.name != "folder"]
    if unknown := [name for name in options if name not in known]:
        has = f"it takes {', '.join(known)}" if known else "it takes none"
        raise ValueError(f"The layout {layout} does not take the option(s) {', '.join(unknown)}; {has}.")


def read_rows(
    source: Source,
    split: str,
    segment_ids: Sequence[str],
    features: datasets.Features,
    on_bad_row: Callable[[str, Exception], None],
) -> pa.Table:
    """
    Read segments of a source, with their class columns, to a table of `features`.

    A segment that cannot be read, or does not fit the columns, is left out after a call of
    `on_bad_row(segment_id, error)`.
    """
    rows = {}
    for segment_id in segment_ids:
        try:
            row = dict.fromkeys(features) | source.read(split, segment_id)
            rows[segment_id] = row | class_columns(row)
        except Exception as error:  # whatever a damaged file does to its decoder: the other rows are still wanted
            on_bad_row(segment_id, error)
    try:
        return to_table(list(rows.values()), features)
    except (ValueError, TypeError, OverflowError):
        tables = [to_table([], features)]
        for segment_id, row in rows.items():
            try:
                tables.append(to_table([row], features))
            except (ValueError, TypeError, OverflowError) as error:
                fact = f"{source.folder}: the row does not fit the columns: {describe_error(error)}"
                on_bad_row(segment_id, ValueError(fact))
        return pa.concat_tables(tables)


def describe_error(error: Exception) -> str:
    """Return the message of an error; unexpected errors with the name of their class."""
    return str(error) if isinstance(error, (OSError, ValueError)) else f"{type(error).__name__}: {error}"


class UtteranceBuilder(datasets.ArrowBasedBuilder):
    """
    Builder of utterances in one of the layouts, with the columns of [`make_features`] and the class column of the
    configuration.

    Takes the arguments of `datasets.DatasetBuilder`, and as keywords the attributes of [`UtteranceConfig`].

    Raises:
        ValueError: the layout, `on_bad_rows` or an option is unknown, `data_dir` is not given, or its files are not of
        the layout; OSError: a file is missing or damaged.
    """

    BUILDER_CONFIG_CLASS = UtteranceConfig
    DEFAULT_CONFIG_NAME = "all"
    DATASET_NAME = "utterances"
    PRETTY_NAME = "Utterances"
    LICENSE = "other"
    LAYOUTS: tuple[str, ...] = ()
    # {split: published counts}, with the keys of the report of [`prepare_dataset`].
    OFFICIAL_COUNTS: dict[str, dict[str, Any]] = {}

    def __init__(self, cache_dir: str | None = None, dataset_name: str | None = None, **kwargs: Any):
        self._has_told_left_out = False
        super().__init__(cache_dir, dataset_name or self.DATASET_NAME, **kwargs)

    def __getstate__(self) -> dict[str, Any]:
        # A source may hold everything that it has read: each process opens its own.
        return {name: value for name, value in super().__getstate__().items() if name != "source"}

    @cached_property
    def source(self) -> Source:
        """Source of the segments."""
        return open_source(self.config.layout, self.config.data_dir, **self.config.options)

    def _info(self) -> datasets.DatasetInfo:
        self._check_config()
        description = inspect.getdoc(type(self)).splitlines()[0]
        return datasets.DatasetInfo(description, features=self.features_of(self.config.name), license=self.LICENSE)

    def features_of(self, *config_names: str) -> datasets.Features:
        """Return the columns of one configuration, or of several together."""
        classes = {name: feature for config in config_names for name, feature in CONFIGURATIONS[config].items()}
        return datasets.Features({**self.source.features, **classes})

    def _check_config(self) -> None:
        config = self.config
        if config.layout not in self.LAYOUTS:
            raise ValueError(
                f"{type(self).__name__} has no layout {config.layout!r}: pass layout= as one of "
                f"{', '.join(self.LAYOUTS)}."
            )
        if config.data_dir is None:
            raise ValueError(f"{type(self).__name__} requires data_dir=, the folder of the files.")
        if config.on_bad_rows not in ("error", "warn", "skip"):
            raise ValueError(f"on_bad_rows is {config.on_bad_rows!r}; it must be 'error', 'warn' or 'skip'.")
        if config.shard_size < 1:
            raise ValueError(f"shard_size is {config.shard_size}; it must be at least 1.")
        check_options(config.layout, config.options)

    def _split_generators(self, dl_manager) -> list[datasets.SplitGenerator]:
        segments, size = self.source.segments, self.config.shard_size
        if not any(segments.values()):
            raise ValueError(f"{self.config.data_dir}: there is no segment in it (layout {self.config.layout}).")
        if self.source.left_out and not self._has_told_left_out:
            self._has_told_left_out = True
            shown = [f"{name} ({reason})" for name, reason in list(self.source.left_out.items())[:SHOWN_SEGMENTS]]
            more = "" if len(shown) == len(self.source.left_out) else ", ..."
            logger.warning(
                "%s: %d segments are in no split: %s%s",
                self.config.data_dir,
                len(self.source.left_out),
                ", ".join(shown),
                more,
            )
        return [
            datasets.SplitGenerator(
                name=split,
                gen_kwargs={"split": split, "shards": [ids[i : i + size] for i in range(0, len(ids), size)]},
            )
            for split, ids in segments.items()
            if ids
        ]

    def _generate_shards(self, split: str, shards: list[list[str]]) -> Iterator[dict[str, Any]]:
        for segment_ids in shards:
            yield {"split": split, "segment_ids": segment_ids}

    def _generate_tables(self, split: str, shards: list[list[str]]) -> Iterator[tuple[Key, pa.Table]]:
        def on_bad_row(segment_id: str, error: Exception) -> None:
            message = f"{split}, {segment_id}: {describe_error(error)}"
            if self.config.on_bad_rows == "error":
                kind = OSError if isinstance(error, OSError) else ValueError
                raise kind(f'{message} (on_bad_rows="warn" skips such rows)') from error
            if self.config.on_bad_rows == "warn":
                logger.warning("Left out: %s", message)

        if multiprocess.parent_process() is not None:
            limit_threads()  # workers of `datasets` are forks, and would wait for the torch threads of their parent
        for shard, segment_ids in enumerate(shards):
            for start in range(0, len(segment_ids), ROWS_PER_TABLE):
                some = segment_ids[start : start + ROWS_PER_TABLE]
                table = read_rows(self.source, split, some, self.info.features, on_bad_row)
                if table.num_rows:
                    yield Key(shard, start // ROWS_PER_TABLE), table


def _configs(*names: str, layout: str | None = None) -> list[UtteranceConfig]:
    return [UtteranceConfig(name=name, layout=layout) for name in names]


class MoseiBuilder(UtteranceBuilder):
    """CMU-MOSEI (Zadeh et al., 2018): sentiment in [-3, 3] and six emotions in [0, 3]."""

    DATASET_NAME = "mosei"
    PRETTY_NAME = "CMU-MOSEI"
    LAYOUTS = ("umons", "csd", "mmsa", "folder", "labels")
    OFFICIAL_COUNTS = OFFICIAL_COUNTS
    BUILDER_CONFIGS = _configs("all", "emotion", "sentiment-7", "sentiment-2", "sentiment")


class MosiBuilder(UtteranceBuilder):
    """CMU-MOSI (Zadeh et al., 2016): sentiment in [-3, 3]."""

    DATASET_NAME = "mosi"
    PRETTY_NAME = "CMU-MOSI"
    LAYOUTS = ("mosi",)
    BUILDER_CONFIGS = _configs("all", "sentiment-7", "sentiment-2", "sentiment", layout="mosi")


class MeldBuilder(UtteranceBuilder):
    """MELD (Poria et al., 2019): utterances of a television series, each with one of seven emotions."""

    DATASET_NAME = "meld"
    PRETTY_NAME = "MELD"
    LICENSE = "gpl-3.0"
    LAYOUTS = ("meld",)
    BUILDER_CONFIGS = _configs("all", "emotion", layout="meld")


class GoEmotionsBuilder(UtteranceBuilder):
    """GoEmotions (Demszky et al., 2020): Reddit comments, each with some of 28 labels in the column `labels`."""

    DATASET_NAME = "goemotions"
    PRETTY_NAME = "GoEmotions"
    LICENSE = "apache-2.0"
    LAYOUTS = ("goemotions",)
    BUILDER_CONFIGS = _configs("all", layout="goemotions")


class RavdessBuilder(UtteranceBuilder):
    """RAVDESS (Livingstone and Russo, 2018): two sentences spoken by actors, each with one of eight emotions."""

    DATASET_NAME = "ravdess"
    PRETTY_NAME = "RAVDESS"
    LICENSE = "cc-by-nc-sa-4.0"
    LAYOUTS = ("ravdess",)
    BUILDER_CONFIGS = _configs("all", "emotion", layout="ravdess")


class EmodbBuilder(UtteranceBuilder):
    """EMO-DB (Burkhardt et al., 2005): ten German sentences spoken by actors, each with one of seven emotions."""

    DATASET_NAME = "emodb"
    PRETTY_NAME = "EMO-DB"
    LAYOUTS = ("emodb",)
    BUILDER_CONFIGS = _configs("all", "emotion", layout="emodb")


class PromptsBuilder(UtteranceBuilder):
    """Prompts of Asterisk: neutral sentences of four professional speakers in five languages."""

    DATASET_NAME = "prompts"
    PRETTY_NAME = "Prompts of Asterisk"
    LICENSE = "cc-by-sa-3.0"
    LAYOUTS = ("prompts",)
    BUILDER_CONFIGS = _configs("all", layout="prompts")


class MiniBuilder(UtteranceBuilder):
    """Training data of umons-base and umons-mini, from several corpora; see `layouts/mini.py`."""

    DATASET_NAME = "mini"
    PRETTY_NAME = "The training data of umons-base and umons-mini"
    LICENSE = "cc-by-nc-sa-4.0"
    LAYOUTS = ("mini",)
    BUILDER_CONFIGS = _configs("all", "emotion", "sentiment", layout="mini")


class ClipsBuilder(UtteranceBuilder):
    """Utterances of a folder of clips: sentiment in [-3, 3] and six emotions in [0, 3], where a table has them."""

    DATASET_NAME = "clips"
    PRETTY_NAME = "Clips"
    LAYOUTS = ("folder",)
    BUILDER_CONFIGS = _configs("all", "emotion", "sentiment-7", "sentiment-2", "sentiment", layout="folder")


BUILDERS = (
    ClipsBuilder,
    MoseiBuilder,
    MosiBuilder,
    MeldBuilder,
    GoEmotionsBuilder,
    RavdessBuilder,
    EmodbBuilder,
    PromptsBuilder,
    MiniBuilder,
)


def builder_class(layout: str) -> type[UtteranceBuilder]:
    """Return the builder of a layout. Raises ValueError for an unknown layout."""
    for builder in BUILDERS:
        if layout in builder.LAYOUTS:
            return builder
    known = [name for builder in BUILDERS for name in builder.LAYOUTS]
    raise ValueError(f"Unknown layout {layout!r}; use one of {', '.join(known)}.")
