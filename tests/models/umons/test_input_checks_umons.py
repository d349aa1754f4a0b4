"""Warnings for text and audio that a model cannot be expected to understand."""

import csv

import numpy as np
import pytest
from small_pipelines import RATE, make_pipeline

from modeling_umons import build_tokenizer
from modeling_umons.models.umons.input_checks_umons import (
    ENGLISH,
    SHARED,
    check_audio,
    check_sampling_rate,
    check_text,
    read_emoji,
)
from modeling_umons.models.umons.media_umons import read_clip, resample


ORDINARY = """
The meeting is at ten o'clock on Tuesday.
I can't believe you did that!
Oh no.
Nooooo!
What?
My grandmother died last night.
We finally fixed the boiler and I feel great.
He was born in 1962.
I'm so scared of the dark
That's disgusting, take it away.
""".strip().splitlines()
FOREIGN = """
Der Zug kommt heute leider wieder zu spät.
Ich habe dich so sehr vermisst.
Mir ist kalt.
Je ne sais pas quoi faire.
Elle est partie hier soir avec ses amis.
No puedo creer que te hayas ido.
Hoy hace mucho frío en la calle.
Non so cosa dire, sono davvero arrabbiato.
Het regent al de hele dag.
Hoje o dia está muito bonito.
Nie wiem, co mam zrobić.
Jag vet inte vad jag ska göra.
Bu akşam ne pişirsem bilmiyorum.
Tidak ada yang tahu jawabannya.
Kissa nukkuu pöydän alla.
A macska az asztal alatt alszik.
Ngày mai trời sẽ mưa.
""".strip().splitlines()
SCRIPTS = """
Мне очень страшно.
我不知道。
とても怖い
너무 무서워요
أنا خائف جدا
אני מפחד
मुझे डर लग रहा है
Φοβάμαι πολύ.
""".strip().splitlines()


@pytest.fixture(scope="module")
def tokenizer():
    """Words of the ordinary texts, and the frequent ones."""
    return build_tokenizer([*" ".join(ORDINARY).split(), *ENGLISH, *SHARED])


def codes(warnings) -> list[str]:
    return [warning["code"] for warning in warnings]


def test_ordinary_text_has_no_warning(tokenizer):
    for text in ORDINARY:
        assert check_text(text, tokenizer, "en") == [], text


@pytest.mark.parametrize("text", FOREIGN)
def test_other_language_is_named(tokenizer, text):
    assert codes(check_text(text, tokenizer, "en")) in (["other_language"], ["unknown_words"])


@pytest.mark.parametrize("text", SCRIPTS)
def test_other_script_is_named(tokenizer, text):
    assert codes(check_text(text, tokenizer, "en")) == ["other_script"]


def test_full_width_letters_are_latin(tokenizer):
    wide = "The carpet was filthy".translate({code: code + 0xFEE0 for code in range(0x21, 0x7F)})
    assert codes(check_text(wide, tokenizer, "en")) == codes(check_text("The carpet was filthy", tokenizer, "en"))


@pytest.mark.parametrize("language", ["en", None])
def test_unknown_words_are_listed(tokenizer, language):
    (warning,) = check_text("asdf qwer", tokenizer, language)
    assert warning == {
        "code": "unknown_words",
        "message": "100 % of the words are unknown to the model: asdf, qwer.",
    }


def test_language_is_not_checked_for_other_models(tokenizer):
    german = build_tokenizer(["mir", "ist", "kalt"])
    assert check_text("Mir ist kalt.", german, None) == []
    assert codes(check_text("Mir ist kalt.", german, "en")) == ["other_language"]


def test_emoji_are_read_once_and_in_order():
    assert read_emoji("\U0001f621\U0001f621 \U0001f62d") == "I am very angry. I am crying"
    assert read_emoji("!? \U0001f9f6") == ""
    pipeline = make_pipeline(joint_sentiment=True)
    assert codes(pipeline({"text": "\U0001f60a"})["warnings"]) == ["emoji"]
    assert codes(pipeline({"text": "\U0001f9f6"})["warnings"]) == ["no_words"]
    assert pipeline({"text": "so glad \U0001f60a"})["warnings"] == []
    result = pipeline({"text": "?!", "audio": speech(), "sampling_rate": RATE})
    assert codes(result["warnings"]) == ["no_words"]
    assert result["modalities"] == ["audio"]


