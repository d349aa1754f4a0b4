"""The Space in hub/space: its page in headless Chromium, and the actions of its buttons."""

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import wave
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from huggingface_hub import RepoCard

from modeling_umons.inference.loading import load_pipeline
from modeling_umons.publishing.assemble import assemble_folder


pytest.importorskip("gradio", reason="the Space needs the extra `space`")
webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed (extra `dev`)")

from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support import expected_conditions as expected  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402


CHROMIUM, CHROMEDRIVER = (shutil.which(name) for name in ("chromium", "chromedriver"))
FLAGS = [
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--window-size=1280,1100",
]  # fmt: skip
WORDS = "We laughed the whole way home, it was a wonderful evening."
EMOTIONS = {"happy", "sad", "anger", "surprise", "disgust", "fear", "neutral"}

# As on the Hub: the package is not installed, and the model comes with its code.
WITHOUT_THE_PACKAGE = """
import runpy, sys
from importlib.util import find_spec
checkout, app = sys.argv[1:]
sys.path[:] = [path for path in sys.path if path not in ("", checkout)]
sys.meta_path[:] = [finder for finder in sys.meta_path if "__editable__" not in getattr(finder, "__module__", "")]
assert find_spec("modeling_umons") is None
sys.path.insert(0, app.rpartition("/")[0])
runpy.run_path(app, run_name="__main__")
"""


