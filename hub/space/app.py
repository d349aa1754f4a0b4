# Copyright 2026 The modeling_umons authors.
# SPDX-License-Identifier: MIT
"""Gradio demo: upload or record a clip, type what is said, and see the predicted sentiment and emotions.

    python app.py

Environment variables:
    MODEL: folder or Hub repository of the model; by default umons-base, from the checkout or from the Hub.
    TRANSCRIBER: speech recognition model that fills in the text; without it, there is no Transcribe button.
"""

import os
import signal
import sys
import tempfile
from collections import deque
from collections.abc import Callable
from html import escape
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import Any

import gradio as gr
from drawing import CSS, Picture, draw


HERE = Path(__file__).resolve().parent
BASE = HERE.parent / "umons-base"
MODEL = os.environ.get("MODEL") or (str(BASE) if BASE.is_dir() else "umons/umons-base")
TRANSCRIBER = os.environ.get("TRANSCRIBER") or None

MAX_FILE_SIZE = "100mb"
MAX_MINUTES = 10
MAX_TEXT = 1000  # characters
SEGMENT_S = 6.0  # segment of the timeline, about as long as an utterance of CMU-MOSEI
QUEUE_SIZE = 30
MAX_LIVE = 4  # microphones at once
HOP_S = 0.5  # between the predictions of a microphone
LIVE_S = 60.0  # seconds of the live curve
DEADLINE_S = 120.0  # for decoding a file
DELETE_EVERY, DELETE_AFTER = 60, 15 * 60  # seconds

TITLE = "Sentiment and emotion in a clip"
INTRODUCTION = f"""# {TITLE}
Upload or record a clip, type what is said in it, do both, or speak live. A
[UMONS](https://doi.org/10.18653/v1/2020.challengehml-1.1) model predicts the sentiment, six emotions and
neutral from the text and the audio.

**Predictions estimate how annotators would label the clip, not what a person feels.** Do not use them to judge
anyone. The EU AI Act forbids to infer emotions at work and in education (article 5(1)(f)), and requires that people
know that they are analysed (article 50)."""
NOTES = f"""Uploads are deleted after {DELETE_AFTER // 60} minutes; inputs and predictions are not logged. Limits:
{MAX_FILE_SIZE.upper()[:-2]} MB, {MAX_MINUTES} minutes, {MAX_TEXT:,} characters. The example clips are synthetic:
synthesised speech and drawn faces."""
LISTENING = '<p class="umons quiet">Listening.</p>'
PLACEHOLDER = '<p class="umons quiet">The prediction appears here.</p>'

EXAMPLES = {
    "Clip and text: the boiler": [
        str(HERE / "examples" / "097.mp4"), None, "We finally fixed the boiler and I feel great."
    ],
    "Clip and text: the flight": [
        str(HERE / "examples" / "075.mp4"), None, "I am angry that the flight was cancelled without a word."
    ],
    "Text only: the hostel": [None, None, "The carpet in that hostel was filthy and disgusting."],
}  # fmt: skip


def load_pipeline():
    """Load the pipeline of `MODEL`, with the code of its repository if the package is not installed, or exit."""
    from transformers import pipeline

    installed = find_spec("modeling_umons") is not None
    if installed:
        import_module("modeling_umons")  # registers the task
    try:
        return pipeline("multimodal-emotion-recognition", model=MODEL, trust_remote_code=None if installed else True)
    except (OSError, ValueError, ImportError) as error:
        raise SystemExit(f"The model cannot be loaded: MODEL is {MODEL}. {error}") from None


def load_transcriber():
    """Load the pipeline of `TRANSCRIBER`, if it is set, or exit."""
    if TRANSCRIBER is None:
        return None
    from transformers import pipeline

    try:
        return pipeline("automatic-speech-recognition", model=TRANSCRIBER)
    except (OSError, ValueError, ImportError) as error:
        raise SystemExit(f"The transcriber cannot be loaded: TRANSCRIBER is {TRANSCRIBER}. {error}") from None


