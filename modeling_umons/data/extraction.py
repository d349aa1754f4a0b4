"""Extraction of audio and video features of clips into Parquet shards, resumable."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
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
from ..utils.hub_files import find_model
from .builders import describe_error
from .clip_tables import ClipTable, plan_shards, read_clip_table, typed_columns
from .schema import FEATURE_COLUMNS, make_features, to_table
from .sharding import Engine, Failure, check_record, read_failures, write_failures, write_shards


SETTINGS_NAME = "extraction.json"
FAILURES_NAME = "failures.csv"
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
    Extractor of the rows of a shard.

    Args:
        clips: the input.
        settings: features to extract.
        worker: number of this worker on its machine, which selects the GPU.
    """

    def __init__(self, clips: ClipTable, settings: ExtractionSettings, worker: int = 0):
        self.clips, self.extract = clips, RowExtractor(settings, worker)

    def __call__(self, rows: Sequence[int], on_rows: Callable[[int], Any]) -> tuple[pa.Table, list[Failure]]:
        """Return the table of rows that have features, and the failures and missing features of all."""
        extracted, failures = [], []
        for index in rows:
            try:
                row, problems = self.extract(self.clips, index)
                extracted.append(row)
            except Exception as error:  # whatever a damaged file does to its decoder: the other rows are still wanted
                problems = [describe_error(error)]
            failures += [(index, self.clips.rows[index]["file"], problem) for problem in problems]
            on_rows(1)
        return to_table(extracted, make_features(self.extract.audio_size, self.extract.video_size)), failures


@dataclass
class ExtractionReport:
    """Rows written and left out by all runs into a folder, and (row, file, reason) of problems."""

    num_rows: int
    num_left_out: int
    failures: list[Failure]


def extract_features(
    source: str | Path, output: str | Path, settings: ExtractionSettings, engine: Engine | None = None
) -> ExtractionReport | None:
    """
    Write the features of all clips of `source` to Parquet shards in `output`, and the problems to failures.csv. Shards
    of an earlier run are kept. Under a launcher that sets RANK and WORLD_SIZE, the ranks share the shards.

    Args:
        source: input of [`read_clip_table`].
        output: a folder, which `datasets.load_dataset` reads afterwards.
        settings: features to extract.
        engine: processes that extract; one process for each GPU, or one, by default.

    Returns:
        a report; `None` on all ranks but the first.

    Raises:
        ValueError: the settings are wrong, or differ from those of `output`; OSError: the input cannot be read.
    """
    output = Path(output).absolute()
    clips = read_clip_table(source)
    shards = plan_shards(clips, settings.shard_size)
    if "video" in settings.modalities:
        settings.tower()  # its errors appear here, once, and not in each worker
    has_data = any((output / "data").glob("*"))  # checked first: another rank may be ahead
    record, remedy = settings.record(clips), "choose a new folder as --output"
    check_record(output / SETTINGS_NAME, record, "features", remedy, has_other_files=has_data)
    build = partial(ShardExtractor, clips, settings)
    uses_gpu = "video" in settings.modalities or settings.audio_encoder is not None
    if not write_shards(build, shards, output, engine or Engine(), label="features", unit="clip", uses_gpu=uses_gpu):
        return None
    num_rows = sum(pq.read_metadata(output / shard.name).num_rows for shard in shards)
    failures = read_failures(output, shards)
    write_failures(output / FAILURES_NAME, failures)
    for leftover in (output / "data").glob(".*.part*"):  # of runs that were killed
        leftover.unlink(missing_ok=True)
    return ExtractionReport(num_rows, sum(len(shard.rows) for shard in shards) - num_rows, failures)
