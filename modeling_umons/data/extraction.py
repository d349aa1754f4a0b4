# Copyright 2026 The modeling_umons authors.
# SPDX-License-Identifier: MIT
"""Extraction of audio and video features of clips into Parquet shards: resumable; one process, several, or Ray."""

import csv
import hashlib
import io
import json
import os
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, wait
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from tqdm import tqdm
from transformers import PreTrainedConfig

from ..models.umons.configuration_umons import UmonsVideoTowerConfig
from ..models.umons.decoding_umons import DecodingWorker
from ..models.umons.encoders_umons import UmonsVideoEncoder
from ..models.umons.feature_extraction_umons import UmonsFeatureExtractor, is_silent
from ..models.umons.media_umons import WHOLE_S
from ..models.umons.modeling_tbje import (
    UmonsForSequenceClassification,
    UmonsModel,
    UmonsPreTrainedModel,
    UmonsVideoTower,
)
from ..models.umons.processing_umons import UmonsProcessor
from ..models.umons.video_processing_umons import UmonsVideoProcessor
from ..utils.files import atomic_path, write_atomically
from ..utils.hub_files import find_model
from ..utils.workers import CONTEXT, limit_threads, worker_pool
from .builders import describe_error
from .clip_tables import ClipTable, Shard, plan_shards, read_clip_table, typed_columns
from .schema import FEATURE_COLUMNS, make_features, to_table


SETTINGS_NAME = "extraction.json"
FAILURES_NAME = "failures.csv"
FAILURES_KEY = b"failures"  # in the metadata of a shard, so that both are written together
POLL_S = 0.2
# Sizes of a model of which only the encoder is used.
SMALL = {"hidden_size": 1, "num_attention_heads": 1, "intermediate_size": 1, "num_hidden_layers": 1}


# Settings


