"""`umons live`."""

import json
import os
import sys
import threading
from types import SimpleNamespace

import numpy as np
import pytest
from small_pipelines import close, tone
from transformers import pipeline

from modeling_umons.cli import live


RATE = 16_000
OPTIONS = ["--hop_length_s", "0.4", "--chunk_length_s", "1"]


@pytest.fixture(scope="module")
def samples() -> np.ndarray:
    """2.5 s of a voice, int16 (num_samples,)."""
    return np.round(tone(2.5, RATE) * 32767).astype(np.int16)


def read_events(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def test_fifo_prints_the_segments(model, samples, tmp_path, capsys):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    writer = threading.Thread(target=fifo.write_bytes, args=(samples.tobytes(),), daemon=True)
    writer.start()
    assert live.main(["--input", str(fifo), "--model", model, "--json", *OPTIONS]) == 0
    writer.join()
    events = read_events(capsys.readouterr().out)
    assert [event["timestamp"][1] for event in events] == [0.4, 0.8, 1.0, 1.4, 1.8, 2.0, 2.4, 2.5]
    finals = [{k: v for k, v in event.items() if k != "is_final"} for event in events if event["is_final"]]
    recognize = pipeline("multimodal-emotion-recognition", model=model)
    expected = recognize({"audio": samples, "sampling_rate": RATE}, chunk_length_s=1.0)
    for event, segment in zip(finals, json.loads(json.dumps(expected)), strict=True):
        assert close(event, segment)


def test_lines_mark_final_ones(model, samples, tmp_path, capsys):
    file = tmp_path / "stereo.pcm"
    file.write_bytes(np.repeat(samples, 2).tobytes() + b"\1")
    assert live.main(["--input", str(file), "--channels", "2", "--model", model, *OPTIONS]) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[0].split()[0] == "00:00:00.4"
    assert [line.split()[0] for line in lines if "-00:" in line] == [
        "00:00:00.0-00:00:01.0", "00:00:01.0-00:00:02.0", "00:00:02.0-00:00:02.5",
    ]  # fmt: skip
    assert err == ""


def test_terminal_replaces_partial_lines(model, samples, tmp_path, capsys, monkeypatch):
    file = tmp_path / "mono.pcm"
    file.write_bytes(samples[:RATE].tobytes())
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert live.main(["--input", str(file), "--model", model, *OPTIONS]) == 0
    *partial, final = capsys.readouterr().out.split("\r\033[K")[1:]
    assert len(partial) == 2
    assert "\n" not in "".join(partial)
    assert final.endswith("\n")


def test_file_with_a_header_is_refused(model, tmp_path, capsys):
    file = tmp_path / "talk.wav"
    file.write_bytes(b"RIFF" + b"\0" * 100)
    assert live.main(["--input", str(file), "--model", model]) == 2
    assert "is a WAV file, not raw samples" in capsys.readouterr().err
    assert live.main(["--input", str(tmp_path / "none"), "--model", model]) == 1
    assert "No such file" in capsys.readouterr().err


@pytest.mark.parametrize("hop", ["nan", "inf", "-1"])
def test_hop_out_of_range_is_named(model, samples, tmp_path, capsys, hop):
    file = tmp_path / "mono.pcm"
    file.write_bytes(samples.tobytes())
    assert live.main(["--input", str(file), "--model", model, "--hop_length_s", hop]) == 2
    assert "`hop_length_s` is" in capsys.readouterr().err


def test_empty_input_is_named(model, tmp_path, capsys):
    file = tmp_path / "empty.pcm"
    file.write_bytes(b"")
    assert live.main(["--input", str(file), "--model", model]) == 2
    assert f"--input {file} has no samples" in capsys.readouterr().err


class Microphone:
    """Stands for sounddevice: records the samples, and then Ctrl-C is pressed."""

    PortAudioError = type("PortAudioError", (Exception,), {})

    def __init__(self, samples: np.ndarray):
        self.samples = samples

    def query_devices(self, device, kind):
        if device == "none":
            raise ValueError("No input device matching 'none'")
        return {"default_samplerate": float(RATE)}

    def check_input_settings(self, device, channels, dtype, samplerate):
        assert (dtype, samplerate) == ("int16", RATE)

    def InputStream(self, dtype, callback, device, samplerate, channels):
        status = SimpleNamespace(input_overflow=False)
        for first in range(0, len(self.samples), 1_600):
            callback(self.samples[first : first + 1_600, None], 1_600, None, status)
        return self

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.is_closed = True


def test_microphone_prints_the_latest_and_final_events(model, samples, capsys, monkeypatch):
    microphone = Microphone(samples)
    monkeypatch.setitem(sys.modules, "sounddevice", microphone)
    queue = live.queue.SimpleQueue

    class Interrupted:
        """Queue at whose end Ctrl-C is pressed."""

        def __init__(self):
            self.queue = queue()
            self.put, self.empty = self.queue.put, self.queue.empty

        def get(self):
            if self.queue.empty():
                raise KeyboardInterrupt
            return self.queue.get()

    monkeypatch.setattr(live, "queue", SimpleNamespace(SimpleQueue=Interrupted))
    assert live.main(["--model", model, "--json", *OPTIONS]) == 0
    events = read_events(capsys.readouterr().out)
    assert [(event["timestamp"][1], event["is_final"]) for event in events] == [
        (1.0, True), (2.0, True), (2.4, False), (2.5, True),
    ]  # fmt: skip
    assert microphone.is_closed
    assert live.main(["--model", model, "--device", "none"]) == 1
    assert "--device none: No input device" in capsys.readouterr().err
