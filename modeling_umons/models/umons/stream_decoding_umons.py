# Copyright 2026 The modeling_umons authors.
# SPDX-License-Identifier: MIT
"""Decoding of audio that arrives in pieces: plain samples, and files as browsers record them."""

import threading

import numpy as np

from .media_umons import Decoder, mix_channels, open_media


HEADS = (b"\x1aE\xdf\xa3", b"OggS")  # first bytes of WebM and Ogg: FFmpeg would wait for 1 MB to decide
MAX_PIECE_S = 120.0  # seconds that a piece may decode to: gaps of damaged time stamps are silence


class PcmDecoder:
    """
    Decodes little-endian 16-bit samples with interleaved channels. A piece may end within a sample.

    Args:
        channels: number of channels.
    """

    def __init__(self, channels: int = 1):
        self.channels, self.rest = channels, b""

    def push(self, data: bytes) -> np.ndarray:
        """Add a piece, and return its samples (num_samples,), float32 mono in [-1, 1]."""
        data = self.rest + data
        end = len(data) - len(data) % (2 * self.channels)
        self.rest = data[end:]
        samples = np.frombuffer(data[:end], "<i2").reshape(-1, self.channels).T.astype(np.float32) / 2**15
        return mix_channels(samples) if samples.size else np.zeros(0, np.float32)


class StreamDecoder:
    """
    Decodes the audio of a WebM or Ogg file that arrives in pieces.

    A thread decodes; it waits for more where the file ends for now.

    Args:
        sampling_rate: rate of the result in Hz.
    """

    def __init__(self, sampling_rate: int):
        self.sampling_rate, self.name = sampling_rate, "The stream"
        self.changed = threading.Condition()
        self.head, self.data, self.samples = b"", bytearray(), []
        self.is_waiting = self.is_closed = self.is_done = False
        self.error: Exception | None = None
        threading.Thread(target=self._run, name="stream-decoder", daemon=True).start()

    def push(self, data: bytes, is_last: bool = False) -> np.ndarray:
        """
        Add a piece of the file, or its end, and return the samples (num_samples,) that it completes, float32 mono.

        Raises:
            OSError: the file is damaged, has no audio, or is of another format.
        """
        self.head = (self.head + data[:4])[:4]
        if not any(head.startswith(self.head) for head in HEADS):
            raise OSError(f"The stream cannot be decoded as WebM or Ogg: it begins with {self.head!r}.")
        with self.changed:
            self.data += data
            self.is_closed, self.is_waiting = is_last, False
            self.changed.notify_all()
            self.changed.wait_for(lambda: self.is_done or (self.is_waiting and not self.data))
            if self.error is not None:
                raise OSError(f"The stream cannot be decoded as WebM or Ogg: {self.error}") from self.error
            if self.is_done and not is_last:
                raise OSError("The stream ended early: its data are damaged.")
            samples, self.samples = self.samples, []
        return np.concatenate([np.zeros(0, np.float32), *samples])

    def read(self, size: int) -> bytes:
        """Return at most `size` bytes of the file, and wait for them; empty at its end."""
        with self.changed:
            while not self.data and not self.is_closed:
                self.is_waiting = True
                self.changed.notify_all()
                self.changed.wait()
            part = bytes(self.data[:size])
            del self.data[:size]
            return part

    def _run(self):
        error = None
        try:
            self._decode()
        except Exception as caught:
            error = caught
        with self.changed:
            self.error, self.is_done = error, True
            self.changed.notify_all()

    def _decode(self):
        position = 0.0
        with open_media(self, containers="matroska,webm,ogg") as container:
            decoder = Decoder(container, self.name, 0.0, 0.0, self.sampling_rate, None, (1, 1), True, False)
            for _ in decoder.run():
                position = self._take(decoder, position)
            self._take(decoder, position)

    def _take(self, decoder: Decoder, position: float) -> float:
        """Move what was decoded after `position` seconds to the result, and return its end."""
        end = decoder.end
        if end - position > MAX_PIECE_S:
            raise OSError(f"The stream jumps from {position:.1f} to {end:.1f} s: its time stamps are damaged.")
        clip = decoder.cut(position, end) if end > position else None
        if clip is not None and clip.audio is not None:
            with self.changed:
                self.samples.append(clip.audio)
                if sum(map(len, self.samples)) > MAX_PIECE_S * self.sampling_rate:
                    raise OSError(f"A piece of the stream has more than {MAX_PIECE_S:g} s.")
        return end


__all__ = ["PcmDecoder", "StreamDecoder"]