@dataclass(frozen=True)
class ExtractionSettings:
    """
    Settings that determine the features.

    Attributes:
        modalities: any of text (which is copied, with `words`), audio and video.
        max_length: audio frames and video clips kept of a row; `None` keeps the number of the extractors, 60.
        tower_weights: a state dict of torchvision's `r2plus1d_18`, or the name of weights of torchvision.
        model: a saved model, with its extractors, its encoders and, without `tower_weights`, its video tower.
        dtype: of the video tower, "float32" or "bfloat16".
        shard_size: rows of a shard.
        audio_encoder: a pretrained audio encoder (a folder or Hub id), used in place of log-mel frames.
        average_audio: whether to average the output of `audio_encoder` over time.
        video_encoder: a pretrained video encoder, used in place of the video tower.

    Raises:
        ValueError: nothing is to be extracted, video has no tower, or a tower or an encoder lacks its modality.
    """

    modalities: tuple[str, ...] = ("text", "audio")
    max_length: int | None = None
    tower_weights: str | None = None
    model: str | None = None
    dtype: str = "float32"
    shard_size: int = 256
    audio_encoder: str | None = None
    video_encoder: str | None = None
    average_audio: bool = False

    def __post_init__(self):
        if self.model:
            object.__setattr__(self, "model", find_model(self.model))
        if not {"audio", "video"} & set(self.modalities):
            raise ValueError("--modalities text leaves nothing to extract: add audio, video or both.")
        if "video" in self.modalities and not (self.tower_weights or self.model or self.video_encoder):
            raise ValueError(
                "Video features need a video tower: pass --tower_weights (a state dict of torchvision's r2plus1d_18, "
                "or KINETICS400_V1), --video_encoder, or a --model that has one."
            )
        if self.tower_weights and "video" not in self.modalities:
            raise ValueError("--tower_weights is given, but video is not among the --modalities: add it.")
        for modality, encoder in (("audio", self.audio_encoder), ("video", self.video_encoder)):
            if encoder and modality not in self.modalities:
                raise ValueError(
                    f"--{modality}_encoder is given, but {modality} is not among the --modalities: add it."
                )
            if encoder and self.model:
                raise ValueError(f"--{modality}_encoder and --model are both given: pass one of them.")
        if self.average_audio and not self.audio_encoder:
            raise ValueError("--average_audio averages the output of --audio_encoder, which is not given.")
        if self.video_encoder and self.tower_weights:
            raise ValueError("--video_encoder and --tower_weights are both given: pass one of them.")
        for name in ("max_length", "shard_size"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"--{name} is {getattr(self, name)}; it must be at least 1.")

    def feature_extractor(self) -> UmonsFeatureExtractor:
        """Load the extractor of log-mel frames."""
        extractor = UmonsFeatureExtractor.from_pretrained(self.model) if self.model else UmonsFeatureExtractor()
        extractor.max_length = self.max_length or extractor.max_length
        return extractor

    def encoder_features(self) -> "EncoderFeatures | None":
        """Load the audio encoder; `None` if the features are log-mel frames."""
        if "audio" not in self.modalities:
            return None
        if self.audio_encoder:
            options = {} if self.max_length is None else {"max_audio_length": self.max_length}
            average = {"average_audio": self.average_audio}
            model = UmonsModel.from_encoders(audio=self.audio_encoder, **options, **average, **SMALL)
            return EncoderFeatures(model, UmonsProcessor.from_encoders(audio=self.audio_encoder, **options))
        # A folder may contain the settings of extractors only, and no model.
        if not self.model or not PreTrainedConfig.get_config_dict(self.model)[0].get("audio_encoder"):
            return None
        model = UmonsForSequenceClassification.from_pretrained(self.model, use_safetensors=True)
        processor = UmonsProcessor.from_pretrained(self.model)
        processor.max_audio_length = min(self.max_length or model.config.max_audio_length, processor.max_audio_length)
        return EncoderFeatures(model, processor)

    def video_processor(self) -> UmonsVideoProcessor:
        """Load the processor of video frames."""
        if self.video_encoder:
            length = {} if self.max_length is None else {"max_video_length": self.max_length}
            return UmonsProcessor.from_encoders(video=self.video_encoder, **length).video_processor
        options = {} if self.max_length is None else {"max_clips": self.max_length}
        load = (
            UmonsVideoProcessor.from_pretrained if self.model else lambda _, **options: UmonsVideoProcessor(**options)
        )
        return load(self.model, **options)

    def tower(self) -> UmonsVideoTower | UmonsVideoEncoder:
        """Load the video tower or encoder. Raises ValueError for a model without one."""
        if self.video_encoder:
            tower = UmonsModel.from_encoders(video=self.video_encoder, **SMALL).encoders["video"]
        elif self.tower_weights:
            tower = UmonsVideoTower(UmonsVideoTowerConfig())
            tower.load_torchvision_weights(self.tower_weights)
        else:
            model = UmonsForSequenceClassification.from_pretrained(self.model, use_safetensors=True).base_model
            tower = dict(model.encoders).get("video", model.video_tower)
            if tower is None:
                raise ValueError(f"The model {self.model} has no video tower: pass --tower_weights too.")
        # In bfloat16 convolutions are fastest with channels last, in float32 (on CPUs) with channels first.
        memory_format = torch.channels_last_3d if self.dtype == "bfloat16" else torch.contiguous_format
        return tower.eval().to(dtype=getattr(torch, self.dtype), memory_format=memory_format)

    def record(self, clips: ClipTable) -> dict[str, Any]:
        """Return everything that the shards depend on, as JSON."""
        encoder = self.encoder_features()
        record = {
            "input": f"{len(clips.rows)} rows, sha256 {clips.fingerprint()}",
            "shard_size": self.shard_size,
            "modalities": sorted(self.modalities),
            **({"feature_extractor": self.feature_extractor().to_dict()} if encoder is None else encoder.record()),
        }
        if "video" in self.modalities:
            weights = Path(self.tower_weights or Path(self.model or "", "model.safetensors"))
            if self.video_encoder:
                tower = _hash_weights(self.tower())
            elif weights.is_file():
                with open(weights, "rb") as file:
                    tower = hashlib.file_digest(file, "sha256").hexdigest()
            else:
                tower = str(self.tower_weights or self.model)
            record |= {"video_processor": self.video_processor().to_dict(), "tower": tower, "dtype": self.dtype}
        return json.loads(json.dumps(record, default=str))


