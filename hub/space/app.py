# Copyright 2026 The modeling_umons authors.
# SPDX-License-Identifier: MIT
"""A page in the browser: drop or record a clip, type what is said, and see what the model makes of it.

    python app.py

Environment variables:
    MODEL: a folder or Hub repository; by default umons-mini, beside this folder in the checkout or on the Hub.
    TRANSCRIBER: a model for speech recognition, which types the words; without it, there is no such button.
"""

import os
import signal
import sys
import tempfile
from collections.abc import Callable
from html import escape
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gradio as gr
from drawing import CSS, Picture, draw


HERE = Path(__file__).resolve().parent
MINI = HERE.parent / "umons-mini"
MODEL = os.environ.get("MODEL") or (str(MINI) if MINI.is_dir() else "umons/umons-mini")
TRANSCRIBER = os.environ.get("TRANSCRIBER") or None

MAX_FILE_SIZE = "100mb"
MAX_MINUTES = 10
MAX_TEXT = 1000  # characters; the model reads 60 words
SEGMENT_S = 6.0  # of the timeline; about as long as an utterance of CMU-MOSEI
QUEUE_SIZE = 30
DELETE_EVERY, DELETE_AFTER = 60, 15 * 60  # seconds

TITLE = "Sentiment and emotion in a clip"
INTRODUCTION = f"""# {TITLE}
Drop a clip or record one, type what is said in it, or do only one of the two. A
[UMONS](https://doi.org/10.18653/v1/2020.challengehml-1.1) model says which sentiment and which emotions it hears and reads.

**It shows what people who label such clips would think is expressed, not what a person feels.** Do not use it to judge anyone."""
NOTES = f"""Files are deleted after a quarter of an hour, and nothing of what you give or get is logged. Up to
{MAX_FILE_SIZE.upper()[:-2]} MB, {MAX_MINUTES} minutes and {MAX_TEXT} characters. The examples are synthetic: a speech
synthesiser speaks, and the faces are drawings."""
PLACEHOLDER = '<p class="umons quiet">The result will stand here.</p>'

EXAMPLES = {
    "Clip and words: the boiler": [str(HERE / "examples" / "097.mp4"), None, "We finally fixed the boiler and I feel great."],
    "Clip alone: the dial": [str(HERE / "examples" / "116.mp4"), None, ""],
    "Words alone: the neighbours": [None, None, "The neighbours are rude, and I hate their loud music."],
}  # fmt: skip


def load_pipeline():
    """The pipeline of `MODEL`; with the code in its repository where the package is not installed. Ends where it fails."""
    from transformers import pipeline

    installed = find_spec("modeling_umons") is not None
    if installed:
        import_module("modeling_umons")  # registers the task
    try:
        return pipeline("multimodal-emotion-recognition", model=MODEL, trust_remote_code=None if installed else True)
    except (OSError, ValueError, ImportError) as error:
        raise SystemExit(f"The model cannot be loaded: MODEL is {MODEL}. {error}") from None


def load_transcriber():
    """The pipeline of `TRANSCRIBER`, or `None`. Ends where it fails."""
    if TRANSCRIBER is None:
        return None
    from transformers import pipeline

    try:
        return pipeline("automatic-speech-recognition", model=TRANSCRIBER)
    except (OSError, ValueError, ImportError) as error:
        raise SystemExit(f"The transcriber cannot be loaded: TRANSCRIBER is {TRANSCRIBER}. {error}") from None


