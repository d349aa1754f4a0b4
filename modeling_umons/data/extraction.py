# Copyright 2026 The modeling_umons authors.
# SPDX-License-Identifier: MIT
"""From clips to Parquet shards of log-mel frames and R(2+1)D features: resumable, in one process, several, or Ray."""

import csv
import hashlib
import json
import os
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from tqdm import tqdm
from transformers import PreTrainedConfig

from ..models.umons.configuration_umons import UmonsVideoTowerConfig
from ..models.umons.encoders_umons import UmonsVideoEncoder
from ..models.umons.feature_extraction_umons import UmonsFeatureExtractor
from ..models.umons.media_umons import WHOLE_S, read_clip
from ..models.umons.modeling_tbje import (
    UmonsForSequenceClassification,
    UmonsModel,
    UmonsPreTrainedModel,
    UmonsVideoTower,
)
from ..models.umons.processing_umons import UmonsProcessor
from ..models.umons.video_processing_umons import UmonsVideoProcessor
from .clip_tables import ClipTable, Shard, plan_shards, read_clip_table, typed_columns
from .schema import make_features, to_table


SETTINGS_NAME = "extraction.json"
FAILURES_NAME = "failures.csv"
FAILURES_KEY = b"failures"  # in a shard's own metadata, so that it is there exactly when the shard is
POLL_S = 0.2
# Sizes of a model of which only the encoder is of interest.
SMALL = {"hidden_size": 1, "num_attention_heads": 1, "intermediate_size": 1, "num_hidden_layers": 1}


@dataclass(frozen=True)
class ExtractionSettings:
    """
    What decides about the features.

    Attributes:
        modalities: any of text (which is copied, with `words`), audio and video.
        max_length: frames of audio and clips of video kept of a row; `None` is what the extractors keep, 60.
        tower_weights: a state dict of torchvision's `r2plus1d_18`, or the name of weights of torchvision.
        model: a saved model, whose extractors serve, and its encoders and, without `tower_weights`, video tower.
        dtype: of the video tower, "float32" or "bfloat16".
        shard_size: rows of a shard.
        audio_encoder: a pretrained encoder of sound (a folder or Hub id), whose sequence takes the place of log-mel frames.
        video_encoder: one of clips of pictures, in place of the video tower.

    Raises:
        ValueError: nothing is to be extracted, or video without a tower, or a tower or an encoder without its modality.
    """

    modalities: tuple[str, ...] = ("text", "audio")
    max_length: int | None = None
    tower_weights: str | None = None
    model: str | None = None
    dtype: str = "float32"
    shard_size: int = 256
    audio_encoder: str | None = None
    video_encoder: str | None = None

    def __post_init__(self):
        if not {"audio", "video"} & set(self.modalities):
            raise ValueError("--modalities text leaves nothing to extract: add audio, video or both.")
        if "video" in self.modalities and not (self.tower_weights or self.model or self.video_encoder):
            raise ValueError(
                "Video features need a video tower: give --tower_weights (a state dict of torchvision's r2plus1d_18, or "
                "KINETICS400_V1) or a --model that has one."
            )
        if self.tower_weights and "video" not in self.modalities:
            raise ValueError("--tower_weights is given, but video is not among the --modalities: add it.")
        for modality, encoder in (("audio", self.audio_encoder), ("video", self.video_encoder)):
            if encoder and modality not in self.modalities:
                raise ValueError(
                    f"--{modality}_encoder is given, but {modality} is not among the --modalities: add it."
                )
            if encoder and self.model:
                raise ValueError(f"--{modality}_encoder and --model are both given: a model has its own, or none.")
        if self.video_encoder and self.tower_weights:
            raise ValueError("--video_encoder and --tower_weights are both given: pass one of them.")
        for name in ("max_length", "shard_size"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"--{name} is {getattr(self, name)}; it must be at least 1.")

    def listener(self) -> "EncoderListener | None":
        """What hears by a pretrained encoder; `None` where sound becomes log-mel frames."""
        if "audio" not in self.modalities:
            return None
        if self.audio_encoder:
            options = {} if self.max_length is None else {"max_audio_length": self.max_length}
            model = UmonsModel.from_encoders(audio=self.audio_encoder, **options, **SMALL)
            return EncoderListener(model, UmonsProcessor.from_encoders(audio=self.audio_encoder, **options))
        # A folder may have the settings of extractors alone, and no model.
        if not self.model or not PreTrainedConfig.get_config_dict(self.model)[0].get("audio_encoder"):
            return None
        model = UmonsForSequenceClassification.from_pretrained(self.model)
        processor = UmonsProcessor.from_pretrained(self.model)
        processor.max_audio_length = min(self.max_length or model.config.max_audio_length, processor.max_audio_length)
        return EncoderListener(model, processor)

    def feature_extractor(self) -> UmonsFeatureExtractor:
        extractor = UmonsFeatureExtractor.from_pretrained(self.model) if self.model else UmonsFeatureExtractor()
        extractor.max_length = self.max_length or extractor.max_length
        return extractor

    def video_processor(self) -> UmonsVideoProcessor:
        if self.video_encoder:
            length = {} if self.max_length is None else {"max_video_length": self.max_length}
            return UmonsProcessor.from_encoders(video=self.video_encoder, **length).video_processor
        options = {} if self.max_length is None else {"max_clips": self.max_length}
        return (
            UmonsVideoProcessor.from_pretrained(self.model, **options)
            if self.model
            else UmonsVideoProcessor(**options)
        )

    def tower(self) -> UmonsVideoTower | UmonsVideoEncoder:
        """What makes features of clips."""
        if self.video_encoder:
            tower = UmonsModel.from_encoders(video=self.video_encoder, **SMALL).encoders["video"]
        elif self.tower_weights:
            tower = UmonsVideoTower(UmonsVideoTowerConfig())
            tower.load_torchvision_weights(self.tower_weights)
        else:
            model = UmonsForSequenceClassification.from_pretrained(self.model).base_model
            tower = dict(model.encoders).get("video", model.video_tower)
            if tower is None:
                raise ValueError(f"The model {self.model} has no video tower: give --tower_weights too.")
        # In bfloat16 convolutions are fastest with channels last, in float32 (on CPUs) with channels first.
        memory_format = torch.channels_last_3d if self.dtype == "bfloat16" else torch.contiguous_format
        return tower.eval().to(dtype=getattr(torch, self.dtype), memory_format=memory_format)

    def record(self, clips: ClipTable) -> dict[str, Any]:
        """What the files of a run depend on, as JSON has it."""
        record = {
            "input": f"{len(clips.rows)} rows, sha256 {clips.fingerprint()}",
            "shard_size": self.shard_size,
            "modalities": sorted(self.modalities),
        }
        listener = self.listener()
        record |= {"feature_extractor": self.feature_extractor().to_dict()} if listener is None else listener.record()
        if "video" in self.modalities:
            weights = Path(self.tower_weights or Path(self.model or "", "model.safetensors"))
            record |= {
                "video_processor": self.video_processor().to_dict(),
                "tower": _sha256(weights) if weights.is_file() else str(self.tower_weights or self.model),
                **({"tower": _digest(self.tower())} if self.video_encoder else {}),
                "dtype": self.dtype,
            }
        return json.loads(json.dumps(record, default=str))