# Rows


class EncoderFeatures:
    """
    Features of the pretrained audio encoder of a UMONS model, the same that the model computes from the waveform.

    Args:
        model: a model with an audio encoder.
        processor: processor of the model.
    """

    def __init__(self, model: UmonsPreTrainedModel, processor: UmonsProcessor):
        self.model, self.processor = model.eval(), processor
        self.size = model.config.audio_feature_size
        self.sampling_rate = processor.feature_extractor.sampling_rate

    @torch.inference_mode()
    def __call__(self, audio: np.ndarray) -> np.ndarray:
        """Map (samples,) at `sampling_rate`, not silent, to (T, size) float32."""
        inputs = self.processor(audio=[audio], sampling_rate=self.sampling_rate, return_tensors="pt")
        outputs = self.model.get_audio_features(**inputs.to(self.model.device))
        steps = int(outputs.attention_mask.sum())
        return outputs.pooler_output[0, :steps].float().cpu().numpy()

    def record(self) -> dict[str, Any]:
        """Return everything that the features depend on."""
        encoder = self.model.base_model.encoders["audio"]
        record = {"audio_encoder": _hash_weights(encoder), "max_audio_length": self.processor.max_audio_length}
        return record | ({"average_audio": True} if self.model.config.average_audio else {})


def _hash_weights(model: torch.nn.Module) -> str:
    digest = hashlib.sha256()
    for name, weight in model.state_dict().items():
        digest.update(name.encode() + weight.cpu().float().numpy().tobytes())
    return digest.hexdigest()


