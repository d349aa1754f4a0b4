"""`umons live`: sentiment and emotions of a microphone or a pipe, while it records."""

import argparse
import json
import queue
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

from .command import add_model_arguments, make_parser, positive_int, run
from .output import print_or_stop


DESCRIPTION = """Predict sentiment and emotions of a microphone, while it records. Ctrl-C ends it.

    umons live
    ffmpeg -re -i talk.mp4 -f s16le -ar 16000 -ac 1 - | umons live --input -
    umons live --transcriber whisper --json > events.jsonl

Each --hop_length_s, a line has the prediction of the last --chunk_length_s seconds. A line with a range
of time is final: these lines cover the recording. Warnings such as no_speech are in brackets. An --input
has raw samples: 16 bits, little-endian, with interleaved channels.
"""
# The first bytes of files that have a header.
HEADERS = {b"RIFF": "WAV", b"OggS": "Ogg", b"\x1aE\xdf\xa3": "WebM", b"fLaC": "FLAC", b"ID3": "MP3"}
SAMPLING_RATE = 16_000  # Hz, of an input


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = make_parser("live", DESCRIPTION)
    parser.add_argument("--input", metavar="PATH", help="FIFO or file with raw samples, - for standard input")
    parser.add_argument(
        "--sampling_rate",
        type=positive_int,
        help=f"samples per second (default: {SAMPLING_RATE} of an --input, that of the microphone otherwise)",
    )
    parser.add_argument("--channels", type=positive_int, default=1, help="number of channels (default: 1)")
    parser.add_argument("--device", help="number or name of the microphone (default: that of the system)")
    parser.add_argument("--hop_length_s", type=float, default=0.5, help="seconds between lines (default: 0.5)")
    parser.add_argument("--chunk_length_s", type=float, help="seconds per prediction (default: the model's maximum)")
    parser.add_argument("--transcriber", metavar="MODEL", help="whisper, whisper-tiny.en, or a folder or Hub id")
    parser.add_argument("--json", action="store_true", help="print a JSON object per line")
    add_model_arguments(parser)
    return parser.parse_args(argv)


def live(arguments: argparse.Namespace) -> int:
    """Print the events of the input until it ends, or until Ctrl-C."""
    from ..inference.loading import load_pipeline, load_transcriber

    rate, chunks = arguments.sampling_rate or SAMPLING_RATE, None
    if arguments.input is None:
        rate, chunks = open_microphone(arguments.device, arguments.sampling_rate, arguments.channels)
    options: dict[str, Any] = {name: getattr(arguments, name) for name in ("hop_length_s", "chunk_length_s")}
    if arguments.transcriber is not None:
        options["transcriber"] = load_transcriber(arguments.transcriber)
    recognize = load_pipeline(arguments.model, arguments.trust_remote_code, pack=True)
    # A pipe waits for its reader; a microphone does not.
    stream = recognize.live(rate, only_latest=arguments.input is None, **options)
    if chunks is None:
        num_bytes = max(1, round(stream.hop_length_s * rate)) * 2 * arguments.channels
        chunks = read_samples(arguments.input, num_bytes, arguments.channels)
    print_event = print_json if arguments.json else print_line
    with suppress(KeyboardInterrupt):
        for chunk in chunks:
            for event in stream.iter_events(chunk):
                print_event(event)
    for event in stream.flush():
        print_event(event)
    if arguments.input is not None and stream.duration == 0:
        raise ValueError(f"--input {arguments.input} has no samples: it ended before the first one.")
    return 0


def read_samples(path: str, num_bytes: int, channels: int) -> Iterator[Any]:
    """
    Yield the samples of a FIFO, a file, or of standard input for "-", as they arrive.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not raw, but has the header of a format.
    """
    from ..models.umons.stream_decoding_umons import PcmDecoder

    decoder, is_first = PcmDecoder(channels), True
    with open(0 if path == "-" else path, "rb", closefd=path != "-") as file:
        while data := file.read1(num_bytes):
            if is_first and (known := next((HEADERS[head] for head in HEADERS if data.startswith(head)), None)):
                raise ValueError(
                    f"--input {path} is a {known} file, not raw samples: use `umons timeline`, or "
                    "`ffmpeg -i FILE -f s16le -ar 16000 -ac 1 - | umons live --input -`."
                )
            is_first = False
            yield decoder.push(data)


def open_microphone(device: str | None, sampling_rate: int | None, channels: int) -> tuple[float, Iterable[Any]]:
    """
    Return the sampling rate of a microphone, and an iterator over its recording.

    Raises:
        OSError: there is no such microphone, or PortAudio is missing.
    """
    try:
        import sounddevice
    except OSError as error:
        raise OSError(f"{error}: install it (`apt-get install libportaudio2`), or use --input.") from error
    number = int(device) if device is not None and device.isdecimal() else device
    try:
        rate = sampling_rate or sounddevice.query_devices(number, "input")["default_samplerate"]
        sounddevice.check_input_settings(number, channels, "int16", samplerate=rate)
    except (sounddevice.PortAudioError, ValueError) as error:
        raise OSError(
            f"--device {device or 'default'}: {error}. `python -m sounddevice` lists the microphones."
        ) from error
    return rate, _record(sounddevice.InputStream, device=number, samplerate=rate, channels=channels)


def _record(open_stream, **options) -> Iterator[Any]:
    """Yield what was recorded since the last time, as (num_channels, num_samples)."""
    import numpy as np

    recorded: queue.SimpleQueue = queue.SimpleQueue()

    def keep(samples, num_samples, times, status):
        if status.input_overflow:
            print("umons live: the microphone dropped samples: this machine is too slow.", file=sys.stderr)
        recorded.put(samples.T.copy())

    with open_stream(dtype="int16", callback=keep, **options):
        while True:
            chunks = [recorded.get()]
            while not recorded.empty():
                chunks.append(recorded.get())
            yield np.concatenate(chunks, axis=1)


def print_json(event: dict[str, Any]) -> None:
    print_or_stop(json.dumps(event, allow_nan=False), has_files=False)


def print_line(event: dict[str, Any]) -> None:
    """Print an event. On a terminal, the next one replaces it unless it is final."""
    from ..inference.timeline_formats import describe, format_time

    start, end = (format_time(time, digits=1) for time in event["timestamp"])
    time = f"{start}-{end}" if event["is_final"] else end
    sentiment = f"{event['sentiment']:+.2f}" if "sentiment" in event else ""
    scores = describe({name: event[name] for name in ("emotions", "labels") if name in event}, num_scores=2)
    codes = ", ".join(warning["code"] for warning in event["warnings"])
    text = f"{time:>21} {sentiment:>9}  {scores:<32}{event.get('text', '')}{f'  [{codes}]' if codes else ''}".rstrip()
    if not sys.stdout.isatty():
        print_or_stop(text, has_files=False)
        return
    width = shutil.get_terminal_size().columns - 1
    is_final = event["is_final"]
    print_or_stop(f"\r\033[K{text if is_final else text[:width]}", has_files=False, end="\n" if is_final else "")


def main(argv: list[str] | None = None) -> int:
    return run("umons live", "live", partial(live, parse_arguments(argv)))


if __name__ == "__main__":
    sys.exit(main())
