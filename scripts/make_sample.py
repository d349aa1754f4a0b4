#!/usr/bin/env python
"""Generate the synthetic sample in hub/sample: short clips of a drawn face with emotional speech.

Each row of the utterance table (columns text, sentiment, happy, sad, anger, surprise, disgust, fear) becomes a clip:
espeak-ng speaks the text with pitch, range, speed and loudness that depend on the six intensities, and a schematic
face of 128 x 128 pixels at 12 frames per second has brows, eyes and mouth that depend on them.

output:
  clips/NNN.mp4       H.264 and mono AAC at 22.05 kHz; NNN is the row of the table, from 000
  metadata.csv        file_name, text, split and the seven labels of each clip
  trainset.csv, validationset.csv, testset.csv
                      the same rows by split, for the loader (see the configuration in hub/sample/README.md)

The four speakers are independent of the labels and evenly distributed. Splits (70 / 15 / 15 %) are stratified by the
strongest emotion. The same versions of espeak-ng and PyAV write identical files. Requires espeak-ng on the PATH; takes
about half a minute.

Examples:
  python scripts/make_sample.py
  python scripts/make_sample.py --utterances my.csv --output my_sample
"""

import argparse
import csv
import shutil
import subprocess
import sys
import tempfile
import wave
from collections import Counter
from pathlib import Path
from xml.sax.saxutils import escape

import av
import numpy as np
from PIL import Image, ImageDraw
from tqdm import tqdm

from modeling_umons.utils.files import atomic_path


FOLDER = Path(__file__).resolve().parent.parent / "hub" / "sample"
EMOTIONS = ["happy", "sad", "anger", "surprise", "disgust", "fear"]
LABELS = ["sentiment", *EMOTIONS]
SPLITS = ["train", "validation", "test"]
SAMPLING_RATE, FPS, SIZE, SUPERSAMPLING = 22050, 12, 128, 4
HOP = SAMPLING_RATE // FPS  # samples per frame

# espeak-ng voice and colours of its face: background, shirt, hair, skin.
VOICES = [
    ("en-us", "#d9e4ec", "#3f6f8f", "#4a3527", "#e8b992"),
    ("en+f1", "#ece4d6", "#8a5a83", "#20191a", "#a9714b"),
    ("en-gb", "#dfeadb", "#5c7a45", "#9a9a96", "#f1cdb0"),
    ("en-us+f3", "#ebdde3", "#b0673f", "#a4512a", "#d39f78"),
]

# Neutral prosody and the additive effect of each emotion, in units of espeak-ng (pitch 0-99, range in per cent, words
# per minute, amplitude 0-200).
PROSODY = ["pitch", "range", "speed", "amplitude"]
NEUTRAL_PROSODY = np.array([45, 90, 165, 75])
EMOTION_PROSODY = np.array(
    [
        [20, 70, 15, 20],  # happy
        [-20, -60, -45, -40],  # sad
        [0, 60, 30, 55],  # anger
        [40, 110, 0, 20],  # surprise
        [-25, 10, -30, 10],  # disgust
        [25, -60, 45, -25],  # fear
    ]
)

# In pixels, except `eye` (1 is neutral) and `sneer` (0 to 1).
FACE = ["brow", "tilt", "eye", "smile", "gape", "width", "sneer", "tremble"]
NEUTRAL_FACE = np.array([0, 0, 1, 0.5, 0, 15, 0, 0])
EMOTION_FACE = np.array(
    [
        [2, 0, -0.15, 9, 3, 5, 0, 0],  # happy
        [0, 5, -0.35, -8, 0, -3, 0, 0],  # sad
        [-3, -6, -0.3, -5, 4, 2, 0, 0],  # anger
        [8, 0, 0.5, 0, 13, -6, 0, 0],  # surprise
        [-2, -3, -0.5, -5, 0, 0, 1, 0],  # disgust
        [5, 6, 0.45, -5, 4, 3, 0, 1],  # fear
    ]
)


