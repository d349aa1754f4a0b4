"""Short clips in many formats."""

import io

import av
import numpy as np


# Container, video codec and audio codec by suffix.
FORMATS = {
    "mp4": ("mp4", "libx264", "aac"),
    "mpg": ("mpeg", "mpeg1video", "mp2"),
    "webm": ("webm", "libvpx", "libopus"),
    "mkv": ("matroska", "mpeg4", "libmp3lame"),
    "ts": ("mpegts", "mpeg2video", "mp2"),
    "flv": ("flv", "flv", "libmp3lame"),
    "avi": ("avi", "mpeg4", "mp2"),
    "mp3": ("mp3", None, "libmp3lame"),
    "wav": ("wav", None, "pcm_s16le"),
    "flac": ("flac", None, "flac"),
}


def encode(container_format: str, video_codec: str | None, audio_codec: str) -> bytes:
    """Return 1 s of noise, as a file."""
    rng, file = np.random.default_rng(0), io.BytesIO()
    with av.open(file, "w", format=container_format) as container:
        pictures = container.add_stream(video_codec, rate=25, width=64, height=48) if video_codec else None
        rate = 48000 if audio_codec == "libopus" else 44100
        sound = container.add_stream(audio_codec, rate=rate, layout="mono")
        packets = []
        for _ in range(25 if pictures else 0):
            small = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
            packets += pictures.encode(av.VideoFrame.from_ndarray(small.repeat(8, axis=0).repeat(8, axis=1)))
        samples = rng.normal(0, 3000, (1, rate)).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
        frame.sample_rate, frame.pts = rate, 0
        context = sound.codec_context
        resampler = av.AudioResampler(context.format.name, "mono", rate, frame_size=context.frame_size or 1024)
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            packets += sound.encode(part) if part is not None else []
        packets += sound.encode(None) + (pictures.encode(None) if pictures else [])
        container.mux(sorted(packets, key=lambda packet: packet.dts * packet.time_base))
    return file.getvalue()