class Analyst:
    """Actions of the buttons. Raise `gr.Error` with a message for the page."""

    def __init__(self, recognize, transcriber: Callable | None = None):
        self.recognize, self.transcriber = recognize, transcriber
        self.lock = Lock()  # of the pipeline: tokenizers are not thread-safe
        self.has_glimpses = True  # until the model raises
        self.read_clip = recognize.decode_in_worker(DEADLINE_S).read_clip
        # The module that the pipeline uses, from the package or from the model's repository.
        code = type(recognize).__module__.rpartition(".")[0]
        self.frames_class = import_module(".feature_extraction_umons", code).UmonsFeatureExtractor

    @property
    def window_s(self) -> float:
        """Seconds of audio that the model processes at most."""
        return self.recognize.processor.max_duration

    def analyse(self, clip: str | None, sound: str | None, text: str | None) -> tuple[str, dict[str, Any]]:
        """Return the prediction as HTML and as JSON. Files are paths."""
        path, text = _one_of(clip, sound), (text or "").strip()
        if path is None and not text:
            raise _error("Nothing to analyse. Upload or record a clip, or type a text.")
        if len(text) > MAX_TEXT:
            raise _error(f"The text has {len(text)} characters, more than {MAX_TEXT}.")
        try:
            result = self._predict({"video": path, "text": text or None})
            audio = self._read_audio(path, 60.0 * MAX_MINUTES + 1)
            timeline = self._timeline(path, audio)
        except (OSError, ValueError) as error:
            raise _error(error, path) from None
        picture = Picture(
            notes=self._notes(result["modalities"], path, text, result["warnings"]),
            text=text,
            spectrogram=self._spectrogram(audio),
        )
        attention = result.pop("attention", {})
        return draw(result, attention, timeline, picture), {**result, **({"timeline": timeline} if timeline else {})}

    def listen(self, chunk: tuple[int, Any] | None, live: "Live | None") -> tuple[str, "Live | None"]:
        """Return the predictions of a microphone as HTML, with its state. A chunk is a sampling rate and samples."""
        if chunk is None:
            return gr.skip(), live
        rate, samples = chunk
        if live is None:
            live = Live(self.recognize, rate)
        try:
            with self.lock:
                live.push(samples.T)
        except ValueError as error:
            raise _error(error) from None
        return live.draw(), live

    def transcribe(self, clip: str | None, sound: str | None) -> str:
        """Return the text of as much of a file as the model processes."""
        path = _one_of(clip, sound)
        if path is None:
            raise _error("Nothing to transcribe. Upload or record a clip.")
        try:
            # At the transcriber's own rate: its pipeline resamples with torchaudio only.
            extractor = getattr(self.transcriber, "feature_extractor", None)
            rate = {"sampling_rate": extractor.sampling_rate} if extractor is not None else {}
            audio = self.read_clip(path, video=False, max_duration=self.window_s, **rate)
            text = self.transcriber({"raw": audio.audio, "sampling_rate": audio.sampling_rate})["text"]
        except (OSError, ValueError) as error:
            raise _error(error, path) from None
        return text.strip()[:MAX_TEXT]

    def _predict(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Return a prediction, with `attention` if the model has glimpses; baselines have none."""
        with self.lock:
            if self.has_glimpses:
                try:
                    return self.recognize(inputs, return_attention=True, return_explanations=True)
                except ValueError:
                    result = self.recognize(inputs)  # raises again if the input is invalid
                    self.has_glimpses = False
                    return result
            return self.recognize(inputs)

    def _read_audio(self, path: str | None, max_duration: float):
        """Decode the audio of a file; return `None` if it has none."""
        if path is None or "audio" not in self.recognize.model.config.modalities:
            return None
        try:
            return self.read_clip(path, video=False, max_duration=max_duration)
        except OSError:
            return None

    def _timeline(self, path: str | None, audio) -> list[dict[str, Any]]:
        """Return predictions of segments if the clip is longer than the model processes."""
        if audio is None or audio.duration <= self.window_s:
            return []
        if audio.duration > 60 * MAX_MINUTES:
            raise ValueError(f"The clip is longer than {MAX_MINUTES} minutes. Upload a part of it.")
        with self.lock:
            return self.recognize({"video": path}, chunk_length_s=SEGMENT_S, batch_size=8)

    def _spectrogram(self, audio) -> tuple[Any, float, float] | None:
        """Return log-mel frames (num_frames, mel bins), seconds before the first one and between two."""
        if audio is None or audio.audio is None:
            return None
        own = self.recognize.processor.feature_extractor  # an encoder may have another class
        settings = own.to_dict() if hasattr(own, "frame_stride") else {}
        # More frames a second than the model uses, for a sharper picture.
        fine = self.frames_class.from_dict({**settings, "frame_stride": 2, "delta_lags": None})
        frames = fine(
            [audio.audio],
            sampling_rate=audio.sampling_rate,
            max_length=max(1, round(self.window_s / fine.frame_duration)),
            return_offsets=True,
        )
        return frames["input_features"][0], float(frames["offsets"][0]), fine.frame_duration

    def _notes(self, used: list[str], path: str | None, text: str, warnings: list[dict[str, str]]) -> list[str]:
        """Return sentences: the modalities used, those that are missing and why, and the warnings."""
        config = self.recognize.model.config
        has_tower = any(getattr(config, name, None) is not None for name in ("video_tower", "video_encoder"))
        supported = {"text": "text" in config.modalities, "audio": "audio" in config.modalities, "video": has_tower}
        notes = [f"Predicted from {' and '.join(used)}."]
        for modality, is_supported in supported.items():
            if not is_supported:
                notes.append(f"This model does not use {modality}.")
            elif modality not in used:
                is_given = bool(text) if modality == "text" else path is not None
                notes.append(f"No {modality} {'found in the input' if is_given else 'given'}.")
        return [*notes, *(warning["message"] for warning in warnings)]


class Live:
    """Microphone with its last predictions and their plot."""

    def __init__(self, recognize, sampling_rate: int):
        self.stream = recognize.live(sampling_rate, hop_length_s=HOP_S, only_latest=True)
        self.events: deque[dict[str, Any]] = deque()

    def push(self, samples):
        for event in self.stream.push(samples):
            self.events.append(event)
        while self.events and self.events[0]["timestamp"][1] < self.stream.duration - LIVE_S:
            self.events.popleft()

    def draw(self) -> str:
        if not self.events:
            return LISTENING
        last, timeline, start = self.events[-1], [], max(0.0, self.events[0]["timestamp"][1] - HOP_S)
        for event in self.events:  # each at the hop that it ends with
            end = event["timestamp"][1]
            timeline.append({**event, "timestamp": (start, end)})
            start = end
        first, end = last["timestamp"]
        notes = [f"Live: the last {end - first:.0f} seconds.", *(warning["message"] for warning in last["warnings"])]
        return draw(last, {}, timeline, Picture(notes, "", None))


def _one_of(clip: str | None, sound: str | None) -> str | None:
    if clip and sound:
        raise _error("Both a video and an audio file are given. Remove one of them.")
    return clip or sound or None


def _error(fact: object, path: str | None = None) -> gr.Error:
    """Return an error for the page, which names a file without its folder."""
    message = str(fact) if path is None else str(fact).replace(path, Path(path).name)
    return gr.Error(escape(message), title="Error", print_exception=False)


def make_theme() -> gr.themes.Base:
    """Return the theme. Its fonts come with Gradio: the page loads nothing from other hosts."""
    # The semi-bold that comes with Gradio lacks letters; browsers use the bold instead.
    font = [gr.themes.LocalFont("Source Sans Pro", weights=(400, 700)), "system-ui", "sans-serif"]
    theme = gr.themes.Default(
        primary_hue="sky", neutral_hue="slate", font=font, font_mono=["ui-monospace", "monospace"]
    )
    return theme.set(  # contrast of 5.9 with white
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover_dark="*primary_800",
    )


def build(analyst: Analyst) -> gr.Blocks:
    """Build the page."""
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(DELETE_EVERY, DELETE_AFTER)) as page:
        gr.Markdown(INTRODUCTION)
        with gr.Row():
            with gr.Column(scale=2, min_width=320):
                with gr.Tabs():
                    with gr.Tab("Video"):
                        clip = gr.Video(label="Clip", sources=["upload", "webcam"], buttons=[], elem_id="clip")
                    with gr.Tab("Audio"):
                        sound = gr.Audio(
                            label="Recording",
                            sources=["upload", "microphone"],
                            type="filepath",
                            buttons=[],
                            elem_id="sound",
                        )
                    with gr.Tab("Live"):
                        microphone = gr.Audio(
                            label="Microphone", sources=["microphone"], streaming=True, buttons=[], elem_id="live"
                        )
                        live = gr.State(None, time_to_live=DELETE_AFTER)
                text = gr.Textbox(
                    label="Text",
                    placeholder="Type what is said, then press Enter",
                    lines=1,  # Enter submits
                    max_lines=6,
                    max_length=MAX_TEXT,
                    elem_id="words",
                )
                with gr.Row():
                    transcribe = gr.Button(
                        "Transcribe", visible=analyst.transcriber is not None, min_width=120, elem_id="transcribe"
                    )
                    analyse = gr.Button("Analyse", variant="primary", min_width=120, elem_id="analyse")
                inputs = [clip, sound, text]
                examples = gr.Examples(
                    list(EXAMPLES.values()), inputs, example_labels=list(EXAMPLES), cache_examples=False
                )
                gr.Markdown(NOTES, elem_classes="quiet")
            with gr.Column(scale=3, min_width=320):
                result = gr.HTML(PLACEHOLDER, elem_id="result", js_on_load=None, min_height=120)
                with gr.Accordion("JSON", open=False):
                    data = gr.JSON(show_label=False)
        outputs = [result, data]
        # One prediction at a time: tokenizers are not thread-safe.
        one_at_a_time = {"concurrency_limit": 1, "concurrency_id": "model"}
        gr.on([analyse.click, text.submit], analyst.analyse, inputs, outputs, api_name="analyse",
              scroll_to_output=True, **one_at_a_time)  # fmt: skip
        transcribe.click(analyst.transcribe, [clip, sound], text, api_name=False, **one_at_a_time)
        microphone.start_recording(lambda: (LISTENING, None), None, [result, live], queue=False,
                                   api_visibility="private")  # fmt: skip
        microphone.stream(analyst.listen, [microphone, live], [result, live], stream_every=HOP_S,
                          time_limit=60 * MAX_MINUTES, concurrency_limit=MAX_LIVE, show_progress="hidden",
                          api_visibility="private")  # fmt: skip
        # One file at a time: a new one replaces the other.
        for here, other in ((clip, sound), (sound, clip)):
            gr.on([here.upload, here.stop_recording], lambda: None, None, other, queue=False, api_visibility="private")
        examples.load_input_event.then(analyst.analyse, inputs, outputs, api_visibility="private", **one_at_a_time)
    return page.queue(max_size=QUEUE_SIZE)


def main():
    # Uploads are in a folder that is removed when the app ends, by Ctrl-C or SIGTERM.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    with tempfile.TemporaryDirectory(prefix="umons-space-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        build(Analyst(load_pipeline(), load_transcriber())).launch(
            theme=make_theme(),
            css=CSS,
            max_file_size=MAX_FILE_SIZE,
            run_history=False,  # would keep uploads
            footer_links=["api", "gradio", "settings"],
            ssr_mode=False,
        )


if __name__ == "__main__":
    main()