def read_utterances(path):
    """Read the table as a list of dicts with text (str), sentiment (float) and emotions (int). Raises ValueError."""
    with open(path, encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        if reader.fieldnames != ["text", *LABELS]:
            raise ValueError(f"{path} has the columns {reader.fieldnames}, expected {['text', *LABELS]}.")
        rows = list(reader)
    if not rows:
        raise ValueError(f"{path} has no rows; add one for each clip.")
    for number, row in enumerate(rows, start=2):
        try:
            row["sentiment"] = float(row["sentiment"])
            row.update({name: int(row[name]) for name in EMOTIONS})
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}, line {number}: a label is not a number ({error}).") from error
        if not (abs(row["sentiment"]) <= 3 and all(row[name] in range(4) for name in EMOTIONS)):
            raise ValueError(f"{path}, line {number}: sentiment must be in [-3, 3] and each emotion 0, 1, 2 or 3.")
    return rows


def intensities(row):
    return np.array([row[name] for name in EMOTIONS])


def strongest(row):
    """Return the emotion of highest intensity (the first of equal ones), or "neutral"."""
    values = intensities(row)
    return EMOTIONS[values.argmax()] if values.any() else "neutral"


def assign_splits_and_voices(rows):
    """Assign splits in a pattern of 14 : 3 : 3 and voices in turn, in the order of the strongest emotion."""
    pattern = [0, 0, 1, 0, 0, 0, 2, 0, 0, 1, 0, 0, 0, 2, 0, 0, 1, 0, 2, 0]
    order = sorted(range(len(rows)), key=lambda index: ([*EMOTIONS, "neutral"].index(strongest(rows[index])), index))
    for position, index in enumerate(order):
        turn, place = divmod(position, len(pattern))
        rows[index]["split"] = SPLITS[pattern[place]]
        # Shifted by one in each round, so that voices are independent of splits.
        rows[index]["voice"] = VOICES[(position + turn) % len(VOICES)]


def blend(neutral, emotions, row):
    """Blend the settings of the row's emotions. The square root emphasises weak emotions; weights sum to at most 1."""
    weights = np.sqrt(intensities(row) / 3)
    return neutral + weights / max(1, weights.sum()) @ emotions


def speak(row, rng, folder):
    """Synthesise the text with espeak-ng. Returns samples (num_samples,) in [-1, 1] at SAMPLING_RATE."""
    settings = dict(zip(PROSODY, blend(NEUTRAL_PROSODY, EMOTION_PROSODY, row), strict=True))
    pitch, speed, amplitude = (
        round(settings[name] + rng.normal(0, spread))
        for name, spread in (("pitch", 4), ("speed", 5), ("amplitude", 5))
    )
    path = Path(folder) / "speech.wav"
    ssml = f'<speak><prosody range="{settings["range"]:.0f}%">{escape(row["text"])}</prosody></speak>'
    command = ["espeak-ng", "-m", "-z", "-v", row["voice"][0], "-p", pitch, "-s", speed, "-a", amplitude, "-w", path]
    command.append(ssml)
    subprocess.run([str(part) for part in command], check=True)
    with wave.open(str(path)) as file:
        if (file.getframerate(), file.getnchannels(), file.getsampwidth()) != (SAMPLING_RATE, 1, 2):
            raise OSError(f"espeak-ng wrote {file.getparams()}; expected 16-bit mono at {SAMPLING_RATE} Hz.")
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / 2**15
    samples = 0.8 * samples  # headroom for AAC
    padded = np.pad(samples, round(0.15 * SAMPLING_RATE))  # neutral face before and after
    return np.pad(padded, (0, -len(padded) % HOP))


def loudness(samples):
    """Compute the RMS of each frame relative to the loudest one, (num_frames,)."""
    rms = np.sqrt((samples.reshape(-1, HOP) ** 2).mean(axis=1))
    return rms / max(rms.max(), 1e-6)