class Analyst:
    """What the buttons do. Errors are `gr.Error`, in words that can stand in the page."""

    def __init__(self, recognize, transcriber: Callable | None = None):
        self.recognize, self.transcriber = recognize, transcriber
        self.has_glimpses = True  # until the model says otherwise
        # The decoder that the pipeline itself uses, and the frames: of the package, or of the model's repository.
        code = type(recognize).__module__.rpartition(".")[0]
        self.read_clip = import_module(".media", code).read_clip
        self.frames_class = import_module(".feature_extraction_umons", code).UmonsFeatureExtractor

    @property
    def window_s(self) -> float:
        """Seconds that the model hears at once."""
        return self.recognize.processor.max_duration

    def analyse(self, clip: str | None, sound: str | None, text: str | None) -> tuple[str, dict[str, Any]]:
        """The result as HTML, and as the pipeline gives it. Files are paths."""
        path, text = _one_of(clip, sound), (text or "").strip()
        if path is None and not text:
            raise _error("There is nothing to analyse yet: drop a clip, record one, or type some words.")
        if len(text) > MAX_TEXT:
            raise _error(f"The text has {len(text)} characters: {MAX_TEXT} is the most.")
        try:
            # The pipeline first: it says best what is wrong with a file.
            inputs = {"video": path, "text": text or None}
            result = self._recognize(inputs)
            heard = self._listen(path, 60.0 * MAX_MINUTES + 1)
            timeline = self._timeline(path, heard)
        except (OSError, ValueError) as error:
            raise _error(error, path) from None
        picture = Picture(
            notes=self._notes(result["modalities"], path, text, heard), text=text, spectrogram=self._spectrogram(heard)
        )
        attention = result.pop("attention", {})
        return draw(result, attention, timeline, picture), {**result, **({"timeline": timeline} if timeline else {})}

    def transcribe(self, clip: str | None, sound: str | None) -> str:
        """The words in as much of a file as the model hears."""
        path = _one_of(clip, sound)
        if path is None:
            raise _error("There is nothing to transcribe yet: drop a clip or record one.")
        try:
            heard = self.read_clip(path, video=False, max_duration=self.window_s)
            text = self.transcriber({"raw": heard.audio, "sampling_rate": heard.sampling_rate})["text"]
        except (OSError, ValueError) as error:
            raise _error(error, path) from None
        return text.strip()[:MAX_TEXT]

    def _recognize(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """A result, with `attention` if the model has glimpses, as those of other architectures have not."""
        if self.has_glimpses:
            try:
                return self.recognize(inputs, return_attention=True)
            except ValueError:
                result = self.recognize(inputs)  # raises the same if it was about the input
                self.has_glimpses = False
                return result
        return self.recognize(inputs)

    def _listen(self, path: str | None, max_duration: float):
        """The sound of a file that the pipeline has read, or `None` where there is none."""
        if path is None or "audio" not in self.recognize.model.config.modalities:
            return None
        try:
            return self.read_clip(path, video=False, max_duration=max_duration)
        except OSError:
            return None

    def _timeline(self, path: str | None, heard) -> list[dict[str, Any]]:
        """A result for every few seconds of a clip that is longer than the model hears at once."""
        if heard is None or heard.duration <= self.window_s:
            return []
        if heard.duration > 60 * MAX_MINUTES:
            raise ValueError(f"The clip is longer than {MAX_MINUTES} minutes: cut it, and try again with a part.")
        return self.recognize({"video": path}, chunk_length_s=SEGMENT_S, batch_size=8)

    def _spectrogram(self, heard) -> tuple[Any, float, float] | None:
        """Log-mel frames (num_frames, mel bins) of what the model heard, seconds before the first and between two."""
        if heard is None or heard.audio is None:
            return None
        own = self.recognize.processor.feature_extractor  # that of an encoder may be of any kind
        settings = own.to_dict() if hasattr(own, "frame_stride") else {}
        # finer in time than the model's own, for the eye
        fine = self.frames_class.from_dict({**settings, "frame_stride": 2, "delta_lags": None})
        frames = fine(
            [heard.audio],
            sampling_rate=heard.sampling_rate,
            max_length=max(1, round(self.window_s / fine.frame_duration)),
            return_offsets=True,
        )
        return frames["input_features"][0], float(frames["offsets"][0]), fine.frame_duration

    def _notes(self, counted: list[str], path: str | None, text: str, heard) -> list[str]:
        """In words: what counted, what was missing and why, what was too long."""
        config = self.recognize.model.config
        looks = any(getattr(config, name, None) is not None for name in ("video_tower", "video_encoder"))
        names = {"text": "the words", "audio": "the sound", "video": "the pictures"}
        notes = [f"This is from {' and '.join(names[modality] for modality in counted)}."]
        unable = {
            "text": "read words" if "text" not in config.modalities else None,
            "audio": "listen" if "audio" not in config.modalities else None,
            "video": "look at pictures" if not looks else None,
        }
        given = {"text": bool(text), "audio": path is not None, "video": path is not None}
        missing = {"text": "No words were", "audio": "No sound was", "video": "No pictures were"}
        for modality in names:
            if unable[modality]:
                notes.append(f"This model does not {unable[modality]}.")
            elif modality not in counted:
                notes.append(f"{missing[modality]} {'found in what was given' if given[modality] else 'given'}.")
        if heard is not None and heard.duration > self.window_s:
            notes.append(f"The model hears {self.window_s:.0f} seconds at once: this is about the first of them.")
        return notes


def _one_of(clip: str | None, sound: str | None) -> str | None:
    if clip and sound:
        raise _error("There are a video and a sound: remove one of them.")
    return clip or sound or None


def _error(fact: object, path: str | None = None) -> gr.Error:
    """What the page shows. The visitor knows the file by its name, not by where it is kept."""
    words = str(fact) if path is None else str(fact).replace(path, Path(path).name)
    return gr.Error(escape(words), title="That did not work", print_exception=False)


def make_theme() -> gr.themes.Base:
    """Calm colours, and a font that Gradio serves itself: nothing is fetched from elsewhere."""
    # The semi-bold that comes with Gradio lacks letters; browsers take the bold in its place.
    font = [gr.themes.LocalFont("Source Sans Pro", weights=(400, 700)), "system-ui", "sans-serif"]
    theme = gr.themes.Default(
        primary_hue="sky", neutral_hue="slate", font=font, font_mono=["ui-monospace", "monospace"]
    )
    return theme.set(  # white on it has a contrast of 5.9
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover_dark="*primary_800",
    )


def build(analyst: Analyst) -> gr.Blocks:
    """The page."""
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(DELETE_EVERY, DELETE_AFTER)) as page:
        gr.Markdown(INTRODUCTION)
        with gr.Row():
            with gr.Column(scale=2, min_width=320):
                with gr.Tabs():
                    with gr.Tab("Video"):
                        clip = gr.Video(label="A clip", sources=["upload", "webcam"], buttons=[], elem_id="clip")
                    with gr.Tab("Sound"):
                        sound = gr.Audio(
                            label="A recording",
                            sources=["upload", "microphone"],
                            type="filepath",
                            buttons=[],
                            elem_id="sound",
                        )
                text = gr.Textbox(
                    label="What is said",
                    placeholder="Type the words, then press Enter",
                    lines=1,  # so that Enter analyses
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
                with gr.Accordion("The same as JSON", open=False):
                    data = gr.JSON(show_label=False)
        outputs = [result, data]
        # The model answers one at a time: tokenizers are not made for threads, and the machine is small.
        one_at_a_time = {"concurrency_limit": 1, "concurrency_id": "model"}
        gr.on([analyse.click, text.submit], analyst.analyse, inputs, outputs, api_name="analyse",
              scroll_to_output=True, **one_at_a_time)  # fmt: skip
        transcribe.click(analyst.transcribe, [clip, sound], text, api_name=False, **one_at_a_time)
        # One file at a time: another one takes its place.
        for here, other in ((clip, sound), (sound, clip)):
            gr.on([here.upload, here.stop_recording], lambda: None, None, other, queue=False, api_visibility="private")
        examples.load_input_event.then(analyst.analyse, inputs, outputs, api_visibility="private", **one_at_a_time)
    return page.queue(max_size=QUEUE_SIZE)


def main():
    # What visitors give stands in a folder that goes when the app ends, by Ctrl-C or by the signal that a container gets.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    with tempfile.TemporaryDirectory(prefix="umons-space-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        build(Analyst(load_pipeline(), load_transcriber())).launch(
            theme=make_theme(),
            css=CSS,
            max_file_size=MAX_FILE_SIZE,
            run_history=False,  # would keep what visitors give
            footer_links=["api", "gradio", "settings"],
            ssr_mode=False,
        )


if __name__ == "__main__":
    main()
