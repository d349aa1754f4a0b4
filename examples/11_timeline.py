"""Predict a dialogue utterance by utterance, and write a table, captions and a plot.

    python examples/11_timeline.py [TALK.mp4] [FOLDER]

The files are in FOLDER, `runs` by default. Without TALK.mp4, the dialogue is made of sample clips. Speech is found by
faster-whisper (the extra `transcribe`), which also transcribes: add `transcriber="whisper"` for the words of your own
recording.
"""

import sys
from pathlib import Path

import numpy as np
from transformers import pipeline

import modeling_umons
from modeling_umons.inference.timeline import write_timeline
from modeling_umons.models.umons.media_umons import read_clip


CLIPS = Path(__file__).resolve().parent.parent / "hub" / "sample" / "clips"
RATE = 22050


def make_dialogue() -> dict:
    """Return the audio of three clips with pauses of one second, and who speaks when."""
    parts, speakers, seconds = [np.zeros(RATE, np.float32)], [], 1.0
    for number, speaker in ((60, "Ann"), (7, "Bob"), (63, "Ann")):
        voice = read_clip(CLIPS / f"{number:03d}.mp4", video=False, sampling_rate=RATE).audio
        speakers.append({"speaker": speaker, "timestamp": (seconds, seconds + len(voice) / RATE)})
        parts += [voice, np.zeros(RATE, np.float32)]
        seconds += len(voice) / RATE + 1.0
    return {"audio": np.concatenate(parts), "sampling_rate": RATE, "speakers": speakers}


def main():
    recognize = pipeline("multimodal-emotion-recognition", model=modeling_umons.UMONS_MINI)
    recording = sys.argv[1] if len(sys.argv) > 1 else make_dialogue()
    results = list(recognize.stream(recording, granularity="utterance"))
    for result in results:
        start, end = result["timestamp"]
        print(f"{start:5.1f} to {end:5.1f} s  {result.get('speaker', '')}  {result.get('label', 'no speech')}")
    folder = Path(sys.argv[2] if len(sys.argv) > 2 else "runs")
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"dialogue{suffix}" for suffix in (".csv", ".vtt", ".png")]
    write_timeline(results, *paths, labels=recognize.labels, title="dialogue")
    print("Wrote", ", ".join(map(str, paths)))


if __name__ == "__main__":
    main()