def save_transcriber(folder: Path) -> Path:
    """Save a tiny speech recognition model that outputs "a"."""
    from transformers import (
        Wav2Vec2Config,
        Wav2Vec2CTCTokenizer,
        Wav2Vec2FeatureExtractor,
        Wav2Vec2ForCTC,
        Wav2Vec2Processor,
    )

    folder.mkdir()
    vocabulary = folder / "vocabulary.json"
    vocabulary.write_text(json.dumps({"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3, "|": 4, "a": 5}), encoding="utf-8")
    Wav2Vec2Processor(Wav2Vec2FeatureExtractor(), Wav2Vec2CTCTokenizer(str(vocabulary))).save_pretrained(folder)
    model = Wav2Vec2ForCTC(
        Wav2Vec2Config(
            vocab_size=6, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
            conv_dim=(8,) * 7, num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=2,
        )
    )  # fmt: skip
    model.lm_head.weight.data.zero_()
    model.lm_head.bias.data[5] = 1.0
    model.save_pretrained(folder)
    return folder


class Server:
    """The app in its own process, from a copy of its folder; `lines` is its output."""

    def __init__(self, root: Path, folder: Path):
        space = shutil.copytree(root / "hub" / "space", folder / "space")
        assemble_folder(root / "hub" / "umons-mini", folder / "umons-mini")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self._url = f"http://127.0.0.1:{port}/"
        self.files = folder / "files"
        self.files.mkdir()
        environment = {
            "MODEL": str(folder / "umons-mini"),
            "TRANSCRIBER": str(save_transcriber(folder / "transcriber")),
            "GRADIO_SERVER_NAME": "127.0.0.1",
            "GRADIO_SERVER_PORT": str(port),
            "TMPDIR": str(self.files),
            "GRADIO_ANALYTICS_ENABLED": "False",
            "HF_HOME": str(folder / "hf"),
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
            "PYTHONUNBUFFERED": "1",
        }
        self.process = subprocess.Popen(
            [sys.executable, "-c", WITHOUT_THE_PACKAGE, root, space / "app.py"],
            cwd=folder,
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines, self._started = [], threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def url(self) -> str:
        """Wait until the app runs, and return its URL."""
        if not (self._started.wait(120) and self.process.poll() is None):
            self.stop()
            pytest.fail("the app did not start:\n" + "".join(self.lines))
        return self._url

    def _read(self):
        for line in self.process.stdout:
            self.lines.append(line)
            if "Running on" in line:
                self._started.set()
        self._started.set()

    def stop(self):
        self.process.terminate()
        self.process.wait(20)
        self._reader.join(20)
        self.process.stdout.close()


@pytest.fixture(scope="module")
def server(root, tmp_path_factory):
    server = Server(root, tmp_path_factory.mktemp("space"))
    yield server
    were_there = list(server.files.rglob("*.mp4"))
    server.stop()
    assert were_there
    assert [path for path in server.files.rglob("*") if path.suffix in (".mp4", ".wav")] == []  # nothing is kept


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if CHROMIUM is None or CHROMEDRIVER is None:
        pytest.skip("chromium and chromedriver are not installed (apt-get install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in [*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(CHROMEDRIVER))
    driver.get("data:,")
    driver.get_log("performance")  # of the browser's own first page
    yield driver
    driver.quit()


class Page:
    """The page, with the actions of a visitor."""

    def __init__(self, driver, url: str):
        self.driver, self.url = driver, url
        self.wait = WebDriverWait(driver, 60)

    def open(self, query: str = ""):
        self.driver.get(self.url + query)
        self.find("#analyse")
        self.find(".gallery-item")
        return self

    def find(self, selector: str):
        return self.wait.until(expected.visibility_of_element_located((By.CSS_SELECTOR, selector)))

    def all(self, selector: str) -> list:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def run(self, script: str, *arguments):
        return self.driver.execute_script(script, *arguments)

    def upload_clip(self, path: Path):
        (file,) = self.all("#clip input[type=file]")
        file.send_keys(str(path))
        self.find("#clip video, #clip [aria-label=Clear]")

    def type(self, text: str):
        self.find("#words textarea").send_keys(text)

    def click(self, selector: str):
        self.wait.until(expected.element_to_be_clickable((By.CSS_SELECTOR, selector))).click()

    def click_example(self, number: int):
        self.wait.until(lambda driver: len(self.all(".gallery-item")) == 3)
        self.all(".gallery-item")[number].click()

    def results(self) -> list[tuple[str, float]]:
        """Wait for emotions and scores."""
        self.find("#result .emotions")
        labels = [label.text for label in self.all("#result .emotions .label")]
        scores = [float(score.text) for score in self.all("#result .emotions .number")]
        return list(zip(labels, scores, strict=True))

    def result_for(self, words: str) -> list[tuple[str, float]]:
        self.wait.until(expected.text_to_be_present_in_element((By.CSS_SELECTOR, "#result"), words))
        return self.results()

    def error(self, words: str) -> str:
        """Return the error message with these words, and close all messages."""
        notices = "return [...document.querySelectorAll('[data-testid=toast-body]')].map(notice => notice.innerText)"
        close = "document.querySelectorAll('[data-testid=toast-close]').forEach(button => button.click())"
        said = self.wait.until(lambda driver: [text for text in driver.execute_script(notices) if words in text])
        self.wait.until(lambda driver: (driver.execute_script(close), not driver.execute_script(notices))[1])
        return said[0]

    def screenshot(self, folder: Path, name: str):
        self.driver.execute_async_script("document.fonts.ready.then(arguments[0])")
        folders = [folder, *([Path(os.environ["SCREENSHOTS"])] if os.environ.get("SCREENSHOTS") else [])]
        for place in folders:
            place.mkdir(parents=True, exist_ok=True)
            assert self.driver.save_screenshot(place / f"space-{name}.png")

    def overflow(self) -> list[str]:
        """Return the elements that are wider than the screen."""
        if self.run("return document.documentElement.scrollWidth <= innerWidth"):
            return []
        return self.run(
            "return [...document.querySelectorAll('*')].filter(e => e.getBoundingClientRect().right > innerWidth)"
            ".map(e => e.tagName + '.' + e.className)"
        ) or ["the page"]


@pytest.fixture
def page(server, browser):
    """Open the page. Fail if a test leaves errors in the console or loads anything from another host."""
    page = Page(browser, server.url).open()
    yield page
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    fetched = {event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"}
    assert [url for url in fetched if not url.startswith((server.url, "data:", "blob:"))] == []


def test_clip_and_text(page, root, tmp_path):
    page.upload_clip(root / "hub" / "sample" / "clips" / "018.mp4")
    page.type(WORDS)
    page.click("#analyse")
    emotions = page.results()
    assert {label for label, _ in emotions} == EMOTIONS
    assert [score for _, score in emotions] == sorted((score for _, score in emotions), reverse=True)
    dial = page.find("#result .dial").get_attribute("aria-label")
    assert float(dial.split()[1]) > 1
    assert dial.endswith("on a scale from -3 to +3: positive")
    assert page.find("#result .words").text == WORDS
    weights = {word.text: float(word.get_attribute("style").split(":")[1].strip(" ;")) for word in page.all(".word")}
    assert len(weights) == 11
    assert max(weights, key=weights.get) == "wonderful"
    assert page.run("return document.querySelector('#result .spectrogram').naturalWidth") > 100
    assert page.all("#result .timeline") == []
    assert "Predicted from text and audio. This model does not use video." in page.find("#result").text
    page.screenshot(tmp_path, "clip-and-words")


def test_page_works_by_keyboard(page):
    for _ in range(20):
        box = page.driver.switch_to.active_element
        if box.tag_name == "textarea":
            break
        box.send_keys(Keys.TAB)
    assert box.accessible_name == "Text"
    box.send_keys("what a wonderful day", Keys.ENTER)
    assert page.result_for("wonderful")[0][0] == "happy"
    box.send_keys(Keys.CONTROL + "a")
    box.send_keys("this is awful and boring", Keys.TAB)
    assert page.driver.switch_to.active_element.accessible_name == "Transcribe"
    page.driver.switch_to.active_element.send_keys(Keys.TAB)
    button = page.driver.switch_to.active_element
    assert button.accessible_name == "Analyse"
    assert button.value_of_css_property("outline-style") == "solid"
    assert float(button.value_of_css_property("outline-width").removesuffix("px")) >= 2
    button.send_keys(Keys.SPACE)
    assert page.result_for("boring")[0][0] in ("sad", "disgust")
    assert page.all("#result .spectrogram") == []
    assert "No audio given." in page.find("#result").text


def test_examples(page):
    for number, word, emotion in ((1, "flight", "anger"), (2, "hostel", "disgust"), (0, "boiler", "happy")):
        page.click_example(number)
        assert page.result_for(word)[0][0] == emotion
        assert len(page.all("#result .spectrogram")) == (number != 2)


def test_transcriber_fills_in_the_text(page, root):
    page.click("#transcribe")
    assert page.error("Nothing to transcribe")
    page.upload_clip(root / "hub" / "sample" / "clips" / "018.mp4")
    page.click("#transcribe")
    page.wait.until(lambda driver: page.find("#words textarea").get_property("value") == "a")


def test_microphone(page):
    """Record the fake device of Chromium, which beeps."""
    page.all("button[role=tab]")[1].click()
    page.click("#sound button[aria-label='Record audio']")
    page.click("#sound .record-button")
    page.wait.until(lambda driver: "0:02" in page.find("#sound").text)  # it beeps once a second
    page.click("#sound .stop-button")
    page.find("#sound .waveform-container, #sound #waveform")
    page.click("#analyse")
    assert {label for label, _ in page.results()} == EMOTIONS
    page.find("#result .spectrogram")
    assert "Predicted from audio. No text given." in page.find("#result").text
    assert page.all("#result .words") == []


def test_live_microphone_draws_a_moving_curve(page, tmp_path):
    page.all("button[role=tab]")[2].click()
    page.click("#live .record-button")
    points = (
        "return (document.querySelector('#result .curve polyline')?.getAttribute('points') ?? '').split(' ').length"
    )
    page.wait.until(lambda driver: page.run(points) >= 5)
    text = page.find("#result").text
    assert "Live: the last " in text
    assert {label for label, _ in page.results()} == EMOTIONS
    page.screenshot(tmp_path, "live")
    page.wait.until(lambda driver: page.run(points) >= 7)
    page.click("#live .stop-button")


def test_camera(page):
    page.click("#clip button[aria-label='Capture from camera']")
    page.click("#clip [title='grant webcam access'] button")
    page.click("#clip button[aria-label='start recording']")
    clock = "return document.querySelector('#clip video').currentTime"
    begun = page.run(clock)
    page.wait.until(lambda driver: page.run(clock) > begun + 2)
    page.click("#clip .capture-button")  # it says "Stop" now
    page.find("#clip [aria-label=Clear]")
    page.click("#analyse")
    assert {label for label, _ in page.results()} == EMOTIONS
    assert "Predicted from audio." in page.find("#result").text


def test_errors_are_shown_and_the_app_continues(page, tmp_path):
    page.click("#analyse")
    assert page.error("Nothing to analyse")
    fake = tmp_path / "fake.mp4"
    fake.write_text("not a clip", encoding="utf-8")
    page.upload_clip(fake)
    page.click("#analyse")
    said = page.error("fake.mp4 could not be opened as a video or audio file")
    assert "/fake.mp4" not in said  # nor where it is kept
    page.open().type("what a wonderful day")
    page.click("#analyse")
    assert page.results()


def test_markup_is_escaped(page):
    hostile = "<img src=x onerror=\"document.title='owned'\"> ${1+1} {{value}} <b>wonderful</b>"
    page.type(hostile)
    page.click("#analyse")
    page.results()
    assert page.find("#result .words").text == hostile
    assert page.all("#result img, #result b") == []
    page.find("#words textarea").clear()
    page.type("!!!")
    page.click("#analyse")
    assert page.error("no word in its text, '!!!'")  # escaped, and read as what it was
    assert page.driver.title != "owned"


def test_page_on_a_phone(page, sample_minute, tmp_path):
    page.driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    )
    page.open()
    page.click_example(0)
    page.find("#result .spectrogram")
    page.screenshot(tmp_path, "phone")
    assert page.run("return innerWidth") == 390
    assert page.overflow() == []
    columns = [column.rect for column in page.all(".row > .column")][:2]
    assert columns[0]["x"] == columns[1]["x"]
    page.all("button[role=tab]")[1].click()
    (file,) = page.all("#sound input[type=file]")
    file.send_keys(str(sample_minute))
    page.find("#sound .waveform-container, #sound #waveform")
    page.click("#analyse")
    assert len(page.find("#result .timeline").find_elements(By.CSS_SELECTOR, ".strip")) == 7
    assert "longer than the model processes at once" in page.find("#result").text
    page.run("document.querySelector('#result').scrollIntoView()")
    page.screenshot(tmp_path, "phone-timeline")
    assert page.run("return innerWidth") == 390
    assert page.overflow() == []


# Contrast of a text with its background, of all layers blended.
CONTRAST = """
const context = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
const luminance = () => {
  const [r, g, b] = [...context.getImageData(0, 0, 1, 1).data].slice(0, 3).map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const paint = colour => { context.fillStyle = colour; context.fillRect(0, 0, 1, 1); };
return arguments[0].map(selector => {
  const element = document.querySelector(selector), layers = [];
  for (let e = element; e; e = e.parentElement) layers.unshift(getComputedStyle(e).backgroundColor);
  ['white', ...layers].forEach(paint);
  const behind = luminance();
  paint(getComputedStyle(element).color);
  const pair = [behind, luminance()].sort((a, b) => b - a);
  return (pair[0] + 0.05) / (pair[1] + 0.05);
});
"""


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_is_legible_in(page, tmp_path, theme):
    page.open(f"?__theme={theme}")
    page.click_example(0)
    page.find("#result .spectrogram")
    page.screenshot(tmp_path, theme)
    is_dark = page.run("return document.body.classList.contains('dark')")
    assert is_dark == (theme == "dark")
    page.run(
        "const words = [...document.querySelectorAll('.word')];"
        "words.sort((a, b) => b.style.getPropertyValue('--weight') - a.style.getPropertyValue('--weight'))[0].id = "
        "'top'"
    )
    texts = ["#top", "#result .label", "#result .quiet", "#result .number", "#result .axis span", "#result h3"]
    contrasts = dict(zip(texts, page.run(CONTRAST, texts), strict=True))
    assert min(contrasts.values()) >= 4.5, contrasts
    (analyse,) = page.run(CONTRAST, ["#analyse"])
    assert analyse >= 4.5


def ask(url: str, text: str) -> tuple[str, str]:
    """Call the API; return the final event and its data, as JSON."""
    with httpx.Client(base_url=url, timeout=60) as client:
        call = client.post("gradio_api/call/analyse", json={"data": [None, None, text]})
        if call.status_code != 200:
            return "refused", call.text
        answer = client.get(f"gradio_api/call/analyse/{call.json()['event_id']}").text
    event, data = answer.strip().rpartition("event: ")[2].split("\ndata: ")
    return event, data


def test_fifty_concurrent_visitors(server):
    with ThreadPoolExecutor(50) as threads:
        ends = list(threads.map(lambda i: ask(server.url, f"what a wonderful day {i}"), range(50)))
    answers = [json.loads(data)[1] for event, data in ends if event == "complete"]
    refusals = [data for event, data in ends if event != "complete"]
    assert len(answers) >= 20
    assert all(answer["emotions"][0]["label"] == "happy" for answer in answers)
    assert all("Queue is full" in refusal for refusal in refusals), refusals
    event, data = ask(server.url, "one more")
    assert event == "complete"
    assert json.loads(data)[1]["modalities"] == ["text"]
    assert server.process.poll() is None
    said = "".join(server.lines)
    assert "wonderful" not in said  # inputs are not logged
    assert "Traceback" not in said


# Actions of the buttons, without a browser and with the package.


@pytest.fixture(scope="module")
def app(root):
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.syspath_prepend(str(root / "hub" / "space"))
        import app

        yield app
        for name in ("app", "drawing"):
            del sys.modules[name]


@pytest.fixture(scope="module")
def analyst(app, root):
    assert Path(app.MODEL) == root / "hub" / "umons-base"
    return app.Analyst(app.load_pipeline())


def write_wav(path: Path, samples: np.ndarray, rate: int) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((32767 * samples).astype("<i2").tobytes())
    return path


@pytest.fixture(scope="module")
def sample_minute(root, tmp_path_factory):
    """Write a WAV file of 40 seconds of speech."""
    from modeling_umons.models.umons.media_umons import read_clip

    clips = sorted((root / "hub" / "sample" / "clips").glob("*.mp4"))[:16]
    sound = np.concatenate([read_clip(clip, video=False).audio for clip in clips])[: 40 * 22050]
    return write_wav(tmp_path_factory.mktemp("sound") / "minute.wav", np.clip(sound, -1, 1), 22050)


def test_long_clip_has_a_timeline(analyst, sample_minute):
    html, data = analyst.analyse(None, str(sample_minute), "one two three")
    times = [entry["timestamp"] for entry in data["timeline"]]
    assert times[0] == (0.0, 6.0)
    assert times[-1][1] == pytest.approx(40.0, abs=0.1)
    assert html.count('class="plot strip"') == 7
    assert "longer than the model processes at once" in html


def test_long_inputs_are_refused(analyst, app, tmp_path):
    import gradio

    noise = 0.1 * np.random.default_rng(0).random(602 * 2000)
    path = write_wav(tmp_path / "hours.wav", noise, 2000)
    with pytest.raises(gradio.Error, match="longer than 10 minutes"):
        analyst.analyse(None, str(path), "")
    with pytest.raises(gradio.Error, match="1001 characters, more than 1000"):
        analyst.analyse(None, None, "a" * (app.MAX_TEXT + 1))
    with pytest.raises(gradio.Error, match="Both a video and an audio file"):
        analyst.analyse("clip.mp4", "sound.wav", "")


def test_all_words_of_a_long_text_are_shown(analyst):
    html, _ = analyst.analyse(None, None, "good " * 190 + "& bad")
    assert html.count('class="word"') >= 191
    assert html.count('class="share"') >= 191
    assert "<p>Label: " in html
    assert "90 % interval of the sentiment: " in html
    assert "longer than the model processes at once" in html
    html, _ = analyst.analyse(None, None, "\N{POUTING FACE}")
    assert "The text has emoji only" in html
    assert "angry" in html
    for text in ("ﬁne İSTANBUL e\u0301te\u0301 😀 good", "don't ...good!? ‮dog", "ǅ \u200d ß good\nbad"):
        html, _ = analyst.analyse(None, None, text)
        assert "good" in html


def test_transcriber_gets_as_much_as_the_model_processes(app, analyst, sample_minute, root):
    import gradio

    heard = []

    def transcriber(sound):
        heard.append(len(sound["raw"]) / sound["sampling_rate"])
        return {"text": " what was said "}

    listening = app.Analyst(analyst.recognize, transcriber)
    assert listening.transcribe(None, str(sample_minute)) == "what was said"
    assert heard[0] == pytest.approx(analyst.window_s, abs=0.05)
    with pytest.raises(gradio.Error, match="Nothing to transcribe"):
        listening.transcribe(None, None)


def test_other_models(app, analyst, root, monkeypatch):
    """Baselines without glimpses and towers, classifiers, and a model of sentiment only."""
    import torch

    from modeling_umons import TfnConfig, TfnForSequenceClassification, UmonsConfig, UmonsForSequenceClassification

    clip, mini = str(root / "hub" / "sample" / "clips" / "018.mp4"), load_pipeline("umons-mini")
    processor, frame_size = mini.processor, mini.model.config.audio_feature_size
    sizes = {"vocab_size": len(processor.tokenizer), "audio_feature_size": frame_size, "modalities": ["text", "audio"]}
    sizes |= {"word_embedding_size": 8, "hidden_size": 16}
    small = {**sizes, "intermediate_size": 16, "num_hidden_layers": 1}
    classes = {"id2label": {0: "calm & cool", 1: "angry"}, "problem_type": "single_label_classification"}
    monkeypatch.setattr(app, "SEGMENT_S", 1.0)
    monkeypatch.setattr(app.Analyst, "window_s", 1.5)
    torch.manual_seed(0)
    for model, shown, glimpses in (
        (TfnForSequenceClassification(TfnConfig(**sizes, num_labels=7, joint_sentiment=True)), "happy", False),
        (TfnForSequenceClassification(TfnConfig(**sizes, **classes)), "calm &amp; cool", False),
        (UmonsForSequenceClassification(UmonsConfig(**small, **classes)), "calm &amp; cool", True),
        (UmonsForSequenceClassification(UmonsConfig(**small, num_labels=1)), "Sentiment ", True),
    ):
        other = app.Analyst(type(mini)(model=model.eval(), processor=processor))
        for given in ((clip, None, WORDS), (None, None, WORDS)):
            html, data = other.analyse(*given)
            assert shown in html
            assert ("Attention weights: text" in html) == glimpses
            assert "attention" not in data
        assert other.has_glimpses == glimpses
        assert "does not use video" in html
        assert len(other.analyse(clip, None, "")[1]["timeline"]) > 1
        with pytest.raises(app.gr.Error, match="no word in its text"):
            other.analyse(None, None, "!!!")
        assert other.has_glimpses == glimpses


def test_missing_models_exit_with_a_message(app, tmp_path, monkeypatch):
    for name, load in (("MODEL", app.load_pipeline), ("TRANSCRIBER", app.load_transcriber)):
        for place in (tmp_path, tmp_path / "nowhere"):
            monkeypatch.setattr(app, name, str(place))
            with pytest.raises(SystemExit, match=f"cannot be loaded: {name} is {place}. "):
                load()


def test_card_and_requirements(root):
    folder = root / "hub" / "space"
    card = RepoCard.load(folder / "README.md").data.to_dict()
    assert card["sdk"] == "gradio"
    assert card["license"] == "mit"
    assert (folder / card["app_file"]).is_file()
    assert len(card["short_description"]) <= 60
    metadata = (root / "pyproject.toml").read_text(encoding="utf-8")
    wanted = [
        line for line in (folder / "requirements.txt").read_text(encoding="utf-8").split("\n") if line[:1].isalpha()
    ]
    assert wanted
    assert all(f'"{line}"' in metadata for line in wanted)
    for clip in (folder / "examples").iterdir():
        assert not clip.is_symlink()
        assert clip.read_bytes() == (root / "hub" / "sample" / "clips" / clip.name).read_bytes()
