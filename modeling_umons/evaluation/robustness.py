"""Robustness of a model to the recording: scores on distorted voices, and by group of speakers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import PreTrainedModel

from ..data.arguments import DataArguments
from ..data.collator import DrawnRows, UtteranceCollator
from ..data.rows import make_collator, usable_rows
from ..data.waveforms import (
    CODECS,
    NOISES,
    TELEPHONE_BAND,
    add_noise,
    change_gain,
    code,
    cut_speech,
    limit_band,
    make_babble,
    make_noise,
    reverberate,
)
from ..inference.logits import predict_in_row_order
from ..models.umons.processing_umons import UmonsProcessor
from ..tasks.task import Task
from ..utils.files import write_atomically
from ..utils.tables import markdown_table, print_table
from .bootstrap import interval_of_statistic
from .calibration import calibrate_splits
from .groups import group_metrics, measure_groups, read_groupings
from .report import to_json
from .report_tables import groups_markdown
from .splits import Split


PCM_SCALE = 2**15
ROW_COLUMN = "_row"

Distortion = Callable[[np.ndarray, int, np.random.Generator, Sequence[np.ndarray]], np.ndarray]


def _level(gain_db, waveform, rate, rng, voices):
    return (np.round(PCM_SCALE * change_gain(waveform, gain_db)) / PCM_SCALE).astype(np.float32)  # 16-bit samples


def _noise(color, snr_db, waveform, rate, rng, voices):
    return add_noise(waveform, make_noise(len(waveform), color, rng), snr_db, rate)


def _babble(snr_db, waveform, rate, rng, voices):
    return add_noise(waveform, make_babble(len(waveform), voices, rng), snr_db, rate)


def _room(seconds, waveform, rate, rng, voices):
    return reverberate(waveform, seconds, rate, rng)


def _band(waveform, rate, rng, voices):
    return limit_band(waveform, *TELEPHONE_BAND, rate)


def _codec(codec, waveform, rate, rng, voices):
    return code(waveform, codec, rate)


def _duration(seconds, waveform, rate, rng, voices):
    return cut_speech(waveform, seconds, rate, rng)


@dataclass(frozen=True)
class Condition:
    """
    Distortion of all rows of a split, in the place of a [`WaveformAugmentation`] of the collator.

    Attributes:
        kind: name of the changed property, with its unit.
        value: amount of the change.
        distort: the distortion.
    """

    kind: str
    value: float | str
    distort: Distortion | None = None

    def __call__(
        self, waveform: np.ndarray, draw: int, sampling_rate: int, voices: Sequence[np.ndarray] = ()
    ) -> np.ndarray:
        if self.distort is None:
            return waveform
        return self.distort(waveform, sampling_rate, np.random.default_rng(draw), voices)


CLEAN = Condition("clean", "")
CONDITIONS = (
    *(Condition("level, dB", gain, partial(_level, gain)) for gain in (-30, -20, -10, 10)),
    *(
        Condition(f"{color} noise, dB SNR", snr, partial(_noise, color, snr))
        for color in NOISES
        for snr in ((20, 10, 0) if color == "pink" else (20,))
    ),
    *(Condition("babble, dB SNR", snr, partial(_babble, snr)) for snr in (20, 10, 0)),
    *(Condition("room, s RT60", seconds, partial(_room, seconds)) for seconds in (0.2, 0.5)),
    Condition("band", "300 to 3,400 Hz", _band),
    *(Condition("codec", codec, partial(_codec, codec)) for codec in CODECS),
    *(Condition("cut, s", seconds, partial(_duration, seconds)) for seconds in (0.5, 1, 2)),
)


def measure_robustness(
    model: PreTrainedModel,
    processor: UmonsProcessor,
    task: Task,
    dataset: Dataset,
    data: DataArguments,
    batch_size: int = 32,
    num_bootstrap: int = 1000,
    group_by: Sequence[str] = (),
    conditions: Sequence[Condition] = CONDITIONS,
) -> dict[str, Any]:
    """
    Measure a model by voice only on distorted recordings, and on groups of the clean ones.

    Args:
        model: the model, on its device.
        processor: its processor.
        task: its task.
        dataset: labelled rows, with files in `data.audio_column`; texts are not read.
        data: names of the columns.
        batch_size: rows per batch. The voices of a batch are each other's babble.
        num_bootstrap: number of bootstrap samples of an interval, of videos (speakers).
        group_by: columns of groups, see [`read_groupings`].
        conditions: the distortions.

    Returns:
        `rows`; `metric`: mean area under the ROC curve of the emotions that occur, balanced accuracy of classes, or
        the correlation of sentiments; `clean` and `conditions`, each with its `score` and 95 % `interval`. A condition
        also has its mean absolute `shift` of the predictions (probabilities or sentiments) from the clean ones.
        `by_column`: the metric in groups of the clean recordings, as returned by [`measure_groups`].

    Raises:
        ValueError: the model has no audio input, or no row has audio.
    """
    rows, collator, groupings = _read_voices(model, processor, task, dataset, data, group_by)
    logits = {}
    for condition in (CLEAN, *conditions):
        collator.waveform_augmentation = condition
        logits[condition] = _predict(model, rows, collator, batch_size)
    combination = ("audio",) * len(rows)
    splits = {str(i): Split.of(task, rows, logits[condition], combination) for i, condition in enumerate(logits)}
    splits, _, _ = calibrate_splits(model.config, task, splits, refit=False)
    clean, *distorted = splits.values()

    def interval(statistic: Callable[[np.ndarray, Split], np.ndarray], split: Split) -> dict[str, Any]:
        score = float(statistic(np.ones((1, len(split))), split)[0])
        bounds = interval_of_statistic(lambda w: statistic(w, split), len(split), split.groups, num_bootstrap)
        return {"score": score, "interval": bounds}

    metric = _metric_name(task)

    def score(weights: np.ndarray, split: Split) -> np.ndarray:
        return group_metrics(task, weights, split)[metric]

    expected = _probabilities(task, clean.logits)
    measured = []
    for condition, split in zip(conditions, distorted, strict=True):
        shift = np.abs(_probabilities(task, split.logits) - expected).reshape(len(split), -1).mean(axis=1)
        mean = partial(lambda shift, weights, _: weights @ shift / weights.sum(axis=1), shift)
        measured.append({
            "kind": condition.kind,
            "value": condition.value,
            **interval(score, split),
            "shift": interval(mean, split)["score"],
        })  # fmt: skip
    return {
        "rows": len(rows),
        "metric": metric,
        "clean": interval(score, clean),
        "conditions": measured,
        "by_column": measure_groups(task, clean, groupings, num_bootstrap, (metric,)),
    }


def _read_voices(
    model: PreTrainedModel,
    processor: UmonsProcessor,
    task: Task,
    dataset: Dataset,
    data: DataArguments,
    group_by: Sequence[str],
) -> tuple[Dataset, UtteranceCollator, dict[str, tuple[str, ...]]]:
    """Return the decoded rows with audio, without texts and features, the collator of waveforms, and the groups."""
    config = model.config
    if "audio" not in config.modalities:
        raise ValueError(f"--robustness requires a model with audio; this one has {', '.join(config.modalities)}.")
    if data.audio_column not in dataset.column_names:
        raise ValueError(
            f"--robustness requires audio files, but there is no column {data.audio_column!r} (--audio_column)."
        )
    dataset = dataset.select(np.flatnonzero([value is not None for value in dataset[data.audio_column]]))
    groupings = read_groupings(dataset, group_by, data)
    dropped = {data.text_column, "text", "words", "audio_features", "video_features"} & set(dataset.column_names)
    dataset = dataset.remove_columns(sorted(dropped)).add_column(ROW_COLUMN, range(len(dataset)))
    collator = make_collator(processor, config, task, dataset.column_names, CLEAN)
    options = DataArguments(audio_column=data.audio_column, label_columns=data.label_columns)
    rows, problems = usable_rows(dataset, collator, processor, options, is_trained=True, more_columns=[ROW_COLUMN])
    if not len(rows):
        raise ValueError(f"--robustness: no row has audio that can be read. First problem: {[*problems, 'none'][0]}")
    kept = rows[ROW_COLUMN][:]
    return rows, collator, {column: tuple(names[row] for row in kept) for column, names in groupings.items()}


def _predict(model: PreTrainedModel, rows: Dataset, collator, batch_size: int) -> np.ndarray:
    @torch.inference_mode()
    def predict(sorted_rows) -> np.ndarray:
        logits = []
        loader = torch.utils.data.DataLoader(DrawnRows(sorted_rows.dataset), batch_size, collate_fn=collator)
        for batch in loader:
            inputs = {name: values.to(model.device) for name, values in batch.items() if name != "labels"}
            logits.append(model(**inputs).logits.float().cpu().numpy())
        return np.concatenate(logits)

    return predict_in_row_order(predict, rows.select_columns(collator.columns), collator)


def _metric_name(task: Task) -> str:
    if task.problem_type == "single_label_classification":
        return "balanced_accuracy"
    return "corr" if task.name == "sentiment" else "emotion_auroc"


def _probabilities(task: Task, logits: np.ndarray) -> np.ndarray:
    """Return probabilities (N, L), of emotions or classes, or sentiments (N,)."""
    if task.name == "sentiment":
        return logits.reshape(-1)
    logits = torch.from_numpy(logits)
    if task.problem_type == "single_label_classification":
        return logits.softmax(dim=1).numpy()
    return logits[:, task.labels.index("sentiment") + 1 if "sentiment" in task.labels else 0 :].sigmoid().numpy()


# Output


def write_robustness(folder: str | Path, results: Mapping[str, Any]) -> None:
    """Write robustness.json, robustness.md and robustness.png."""
    folder = Path(folder)
    header, rows = robustness_table(results)
    text = [
        "# Robustness",
        "",
        f"Predictions by voice only of {results['rows']} recordings, distorted. `{results['metric']}` with its 95 % "
        "bootstrap interval; shift is the mean absolute change of the predictions.",
        "",
        markdown_table(header, rows),
        "",
        *(
            line
            for name, found in results["by_column"].items()
            for part in groups_markdown(name, found)
            for line in (part, "")
        ),
        "![Robustness](robustness.png)",
    ]
    folder.mkdir(parents=True, exist_ok=True)
    draw_robustness(folder / "robustness.png", {results["metric"]: results})
    write_atomically(folder / "robustness.md", "\n".join(text) + "\n")
    write_atomically(folder / "robustness.json", to_json(results))


def print_robustness(results: Mapping[str, Any]) -> None:
    """Print the table of all conditions, and those of groups."""
    print_table(*robustness_table(results))
    for column, found in results["by_column"].items():
        print("\n\n".join(["", f"By {column}:", *groups_markdown(column, found)]))


def robustness_table(results: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return header and rows of a table of all conditions."""
    rows = [["clean", *_cells(results["clean"])]]
    rows += [[f"{record['kind']}: {record['value']}", *_cells(record)] for record in results["conditions"]]
    return ["condition", results["metric"], "95 % interval", "shift"], rows