class EncoderListener:
    """
    The pretrained encoder of sound of a UMONS model, by itself: what it gives is what the model, given the sound, would
    make of it first.

    Args:
        model: has an audio encoder.
        processor: belongs to it.
    """

    def __init__(self, model: UmonsPreTrainedModel, processor: UmonsProcessor):
        self.model, self.processor = model.eval(), processor
        self.size = model.config.audio_feature_size
        self.sampling_rate = processor.feature_extractor.sampling_rate

    @torch.inference_mode()
    def __call__(self, audio: np.ndarray) -> np.ndarray:
        """(samples,) at `sampling_rate` to (T, size) float32. Raises ValueError where there is nothing to hear."""
        if not np.any(audio):
            raise ValueError("the sound is silent throughout")
        inputs = self.processor(audio=[audio], sampling_rate=self.sampling_rate, return_tensors="pt")
        heard = self.model.get_audio_features(**inputs.to(self.model.device))
        steps = int(heard.attention_mask.sum())
        return heard.pooler_output[0, :steps].float().cpu().numpy()

    def record(self) -> dict[str, Any]:
        """What the features depend on."""
        encoder = self.model.base_model.encoders["audio"]
        return {"audio_encoder": _digest(encoder), "max_audio_length": self.processor.max_audio_length}