class Pen:
    """Drawing in pixels of the final frame, x from the centre of the head, on a canvas SUPERSAMPLING times larger."""

    line = "#33241f"

    def __init__(self, background, shift):
        self.image = Image.new("RGB", (SIZE * SUPERSAMPLING, SIZE * SUPERSAMPLING), background)
        self.draw, self.shift = ImageDraw.Draw(self.image), shift

    def points(self, xs, ys):
        dx, dy = self.shift
        return [((SIZE / 2 + x + dx) * SUPERSAMPLING, (y + dy) * SUPERSAMPLING) for x, y in zip(xs, ys, strict=True)]

    def ellipse(self, x, y, width, height, fill):
        self.draw.ellipse(self.points([x - width, x + width], [y - height, y + height]), fill=fill)

    def stroke(self, xs, ys, width):
        self.draw.line(self.points(xs, ys), fill=self.line, width=round(width * SUPERSAMPLING), joint="curve")
        for end in (0, -1):
            self.ellipse(xs[end], ys[end], width / 2, width / 2, self.line)

    def band(self, xs, upper, lower, fill):
        self.draw.polygon(self.points([*xs, *xs[::-1]], [*upper, *lower[::-1]]), fill=fill)


def draw_eyes_and_nose(pen, face, blink):
    for side in (-1, 1):
        height = 0.8 if blink else max(1.6, 6 * face["eye"])
        pen.ellipse(side * 17, 62, 9.5, height + 1, pen.line)
        if not blink:
            pen.ellipse(side * 17, 62, 8.5, height, "white")
            pen.ellipse(side * 17, 62, min(4.2, height + 1), min(4.2, height), pen.line)
        brow, tilt = 49 - face["brow"], face["tilt"]
        pen.stroke([side * 9, side * 18, side * 27], [brow - tilt, brow - 1.5, brow + 0.6 * tilt + 1], 3.4)
        if face["sneer"] > 0.3:  # wrinkled nose and nasolabial fold
            pen.stroke([side * 2, side * 7], [70, 67], 1.2)
            pen.stroke([side * 3, side * 8], [74, 71.5], 1.2)
            pen.stroke([side * 9, side * 15, side * 18], [78, 81, 87], 1.2)
    pen.stroke([-1, -5, 2], [68, 80, 81], 1.6)


def draw_mouth(pen, face, opening):
    x = np.linspace(-1, 1, 25)
    arch = 1 - x**2
    middle = 95 + face["smile"] * (arch - 0.5)
    upper = middle - 0.35 * opening * arch - 5 * face["sneer"] * np.exp(-((3 * x - 1.2) ** 2))
    lower = middle + 0.65 * opening * arch
    xs = x * face["width"]
    pen.band(xs, upper, lower, "#5a1f24")
    pen.band(xs, upper, np.minimum(upper + 3.5, lower), "#f4efe6")  # teeth
    pen.stroke(xs, upper, 2.2)
    pen.stroke(xs, lower, 2.2)


def draw_face(face, colours, shift, opening, blink):
    """Draw a frame (SIZE, SIZE, 3) uint8. `shift` (x, y) of the head and `opening` of the lips are in pixels."""
    background, shirt, hair, skin = colours
    body = [edge * SUPERSAMPLING for edge in (10, 112, 118, 170)]
    pen = Pen(background, shift)
    pen.draw.ellipse(body, fill=shirt)
    pen.ellipse(0, 56, 46, 47, hair)
    pen.ellipse(0, 68, 40, 49, skin)
    pen.draw.chord(pen.points([-40, 40], [19, 117]), 215, 325, fill=hair)
    draw_eyes_and_nose(pen, face, blink)
    draw_mouth(pen, face, opening)
    return np.asarray(pen.image.reduce(SUPERSAMPLING))


def draw_clip(row, samples, rng):
    """Yield the frames of a clip; the mouth opens with the loudness."""
    face = dict(zip(FACE, blend(NEUTRAL_FACE, EMOTION_FACE, row), strict=True))
    face["eye"] *= rng.uniform(0.95, 1.05)
    phase, next_blink = rng.uniform(0, 2 * np.pi), rng.integers(6, 30)
    for frame, level in enumerate(loudness(samples)):
        sway = np.array([2 * np.sin(phase + 2.2 * frame / FPS), 1.2 * np.sin(phase + 3.7 * frame / FPS)])
        shift = sway + face["tremble"] * rng.uniform(-1, 1, 2)
        opening = (0.4 + 0.6 * level) * face["gape"] + 9 * level
        yield draw_face(face, row["voice"][1:], shift, opening, blink=frame % 36 == next_blink)