class RowExtractor:
    """
    Extractor of the columns of `make_features(audio_size, video_size)` from a row of a [`ClipTable`].

    Args:
        settings: features to extract.
        worker: number of this worker on its machine, which selects the GPU.
    """

    def __init__(self, settings: ExtractionSettings, worker: int = 0):
        self.modalities = settings.modalities
        self.decoder = DecodingWorker()
        num_gpus = torch.cuda.device_count()
        self.device = f"cuda:{worker % num_gpus}" if num_gpus else "cpu"
        self.encoder = settings.encoder_features()
        if self.encoder is not None:
            self.encoder.model.to(self.device)
            self.audio_size, self.sampling_rate = self.encoder.size, self.encoder.sampling_rate
            self.max_duration = max(WHOLE_S, self.encoder.processor.max_duration)
        else:
            extractor = self.feature_extractor = settings.feature_extractor()
            self.audio_size, self.sampling_rate = extractor.frame_size, extractor.sampling_rate
            # Twice the span of the features, because leading silence is trimmed: no file may fill the memory.
            self.max_duration = max(WHOLE_S, 2 * extractor.max_length * extractor.frame_duration)
        self.video_size, self.video_options = UmonsVideoTowerConfig().hidden_size, {}
        if "video" in self.modalities:
            cut = self.video_processor = settings.video_processor()
            self.video_options = {"frame_rate": cut.frame_rate, "size": (cut.size["height"], cut.size["width"])}
            span = ((cut.max_clips - 1) * cut.clip_stride + cut.clip_length) / cut.frame_rate
            self.max_duration = max(self.max_duration, span)
            self.tower = settings.tower().to(self.device)
            if isinstance(self.tower, UmonsVideoEncoder):
                self.video_size = self.tower.model.config.hidden_size

    def __call__(self, clips: ClipTable, index: int) -> tuple[dict[str, Any], list[str]]:
        """
        Extract one row.

        Returns:
            the columns, features as float32 arrays (T, D), and a line for each feature that is null because the clip
            lacks its stream.

        Raises:
            OSError, ValueError: the row has none of the features, or a value that is not of its type.
        """
        row = typed_columns(clips.rows[index], with_text="text" in self.modalities)
        # The official table of MOSEI has 223 segments that begin up to half a second before their video.
        start = 0.0 if row["start"] is not None and -0.5 < row["start"] < 0 else row["start"]
        clip = self.decoder.read_clip(
            clips.source(index),
            start=start,
            end=row["end"],
            sampling_rate=self.sampling_rate,
            audio="audio" in self.modalities,
            video="video" in self.modalities,
            max_duration=self.max_duration,
            **self.video_options,
        )
        features, problems = dict.fromkeys(FEATURE_COLUMNS), []
        for modality, stream, extract in (
            ("audio", clip.audio, self._extract_audio),
            ("video", clip.frames, self._extract_video),
        ):
            if modality in self.modalities:
                try:
                    if stream is None:
                        raise ValueError("the clip lacks this stream")
                    values, times = extract(stream)
                    features[f"{modality}_features"], row[f"{modality}_times"] = values, (start or 0.0) + times
                except ValueError as error:
                    problems.append(f"{modality}_features is null: {error}")
        if all(value is None for value in features.values()):
            raise ValueError("; ".join(problems))
        return {**row, **features}, problems

    def _extract_audio(self, audio: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """
        Map (samples,) to (T, 80) float32, or (T, size) of an encoder, and the middles (T,) in seconds. Raises
        ValueError for silence.
        """
        if is_silent(audio):
            raise ValueError("the audio is silent")
        if self.encoder is not None:
            values = self.encoder(audio)
            return values, self.encoder.processor.audio_times(len(values))
        return self.feature_extractor.extract_with_times(audio, self.sampling_rate)

    @torch.inference_mode()
    def _extract_video(self, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """
        Map (frames, height, width, 3) uint8 to (clips, 512) float32, or (clips, size) of an encoder, and the middles
        (clips,) in seconds.
        """
        clips = self.video_processor([frames], return_tensors="pt")["pixel_values_videos"][0]
        return self.tower(clips.to(self.device)).float().cpu().numpy(), self.video_processor.clip_times(len(clips))


# Shards


class ShardExtractor:
    """
    Extractor and writer of whole shards: what local workers run, and an actor for `ray.data.Dataset.map_batches`.

    Args:
        clips: the input.
        settings: features to extract.
        output: folder of the shards.
        worker: number of this worker on its machine, which selects the GPU.
        on_row: called after each row.
    """

    def __init__(
        self,
        clips: ClipTable,
        settings: ExtractionSettings,
        output: str,
        worker: int = 0,
        on_row: Callable[[], Any] = lambda: None,
    ):
        self.clips, self.output, self.on_row = clips, Path(output), on_row
        self.shards = plan_shards(clips, settings.shard_size)
        self.extract = RowExtractor(settings, worker)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Write the shards numbered `batch["shard"]` that are missing; return the numbers and sizes of all."""
        shards = [self.shards[i] for i in batch["shard"]]
        for shard in shards:
            if not (self.output / shard.name).exists():  # an actor that is restarted gets its shards again
                self._write(shard)
        return {"shard": batch["shard"], "rows": np.array([len(shard.rows) for shard in shards])}

    def _write(self, shard: Shard) -> None:
        rows, failures = [], []
        for index in shard.rows:
            try:
                row, problems = self.extract(self.clips, index)
                rows.append(row)
            except Exception as error:  # whatever a damaged file does to its decoder: the other rows are still wanted
                problems = [describe_error(error)]
            failures += [(index, self.clips.rows[index]["file"], problem) for problem in problems]
            self.on_row()
        table = to_table(rows, make_features(self.extract.audio_size, self.extract.video_size))
        schema = table.schema.with_metadata({**table.schema.metadata, FAILURES_KEY: json.dumps(failures)})
        path = self.output / shard.name
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary, pq.ParquetWriter(temporary, schema) as writer:
            if rows:  # `datasets` reads a file without row groups, but no row group without rows
                writer.write_table(table.cast(schema))


@dataclass
class ExtractionReport:
    """Rows written and left out by all runs into a folder, and (row, file, reason) of problems."""

    num_rows: int
    num_left_out: int
    failures: list[tuple[int, str, str]]


def extract_features(
    source: str | Path,
    output: str | Path,
    settings: ExtractionSettings,
    num_proc: int | None = None,
    engine: str = "local",
    gpus_per_worker: float = 1.0,
) -> ExtractionReport | None:
    """
    Write the features of all clips of `source` to Parquet shards in `output`, and the problems to failures.csv. Shards
    of an earlier run are kept. Under a launcher that sets RANK and WORLD_SIZE, the ranks share the shards.

    Args:
        source: input of [`read_clip_table`].
        output: a folder, which `datasets.load_dataset` reads afterwards.
        settings: features to extract.
        num_proc: worker processes, or actors of Ray; `None` is one for each GPU, or one.
        engine: "local" or "ray".
        gpus_per_worker: GPUs of an actor of Ray, such as 0.25 for four actors on each GPU.

    Returns:
        a report; `None` on all ranks but the first.

    Raises:
        ValueError: the settings are wrong, or differ from those of `output`; OSError: the input cannot be read.
    """
    rank, world_size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if num_proc is not None and num_proc < 1:
        raise ValueError(f"--num_proc is {num_proc}; it must be at least 1.")
    if gpus_per_worker <= 0:
        raise ValueError(f"--gpus_per_worker is {gpus_per_worker:g}; it must be above 0.")
    if engine == "ray" and world_size > 1:
        raise ValueError("Ray starts its own processes: start --engine ray once, without a launcher.")
    output = Path(output).absolute()
    clips = read_clip_table(source)
    shards = plan_shards(clips, settings.shard_size)
    if "video" in settings.modalities:
        settings.tower()  # its errors appear here, once, and not in each worker
    _check_output(output, settings.record(clips))

    mine = range(rank, len(shards), world_size)
    pending = [i for i in mine if not (output / shards[i].name).exists()]
    total = sum(len(shards[i].rows) for i in mine)
    done = total - sum(len(shards[i].rows) for i in pending)
    run = partial(_run_ray, gpus_per_worker=gpus_per_worker) if engine == "ray" else _run_local
    if pending:
        with tqdm(total=total, initial=done, unit="clip", desc="features", disable=True if rank else None) as bar:
            run(clips, settings, str(output), pending, num_proc, bar)
    if rank > 0:
        return None
    while not all((output / shard.name).exists() for shard in shards):
        time.sleep(POLL_S)  # other ranks are still running; a launcher ends this one if they die
    return _report(output, shards)


def _check_output(output: Path, record: dict[str, Any]) -> None:
    """Write the settings for later runs; refuse a folder with features of other settings."""
    path = output / SETTINGS_NAME
    has_data = any((output / "data").glob("*"))  # checked first: another rank may be ahead
    if not path.is_file():
        if has_data:
            raise ValueError(f"{output / 'data'} holds other files than features: choose a new folder as --output.")
        write_atomically(path, json.dumps(record, indent=2) + "\n")
    earlier = json.loads(path.read_text(encoding="utf-8"))
    if differing := [name for name in {**earlier, **record} if earlier.get(name) != record.get(name)]:
        changes = "; ".join(_describe_change(name, earlier.get(name), record.get(name)) for name in differing)
        raise ValueError(
            f"{output} holds features of a run with other settings ({changes}): resume it with the same settings, or "
            "choose a new folder as --output."
        )


def _describe_change(name: str, before: Any, now: Any) -> str:
    if isinstance(before, dict) and isinstance(now, dict):
        keys = [key for key in {**before, **now} if before.get(key) != now.get(key)]
        return ", ".join(_describe_change(f"{name}.{key}", before.get(key), now.get(key)) for key in keys)
    return f"{name} was {before}, is {now}"


def _report(output: Path, shards: list[Shard]) -> ExtractionReport:
    num_rows, failures = 0, []
    for shard in shards:
        metadata = pq.read_metadata(output / shard.name)
        num_rows += metadata.num_rows
        failures += [tuple(failure) for failure in json.loads(metadata.metadata[FAILURES_KEY])]
    failures.sort(key=lambda failure: failure[0])
    table = io.StringIO(newline="")
    csv.writer(table).writerows([("row", "file", "reason"), *failures])
    write_atomically(output / FAILURES_NAME, table.getvalue())
    for leftover in (output / "data").glob(".*.part*"):  # of runs that were killed
        leftover.unlink(missing_ok=True)
    return ExtractionReport(num_rows, sum(len(shard.rows) for shard in shards) - num_rows, failures)


# Engines: this process, local workers, Ray


def _run_local(clips, settings, output, pending: list[int], num_proc: int | None, bar: tqdm) -> None:
    local_rank, is_ranked = int(os.environ.get("LOCAL_RANK", 0)), int(os.environ.get("WORLD_SIZE", 1)) > 1
    num_proc = min(num_proc or (1 if is_ranked else max(1, torch.cuda.device_count())), len(pending))
    if num_proc == 1:
        if is_ranked:
            limit_threads()
        ShardExtractor(clips, settings, output, local_rank, bar.update)({"shard": pending})
        return
    num_started, num_done = CONTEXT.Value("q", local_rank * num_proc), CONTEXT.Value("q", 0)
    with worker_pool(num_proc, _build_extractor, clips, settings, output, num_started, num_done) as pool:
        waiting = {pool.submit(_extract_shard, shard) for shard in pending}
        first = bar.n
        while waiting:
            finished, waiting = wait(waiting, timeout=POLL_S, return_when=FIRST_COMPLETED)
            bar.update(first + num_done.value - bar.n)
            for future in finished:
                future.result()


def _build_extractor(clips, settings, output, num_started, num_done) -> None:
    global _extractor

    def count():
        with num_done.get_lock():
            num_done.value += 1

    with num_started.get_lock():
        worker = num_started.value
        num_started.value += 1
    _extractor = ShardExtractor(clips, settings, output, worker, on_row=count)


def _extract_shard(shard: int) -> None:
    _extractor({"shard": [shard]})


class _RayExtractor(ShardExtractor):
    """Actor that computes on one thread, as local workers do."""

    def __init__(self, *arguments: Any):
        limit_threads()
        super().__init__(*arguments)


def _run_ray(
    clips, settings, output, pending: list[int], num_proc: int | None, bar: tqdm, gpus_per_worker: float
) -> None:
    """Run actors on all GPUs of the cluster, or `num_proc` on CPUs. Several machines must share the files."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ValueError('--engine ray needs Ray, which is not installed: pip install "ray[data]".') from error

    if not ray.is_initialized():
        local = {"include_dashboard": False, "_node_ip_address": "127.0.0.1"}
        ray.init(**({} if "RAY_ADDRESS" in os.environ else local))
    ray.data.DataContext.get_current().enable_progress_bars = False  # `bar` counts clips
    num_gpus = int(ray.cluster_resources().get("GPU", 0)) if "video" in settings.modalities else 0
    results = ray.data.from_items(
        [{"shard": shard} for shard in pending], override_num_blocks=len(pending)
    ).map_batches(
        _RayExtractor,
        fn_constructor_args=(clips, settings, output),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(
            size=min(num_proc or max(1, int(num_gpus / gpus_per_worker)), len(pending))
        ),
        num_cpus=1,
        num_gpus=gpus_per_worker if num_gpus else 0,
        max_restarts=3,  # an actor that dies is restarted, and gets its shard again
        max_task_retries=3,
    )
    for result in results.iter_rows():
        bar.update(int(result["rows"]))