def _digest(model: torch.nn.Module) -> str:
    digest = hashlib.sha256()
    for name, weight in model.state_dict().items():
        digest.update(name.encode() + weight.cpu().float().numpy().tobytes())
    return digest.hexdigest()


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class RowExtractor:
    """
    From a row of a [`ClipTable`] to the columns of `make_features(audio_size, video_size)`.

    Args:
        settings: what to extract.
        worker: number of this worker on its machine, which chooses among the GPUs.
    """

    def __init__(self, settings: ExtractionSettings, worker: int = 0):
        self.with_text = "text" in settings.modalities
        self.wants_audio, self.wants_video = "audio" in settings.modalities, "video" in settings.modalities
        num_gpus = torch.cuda.device_count()
        self.device = f"cuda:{worker % num_gpus}" if num_gpus else "cpu"
        self.listener = settings.listener()
        if self.listener is not None:
            self.listener.model.to(self.device)
            self.audio_size, self.sampling_rate = self.listener.size, self.listener.sampling_rate
            self.max_duration = max(WHOLE_S, self.listener.processor.max_duration)
        else:
            extractor = self.feature_extractor = settings.feature_extractor()
            self.audio_size, self.sampling_rate = extractor.frame_size, extractor.sampling_rate
            # Twice what the features span, for silence at the beginning is trimmed: no file may fill the memory.
            self.max_duration = max(WHOLE_S, 2 * extractor.max_length * extractor.frame_duration)
        self.video_size = UmonsVideoTowerConfig().hidden_size
        if self.wants_video:
            cut = self.video_processor = settings.video_processor()
            span = ((cut.max_clips - 1) * cut.clip_stride + cut.clip_length) / cut.frame_rate
            self.max_duration = max(self.max_duration, span)
            self.tower = settings.tower().to(self.device)
            if isinstance(self.tower, UmonsVideoEncoder):
                self.video_size = self.tower.model.config.hidden_size

    def __call__(self, clips: ClipTable, index: int) -> tuple[dict[str, Any], list[str]]:
        """
        The columns of one row, features as float32 arrays (T, D), and a line for each feature that is null because its
        part of the clip is missing.

        Raises:
            OSError, ValueError: the row has none of the features, or a value that is not of its type.
        """
        row = typed_columns(clips.rows[index], with_text=self.with_text)
        # The official table of MOSEI has 223 segments that begin up to half a second before their video.
        start = 0.0 if row["start"] is not None and -0.5 < row["start"] < 0 else row["start"]
        clip = self._decode(clips.source(index), start, row["end"])
        features, problems = {"audio_features": None, "video_features": None}, []
        for name, is_wanted, what, extract in (
            ("audio_features", self.wants_audio, clip.audio, self._listen),
            ("video_features", self.wants_video, clip.frames, self._look),
        ):
            if is_wanted:
                try:
                    if what is None:
                        raise ValueError("the clip lacks this stream")
                    features[name] = extract(what)
                except ValueError as error:
                    problems.append(f"{name} is null: {error}")
        if all(value is None for value in features.values()):
            raise ValueError("; ".join(problems))
        return {**row, **features}, problems

    def _decode(self, source: str | bytes, start: float | None, end: float | None):
        options = {}
        if self.wants_video:
            size = self.video_processor.size
            options = {"frame_rate": self.video_processor.frame_rate, "size": (size["height"], size["width"])}
        return read_clip(
            source,
            start=start,
            end=end,
            sampling_rate=self.sampling_rate,
            audio=self.wants_audio,
            video=self.wants_video,
            max_duration=self.max_duration,
            **options,
        )

    def _listen(self, audio: np.ndarray) -> np.ndarray:
        """(samples,) to (T, 80) float32, or (T, size) of an encoder."""
        if self.listener is not None:
            return self.listener(audio)
        return self.feature_extractor([audio], sampling_rate=self.sampling_rate)["input_features"][0]

    @torch.inference_mode()
    def _look(self, frames: np.ndarray) -> np.ndarray:
        """(frames, height, width, 3) uint8 to (clips, 512) float32, or (clips, size) of an encoder."""
        clips = self.video_processor([frames], return_tensors="pt")["pixel_values_videos"][0]
        return self.tower(clips.to(self.device)).float().cpu().numpy()