def write_clip(path, frames, samples):
    """Encode frames and audio to .mp4, with one thread each, so that the file does not depend on the machine."""
    options = {"movflags": "+faststart"}
    with atomic_path(path) as part, av.open(str(part), "w", format="mp4", options=options) as container:
        video = container.add_stream("libx264", rate=FPS, options={"crf": "25", "preset": "slow"})
        video.width, video.height, video.pix_fmt = SIZE, SIZE, "yuv420p"
        video.codec_context.thread_count = 1
        audio = container.add_stream("aac", rate=SAMPLING_RATE, layout="mono", bit_rate=40_000)
        for frame in frames:
            container.mux(video.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(video.encode(None))
        sound = av.AudioFrame.from_ndarray(samples[None].astype(np.float32), format="fltp", layout="mono")
        sound.sample_rate = SAMPLING_RATE
        container.mux(audio.encode(sound))
        container.mux(audio.encode(None))


def write_table(path, rows):
    columns = ["file_name", "text", "split", *LABELS]
    with atomic_path(path) as part, open(part, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def print_summary(rows, seconds, output):
    print(f"\n{'':10}  clips  neutral  " + "  ".join(f"{name:>8}" for name in EMOTIONS))
    for split in [*SPLITS, "all"]:
        chosen = [row for row in rows if split in (row["split"], "all")]
        counts = Counter(name for row in chosen for name in EMOTIONS if row[name])
        neutral = sum(strongest(row) == "neutral" for row in chosen)
        print(f"{split:10}  {len(chosen):5}  {neutral:7}  " + "  ".join(f"{counts[name]:8}" for name in EMOTIONS))
    size = sum((output / row["file_name"]).stat().st_size for row in rows)
    print(f"\n{len(rows)} clips, {seconds / 60:.1f} minutes, {size / 1e6:.1f} MB in {output}")


def make_sample(utterances, output):
    """Write the sample. Raises ValueError for an invalid table and OSError without espeak-ng or with other clips."""
    if shutil.which("espeak-ng") is None:
        raise OSError("espeak-ng is not on the PATH; install it, for example with `apt-get install espeak-ng`.")
    rows = read_utterances(utterances)
    assign_splits_and_voices(rows)
    for index, row in enumerate(rows):
        row["file_name"] = f"clips/{index:03d}.mp4"
    clips = output / "clips"
    clips.mkdir(parents=True, exist_ok=True)
    others = sorted({path.name for path in clips.glob("*.mp4")} - {Path(row["file_name"]).name for row in rows})
    if others:
        raise OSError(f"{clips} contains other clips ({', '.join(others[:3])}); remove them first.")

    seconds = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for index, row in enumerate(tqdm(rows, desc="clips", unit="clip")):
            rng = np.random.default_rng(index)
            samples = speak(row, rng, folder)
            write_clip(output / row["file_name"], draw_clip(row, samples, rng), samples)
            seconds += len(samples) / SAMPLING_RATE
    write_table(output / "metadata.csv", rows)
    for split in SPLITS:
        # Not "train": `datasets` would infer the splits from file names.
        write_table(output / f"{split}set.csv", [row for row in rows if row["split"] == split])
    print_summary(rows, seconds, output)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--utterances",
        type=Path,
        default=FOLDER / "utterances.csv",
        metavar="CSV",
        help="table of texts and labels (default: hub/sample/utterances.csv)",
    )
    parser.add_argument(
        "--output", type=Path, default=FOLDER, metavar="DIR", help="output folder (default: hub/sample)"
    )
    args = parser.parse_args()
    try:
        make_sample(args.utterances, args.output)
    except (OSError, ValueError) as error:
        sys.exit(f"make_sample: {error}")


if __name__ == "__main__":
    main()