def _cells(record: Mapping[str, Any]) -> list[str]:
    bounds = record["interval"]
    return [
        f"{record['score']:.3f}",
        "" if bounds is None else f"{bounds[0]:.3f} to {bounds[1]:.3f}",
        f"{record['shift']:.3f}" if "shift" in record else "",
    ]


def draw_robustness(path: Path, curves: Mapping[str, Mapping[str, Any]]) -> None:
    """Draw a panel for each kind of condition, with a curve for each named result; its clean score is a line."""
    from .report_plots import CURVE_COLORS, make_figure, save_figure

    kinds = list(dict.fromkeys(record["kind"] for found in curves.values() for record in found["conditions"]))
    figure = make_figure(2 * ((len(kinds) + 3) // 4) + 0.4 * (len(curves) > 1))
    axes = list(figure.subplots((len(kinds) + 3) // 4, 4, squeeze=False, sharey=True).flat)
    for axis in axes:
        axis.set_visible(False)
    for axis in axes[::4]:
        axis.set_ylabel(", ".join(dict.fromkeys(found["metric"] for found in curves.values())))
    for axis, kind in zip(axes, kinds, strict=False):
        axis.set_visible(True)
        for place, (name, found) in enumerate(curves.items()):
            records, color = (
                [r for r in found["conditions"] if r["kind"] == kind],
                CURVE_COLORS[place % len(CURVE_COLORS)],
            )
            places = [i + 0.12 * (place - (len(curves) - 1) / 2) for i in range(len(records))]
            axis.axhline(found["clean"]["score"], color=color, linewidth=1, linestyle="--", alpha=0.7)
            for x, record in zip(places, records, strict=True):
                if record["interval"] is not None:
                    axis.plot([x, x], record["interval"], color=color, linewidth=2, alpha=0.4)
            axis.plot(places, [record["score"] for record in records], "o-", color=color, ms=4, label=name)
            axis.set_xticks(range(len(records)), [str(record["value"]) for record in records])
            axis.set_xlim(-0.5, len(records) - 0.5)
        axis.set_title(kind, loc="left", fontsize=10)
    if len(curves) > 1:
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=9)
    save_figure(figure, path)