class ShardExtractor:
    """
    Extracts and writes whole shards. It is an actor for `ray.data.Dataset.map_batches`, and what local processes run.

    Args:
        clips: the input.
        settings: what to extract.
        output: the folder of the shards.
        worker: number of this worker on its machine, which chooses among the GPUs.
        num_threads: CPU threads; `None` is as many as torch takes.
        on_row: called after each row.
    """

    def __init__(
        self,
        clips: ClipTable,
        settings: ExtractionSettings,
        output: str,
        worker: int = 0,
        num_threads: int | None = None,
        on_row: Callable[[], Any] = lambda: None,
    ):
        if num_threads is not None:
            torch.set_num_threads(num_threads)
        self.clips, self.output, self.on_row = clips, Path(output), on_row
        self.shards = plan_shards(clips, settings.shard_size)
        self.extract = RowExtractor(settings, worker)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Writes the shards whose numbers are `batch["shard"]`, unless they are there; `rows` tells their sizes."""
        shards = [self.shards[i] for i in batch["shard"]]
        for shard in shards:
            if not (self.output / shard.name).exists():  # else a retry, of which all but the answer was done
                self._write(shard)
        return {"shard": batch["shard"], "rows": np.array([len(shard.rows) for shard in shards])}

    def _write(self, shard: Shard) -> None:
        rows, failures = [], []
        for index in shard.rows:
            try:
                row, problems = self.extract(self.clips, index)
                rows.append(row)
            except Exception as error:  # whatever a file does to its decoder, the others are still wanted
                is_known = isinstance(error, (OSError, ValueError))
                problems = [str(error) if is_known else f"{type(error).__name__}: {error}"]
            failures += [(index, self.clips.rows[index]["file"], problem) for problem in problems]
            self.on_row()
        table = to_table(rows, make_features(self.extract.audio_size, self.extract.video_size))
        schema = table.schema.with_metadata({**table.schema.metadata, FAILURES_KEY: json.dumps(failures)})

        def write(path: str) -> None:
            with pq.ParquetWriter(path, schema) as writer:
                if rows:  # `datasets` cannot read a row group without rows, but a file without a row group
                    writer.write_table(table.cast(schema))

        _write_atomically(self.output / shard.name, write)


def _write_atomically(path: Path, write: Callable[[str], None]) -> None:
    """The file appears whole or not at all. The temporary one begins with a dot, which `datasets` passes over."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    os.close(handle)
    try:
        write(temporary)
        os.chmod(temporary, 0o666 & ~_umask())  # mkstemp makes files for its user alone
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@dataclass
class ExtractionReport:
    """What a run, and those it went on from, did: rows written, rows left out, and (row, file, reason) of problems."""

    num_rows: int
    num_left_out: int
    failures: list[tuple[int, str, str]]


def extract_features(
    source: str | Path,
    output: str | Path,
    settings: ExtractionSettings,
    num_proc: int | None = None,
    engine: str = "local",
) -> ExtractionReport | None:
    """
    Writes the features of all clips of `source` to Parquet shards in `output`, and its problems to failures.csv.

    What an earlier run finished is left alone. Under a launcher that sets RANK and WORLD_SIZE the ranks share the shards.

    Args:
        source: what [`read_clip_table`] reads.
        output: a folder, which `datasets.load_dataset` reads afterwards.
        settings: what to extract.
        num_proc: worker processes, or actors of Ray; `None` is one for each GPU, or one.
        engine: "local" or "ray".

    Returns:
        a report; `None` on the ranks that are not the first.

    Raises:
        ValueError: the settings are wrong, or not those of what is in `output`; OSError: the input cannot be read.
    """
    rank, world_size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if num_proc is not None and num_proc < 1:
        raise ValueError(f"--num_proc is {num_proc}; it must be at least 1.")
    if engine == "ray" and world_size > 1:
        raise ValueError("Ray starts its own processes: start --engine ray once, without a launcher.")
    output = Path(output).absolute()
    clips = read_clip_table(source)
    shards = plan_shards(clips, settings.shard_size)
    if "video" in settings.modalities:
        settings.tower()  # what is wrong with it is told here, once, and not by each worker
    _check_output(output, settings.record(clips))

    mine = range(rank, len(shards), world_size)
    pending = [i for i in mine if not (output / shards[i].name).exists()]
    total = sum(len(shards[i].rows) for i in mine)
    done = total - sum(len(shards[i].rows) for i in pending)
    run = _run_ray if engine == "ray" else _run_local
    if pending:
        with tqdm(total=total, initial=done, unit="clip", desc="features", disable=rank > 0) as bar:
            run(clips, settings, str(output), pending, num_proc, bar)
    if rank > 0:
        return None
    while not all((output / shard.name).exists() for shard in shards):
        time.sleep(POLL_S)  # the other ranks are at work; a launcher ends this one if they die
    return _report(output, shards)