def speech(seconds: float = 3.0) -> np.ndarray:
    """Syllables of different pitch and colour with pauses between them; float32 (samples,)."""
    random, syllables = np.random.default_rng(0), []
    while sum(map(len, syllables)) < seconds * RATE:
        time = np.arange(round(random.uniform(0.1, 0.25) * RATE)) / RATE
        harmonics = [
            np.sin(2 * np.pi * k * random.uniform(110, 220) * time) * random.uniform(0, 1) / k for k in range(1, 12)
        ]
        syllables += [sum(harmonics) * np.hanning(len(time)), np.zeros(round(random.uniform(0.02, 0.1) * RATE))]
    sound = np.concatenate(syllables)[: round(seconds * RATE)]
    return (0.5 * sound / np.abs(sound).max()).astype(np.float32)


def test_noise_and_hum_are_no_speech():
    noise = np.random.default_rng(0).standard_normal(3 * RATE).astype(np.float32)
    hum = np.sin(2 * np.pi * 50 * np.arange(3 * RATE) / RATE).astype(np.float32)
    for sound in (0.1 * noise, 0.1 * hum):
        assert codes(check_audio(sound, RATE)) == ["no_speech"]


def test_chords_are_no_speech():
    time = np.arange(RATE // 4) / RATE
    chords = [
        sum(np.sin(2 * np.pi * note * k * time) / k for note in (root, 1.25 * root, 1.5 * root) for k in (1, 2, 3))
        for root in (220, 262, 330, 294, 247, 196)
    ]
    music = 0.1 * np.concatenate([chord * np.exp(-3 * time) for chord in chords])
    assert codes(check_audio(music.astype(np.float32), RATE)) == ["no_speech"]


def test_low_rumble_over_speech_is_noise():
    sound = speech()
    spectrum = np.fft.rfft(np.random.default_rng(0).standard_normal(len(sound)))
    rumble = np.fft.irfft(spectrum / np.maximum(np.fft.rfftfreq(len(sound), 1 / RATE), 50))
    rumble *= np.sqrt((sound**2).mean() / (rumble**2).mean())
    for level_db, expected in ((-30, []), (-5, ["noisy"])):
        mixed = sound + rumble * 10 ** (level_db / 20)
        assert codes(check_audio(0.5 * mixed / np.abs(mixed).max(), RATE)) == expected


def test_clipping_is_named_after_resampling():
    sound = speech()
    for rate in (16_000, 44_100):
        clipped = resample(np.clip(sound * 8, -1, 1), RATE, rate)
        assert "clipped" in codes(check_audio(clipped, rate))
        assert check_audio(resample(sound, RATE, rate), rate) == []


def test_level_clipping_and_range_are_named():
    sound = speech()
    assert codes(check_audio(sound * 1e-3, RATE)) == ["quiet"]
    assert "clipped" in codes(check_audio(np.clip(sound * 8, -1, 1), RATE))
    assert "value_range" in codes(check_audio((sound + 1) / 2, RATE))
    assert "value_range" in codes(check_audio(sound * 8, RATE))
    assert codes(check_audio(sound[: RATE // 5], RATE)) == ["short_audio"]
    assert codes(check_sampling_rate(4000)) == codes(check_sampling_rate(441_000)) == ["sampling_rate"]
    assert check_sampling_rate(8000) == check_sampling_rate(48_000.0) == []


def test_recordings_have_no_warning_until_they_are_noisy(shared):
    paths = [
        *sorted((shared / "data/emodb").glob("*.flac"))[::20],
        *sorted((shared / "data/ravdess").rglob("*.flac"))[::80],
    ]
    noise = np.random.default_rng(0).standard_normal(12 * RATE)
    noisy = 0
    for path in paths:
        sound = read_clip(path, video=False, sampling_rate=RATE).audio
        assert check_audio(sound, RATE) == [], path
        level = np.sqrt(np.sort(sound**2)[len(sound) // 2 :].mean() / 10 ** (5 / 10))
        noisy += codes(check_audio((sound + level * noise[: len(sound)]).astype(np.float32), RATE)) != []
    assert noisy == len(paths)


def test_few_ordinary_texts_have_a_warning(shared):
    """Utterances of a series, with names and exclamations."""
    with open(shared / "data/meld/dev_sent_emo.csv", encoding="utf-8", newline="") as file:
        texts = [row["Utterance"] for row in csv.DictReader(file)]
    tokenizer = make_mini_tokenizer()
    flagged = [text for text in texts if check_text(text, tokenizer, "en")]
    assert len(flagged) <= 0.015 * len(texts), flagged


def make_mini_tokenizer():
    from transformers import PreTrainedTokenizerFast

    from modeling_umons import UMONS_MINI

    return PreTrainedTokenizerFast.from_pretrained(UMONS_MINI)
