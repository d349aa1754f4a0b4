# Copyright 2026 The modeling_umons authors.
#
# Licensed under the MIT License (the "License"); you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     https://opensource.org/license/mit
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""Video processor of the UMONS models: frames to normalised clips for an R(2+1)D tower."""

import numpy as np
import torch
from transformers.image_processing_utils import BatchFeature
from transformers.processing_utils import Unpack, VideosKwargs
from transformers.utils import is_torchvision_available
from transformers.video_processing_utils import BaseVideoProcessor
from transformers.video_utils import VideoMetadata

from .media_umons import read_clip


class UmonsVideoProcessorKwargs(VideosKwargs, total=False):
    """
    clip_length (`int`, *optional*, defaults to 16):
        Number of frames in a clip.
    clip_stride (`int`, *optional*, defaults to 8):
        Frames from the start of a clip to the start of the next.
    max_clips (`int`, *optional*, defaults to 60):
        Number of clips to which a video is truncated.
    frame_rate (`float`, *optional*, defaults to 15.0):
        Frames per second of the clips. A video is sampled at this rate if `video_metadata` has its own rate.
    """

    clip_length: int
    clip_stride: int
    max_clips: int
    frame_rate: float


class UmonsVideoProcessor(BaseVideoProcessor):
    r"""
    Cuts videos into clips for torchvision's `r2plus1d_18`, preprocessed as for its Kinetics-400 weights.

    Each frame is resized without cropping, rescaled to [0, 1] and normalised. Clip `k` contains the frames from
    `k * clip_stride` to `k * clip_stride + clip_length - 1`. Frames after the last full clip are dropped, and a video
    shorter than one clip repeats its last frame.

    Videos are arrays or tensors (T, H, W, C) or (T, C, H, W), lists of PIL images, or strings (a path or URL), which
    are decoded at `frame_rate`. Arrays without a rate in `video_metadata` are assumed to be at `frame_rate`.

    The processor loads and saves without torchvision; preprocessing videos requires it.

    Returns:
        `BatchFeature` with
        - **pixel_values_videos** -- (batch, clips, clip_length, 3, height, width) float32, zero for padding.
        - **video_features_mask** -- (batch, clips) int64, 1 for a clip, 0 for padding.

    Raises:
        ValueError: a video has no frames, or values that are not finite.
        ImportError: torchvision is not installed, or PyAV for a path or URL.
    """

    resample = 2  # PIL.Image.Resampling.BILINEAR; Pillow is installed with torchvision
    image_mean = [0.43216, 0.394666, 0.37645]  # Kinetics-400, of torchvision's video classification weights
    image_std = [0.22803, 0.22145, 0.216989]
    size = {"height": 112, "width": 112}
    rescale_factor = 1 / 255
    do_resize = True
    do_rescale = True
    do_normalize = True
    do_convert_rgb = True
    do_sample_frames = True
    clip_length = 16
    clip_stride = 8
    max_clips = 60
    frame_rate = 15.0
    valid_kwargs = UmonsVideoProcessorKwargs
    model_input_names = ["pixel_values_videos", "video_features_mask"]
    _auto_class = "AutoVideoProcessor"  # `save_pretrained` copies the code, so that the folder loads alone

    def __init__(self, **kwargs: Unpack[UmonsVideoProcessorKwargs]):
        super().__init__(**kwargs)

    def clip_times(self, num_clips: int) -> np.ndarray:
        """Return the middles (num_clips,) of the first clips in seconds."""
        return (self.clip_length / 2 + np.arange(num_clips) * self.clip_stride) / self.frame_rate

    def sample_frames(
        self,
        metadata: VideoMetadata,
        num_frames: int | None = None,
        fps: float | None = None,
        frame_rate: float | None = None,
        **kwargs,
    ) -> np.ndarray:
        """
        Return the indices (num_samples,) of the frames to keep.

        `num_frames` or `fps` of a call sample as in the base class. Otherwise the frame nearest to each 1 /
        `frame_rate` s is kept (of two equally near, the later), and a slower video repeats frames. All frames are kept
        if the video's rate is unknown.
        """
        if num_frames is not None or fps is not None:
            return super().sample_frames(metadata, num_frames=num_frames, fps=fps)
        if metadata.fps is None:
            return np.arange(metadata.total_num_frames)
        step = metadata.fps / (frame_rate or self.frame_rate)
        num_samples = max(1, round(metadata.total_num_frames / step))
        nearest = np.floor(np.arange(num_samples) * step + 0.5).astype(int)
        return np.minimum(nearest, metadata.total_num_frames - 1)

    def fetch_videos(self, video_url_or_urls, sample_indices_fn=None):
        """Decode paths and URLs with PyAV. Frames are sampled and resized while decoding, which limits memory."""
        if isinstance(video_url_or_urls, (list, tuple)):
            return list(zip(*(self.fetch_videos(url, sample_indices_fn) for url in video_url_or_urls), strict=True))
        size = (self.size.height, self.size.width)
        frames = read_clip(video_url_or_urls, audio=False, frame_rate=self.frame_rate, size=size).frames
        metadata = VideoMetadata(
            total_num_frames=len(frames),
            fps=self.frame_rate,
            height=size[0],
            width=size[1],
            duration=len(frames) / self.frame_rate,
            video_backend="pyav",
            frames_indices=np.arange(len(frames)),
        )
        if sample_indices_fn is not None:
            metadata.frames_indices = sample_indices_fn(metadata=metadata)
        return frames[metadata.frames_indices], metadata

    def _decode_and_sample_videos(self, videos, **kwargs):
        if not is_torchvision_available():
            raise ImportError("Preprocessing videos requires torchvision: `pip install torchvision`.")
        if _is_empty(videos):
            raise ValueError("A video has no frames: pass at least one frame per video.")
        return super()._decode_and_sample_videos(videos, **kwargs)

    def _preprocess(
        self,
        videos: list[torch.Tensor],
        clip_length: int,
        clip_stride: int,
        max_clips: int,
        return_tensors: str | None = None,
        **kwargs,
    ) -> BatchFeature:
        for name, value in {"clip_length": clip_length, "clip_stride": clip_stride, "max_clips": max_clips}.items():
            if value < 1:
                raise ValueError(f"{name}={value} must be at least 1.")
        for index, video in enumerate(videos):
            if video.is_floating_point() and not torch.isfinite(video).all():
                raise ValueError(f"Video {index} has NaN or infinite values: repair it first.")
        # Frames after the last clip are not resized.
        num_frames = (max_clips - 1) * clip_stride + clip_length
        frames = super()._preprocess([video[:num_frames] for video in videos], **kwargs).pixel_values_videos
        clips = [_cut_into_clips(video.to(torch.float32), clip_length, clip_stride) for video in frames]
        mask = [torch.ones(len(video), dtype=torch.int64) for video in clips]
        data = {
            "pixel_values_videos": torch.nn.utils.rnn.pad_sequence(clips, batch_first=True),
            "video_features_mask": torch.nn.utils.rnn.pad_sequence(mask, batch_first=True),
        }
        return BatchFeature(data=data, tensor_type=return_tensors)


def _is_empty(videos) -> bool:
    if isinstance(videos, (list, tuple)):
        return len(videos) == 0 or any(_is_empty(video) for video in videos)
    return isinstance(videos, (np.ndarray, torch.Tensor)) and 0 in videos.shape


def _cut_into_clips(frames: torch.Tensor, clip_length: int, clip_stride: int) -> torch.Tensor:
    """Cut (T, C, H, W) into (clips, clip_length, C, H, W)."""
    missing = clip_length - len(frames)
    if missing > 0:
        frames = torch.cat([frames, frames[-1:].expand(missing, -1, -1, -1)])
    return frames.unfold(0, clip_length, clip_stride).movedim(-1, 1)


__all__ = ["UmonsVideoProcessor"]