def _check_output(output: Path, record: dict[str, Any]) -> None:
    """Refuses a folder with features of other settings; writes down these for the runs after this one."""
    path = output / SETTINGS_NAME
    has_data = any((output / "data").glob("*"))  # looked at first: another rank may be ahead
    if not path.is_file():
        if has_data:
            raise ValueError(f"{output / 'data'} holds files of something else: choose a new folder as --output.")
        _write_atomically(
            path, lambda name: Path(name).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        )
    earlier = json.loads(path.read_text(encoding="utf-8"))
    if differing := [name for name in {**earlier, **record} if earlier.get(name) != record.get(name)]:
        changes = "; ".join(_describe_change(name, earlier.get(name), record.get(name)) for name in differing)
        raise ValueError(
            f"{output} holds features of a run with other settings ({changes}): go on with the same ones, or choose a "
            "new folder as --output."
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

    def write(path: str) -> None:
        with open(path, "w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("row", "file", "reason"), *failures])

    _write_atomically(output / FAILURES_NAME, write)
    for leftover in (output / "data").glob(".*.part"):  # of runs that were killed
        leftover.unlink(missing_ok=True)
    return ExtractionReport(num_rows, sum(len(shard.rows) for shard in shards) - num_rows, failures)


def _run_local(clips, settings, output, pending: list[int], num_proc: int | None, bar: tqdm) -> None:
    local_rank, is_ranked = int(os.environ.get("LOCAL_RANK", 0)), int(os.environ.get("WORLD_SIZE", 1)) > 1
    num_proc = num_proc or (1 if is_ranked else max(1, torch.cuda.device_count()))
    num_proc = min(num_proc, len(pending))
    if num_proc == 1:
        extractor = ShardExtractor(clips, settings, output, local_rank, 1 if is_ranked else None, bar.update)
        for shard in pending:
            extractor({"shard": [shard]})
        return
    context = get_context("spawn")  # a fork of a process with threads, as torch has them, may hang
    num_started, num_done = context.Value("q", local_rank * num_proc), context.Value("q", 0)
    arguments = (clips, settings, output, num_started, num_done)
    with ProcessPoolExecutor(num_proc, context, _start_worker, arguments) as pool:
        waiting = {pool.submit(_extract_shard, shard) for shard in pending}
        first = bar.n
        try:
            while waiting:
                finished, waiting = wait(waiting, timeout=POLL_S, return_when=FIRST_COMPLETED)
                bar.update(first + num_done.value - bar.n)
                for future in finished:
                    future.result()
        except BrokenProcessPool as error:
            raise OSError(
                "A worker process died, perhaps for want of memory. The same command goes on where this one stopped; "
                "try it with a smaller --num_proc."
            ) from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _start_worker(clips, settings, output, num_started, num_done) -> None:
    """Builds this process's extractor, and has the process end with its parent, however that ends."""
    global _extractor

    def end_with_parent():
        parent_process().join()
        os._exit(1)

    def count():
        with num_done.get_lock():
            num_done.value += 1

    threading.Thread(target=end_with_parent, daemon=True).start()
    with num_started.get_lock():
        worker = num_started.value
        num_started.value += 1
    _extractor = ShardExtractor(clips, settings, output, worker, num_threads=1, on_row=count)


def _extract_shard(shard: int) -> None:
    _extractor({"shard": [shard]})


def _run_ray(clips, settings, output, pending: list[int], num_proc: int | None, bar: tqdm) -> None:
    """One actor for each GPU of the cluster, or `num_proc` on CPUs. Several machines must share the files."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ValueError('--engine ray needs Ray, which is not installed: pip install "ray[data]".') from error

    if not ray.is_initialized():
        alone = {"include_dashboard": False, "_node_ip_address": "127.0.0.1"}
        ray.init(**({} if "RAY_ADDRESS" in os.environ else alone))
    ray.data.DataContext.get_current().enable_progress_bars = False  # `bar` counts clips
    num_gpus = int(ray.cluster_resources().get("GPU", 0)) if "video" in settings.modalities else 0
    num_actors = min(num_proc or max(1, num_gpus), len(pending))
    answers = ray.data.from_items(
        [{"shard": shard} for shard in pending], override_num_blocks=len(pending)
    ).map_batches(
        ShardExtractor,
        fn_constructor_args=(clips, settings, output),
        fn_constructor_kwargs={"num_threads": 1},
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=num_actors),
        num_cpus=1,
        num_gpus=1 if num_gpus else 0,
        max_restarts=3,  # an actor that dies is started anew, and its shard given to it again
        max_task_retries=3,
    )
    for answer in answers.iter_rows():
        bar.update(int(answer["rows"]))
