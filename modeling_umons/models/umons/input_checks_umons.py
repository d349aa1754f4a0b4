# Copyright 2026 The modeling_umons authors.
# SPDX-License-Identifier: MIT
"""Checks of text and audio that a model cannot be expected to understand: the `warnings` of a result."""

import re
import unicodedata

import numpy as np
from transformers import PreTrainedTokenizerBase


Warnings = list[dict[str, str]]

# Rules were chosen on training texts of CMU-MOSEI, MELD and GoEmotions, and on recordings of RAVDESS and EMO-DB.
MIN_LATIN = 0.7  # share of Latin letters in an English text
MIN_ENGLISH = 0.2  # share of frequent English words in a text of three words or more
MIN_FOREIGN = 0.25  # share of frequent words of other languages
MIN_KNOWN = 0.5  # share of words in the vocabulary
MIN_AUDIO_S = 0.5
MIN_PEAK_DB = -50.0  # below full scale
MIN_CLIPPED = 3e-4  # share of samples in runs at the maximum
MIN_LOUD = 0.05  # share of samples above 0.7 of the peak; resampling rounds off the runs
MAX_SIMILARITY = 0.93  # correlation of successive spectra; speech changes, tones and chords do not
MIN_PAUSES = 0.05  # share of frames more than 6 dB below the mean level
MIN_SPEECH_VARIATION = 1.5  # standard deviation over time of the log spectrum of loud frames; noise evens it out
MIN_VOICED = 0.06  # share of loud frames with a pitch
MIN_LEVEL_RANGE_DB = 3.0  # between loud and quiet frames; tones and hum have less
MAX_OFFSET = 0.05  # mean of the samples
MAX_SAMPLE = 1.5  # of samples in [-1, 1]; lossy codecs exceed 1 slightly
SAMPLING_RATES = (8_000, 192_000)  # Hz
NUM_FRAMES = 100  # analysed frames of 40 ms
WORD = re.compile(r"[^\W\d_]+(?:['\u2019][^\W\d_]+)*")

# Frequent words of English conversation, and those of them that are also words of other languages.
ENGLISH_WORDS = """
able about absolutely actually after again against ago agree all almost already always amazing and another any anyone
anything are arent around ask away awesome back basically be because been before being believe best better between big
bit both business but buy call called came can cant care cause change check come comes coming cool could course days
definitely did didnt different does doesnt doing done dont down dude each either else end enjoy enough even ever every
everyone everything exactly experience face fact family far favorite feel few find first five for found free friend
friends from fun funny game get gets getting girl give glad go goes going gonna good got great guess guy guys haha
happen happened happy hard hate have havent having head hear heard help her here hey hi high him his home hope how id
idea if ill im important information interesting into isnt it its ive job just keep kid kids kinda know last least
leave left less let lets life like literally little live lol long look looking looks lot love luck made make makes
making many matter may maybe mean means might mind money more movie movies much must my myself need needs never new
news next nice night not nothing now off ok okay old once one only or other our out own part pay people person place
play playing please point post pretty probably problem put question read real really reason remember right sad said
same saw say saying school season second see seems seen sense she shes should show since some someone something
sometimes sorry sounds start still stop story stuff stupid such sure take taking talk talking team tell terrible than
thank thanks that thats the their them then there theres these they theyre thing things think thinking this those
though thought three through time times today together too true try trying two uh understand until up us use used
using very video wait wanna wanted wasnt watch watching way week weird went were what whats when where which while who
whole why will wish with without women wont work working world would wouldnt wow wrong yeah year years yes yet you
youll your youre yourself youve
"""
SHARED_WORDS = """
a ah also am an as at bad by comment day do had has he hell i in is kind man me most no of oh on over so stay sub to
want was we well
"""
FOREIGN_WORDS = """
auf aber auch avec bardzo bir bu byl był ce cest cette che com como con czy das dat della dem den denn der des det
değil di dich doch du een ein eine einem einen el ella elle elles es est esta este esto estou estoy está et ett eu fue
für già gli gracias grazie hai har hat haben het hier hoje ho hoon hoy hou ich ihr ik ikke il ini inte io isso ist jag
jai je jeg jest jestem jou jsem kein keine las le les lo los maar mais merci mi mich mir mit moi molto mon muito mujhe
muy más na nahi nein nicht nie niet noch non nous nu não o obrigado och oder os où para pas per pero por porque pour
puedo på que questo qui quiero qué sangat saya schon sehr seni si sich sie sind się sono suis sunt sur taime ti tidak
toch tout très tu um uma un una und une van ve velmi vi você vous waar wat wel wie wir yang yeh yo zijn är çok è é
"""
ENGLISH, SHARED, FOREIGN = (frozenset(text.split()) for text in (ENGLISH_WORDS, SHARED_WORDS, FOREIGN_WORDS))

# Words for the commonest emoji, which are in the vocabulary of text models.
EMOJI = {
    "😂😹": "so funny, laughing", "🤣😆": "laughing out loud", "❤♥💕💖💗💓💞💙💚💛🧡💜🖤😍🥰😘💋😻": "I love it",
    "😊🙂☺😀😃😄😁😺😸": "I am happy", "🥳🎉🎊🎈🎂": "a happy celebration", "🤩😎🔥💯✨": "amazing",
    "👍👌👏🙌💪✅": "great", "🙏": "thank you", "🤗": "a warm hug", "😅😌": "what a relief", "😭😢😿": "I am crying",
    "💔": "my heart is broken", "😔😞😟🙁☹😥😓": "I am sad", "😩😫😴": "I am so tired", "👎": "bad",
    "😡😠🤬💢😤😾": "I am very angry", "🙄😒": "annoying", "🤢🤮💩": "disgusting", "😱😨😰🙀": "I am scared",
    "😮😲😯🤯😳": "what a surprise", "🤔": "let me think", "😐😑🤷": "whatever", "😉😜😋": "just kidding",
    "🥺": "please", "🤦": "how stupid",
}  # fmt: skip
WORDS_OF_EMOJI = {emoji: words for group, words in EMOJI.items() for emoji in group}


def make_warning(code: str, message: str) -> dict[str, str]:
    return {"code": code, "message": message}


def read_emoji(text: str) -> str:
    """Return the words for the emoji of a text, each once and in order; empty without a known one."""
    return ". ".join(dict.fromkeys(WORDS_OF_EMOJI[character] for character in text if character in WORDS_OF_EMOJI))


def split_words(text: str) -> list[str]:
    """Return the words of a text in lower case without apostrophes."""
    return [word.lower().replace("'", "").replace("\u2019", "") for word in WORD.findall(text)]


def share_of_english(words: list[str]) -> float:
    """Return the share of frequent English words."""
    return sum(word in ENGLISH or word in SHARED for word in words) / max(1, len(words))


def check_text(text: str, tokenizer: PreTrainedTokenizerBase, language: str | None) -> Warnings:
    """
    Check the language and the words of a text.

    Args:
        text: a text with words.
        tokenizer: tokenizer of the model.
        language: "en" for a model of English texts; others are only checked for words outside the vocabulary.

    Returns:
        At most one warning: `other_script`, `other_language` or `unknown_words`.
    """
    words = split_words(unicodedata.normalize("NFKC", text))  # full-width letters are Latin
    if language != "en":
        ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        unknown = [words[i] for i, index in enumerate(ids[: len(words)]) if index == tokenizer.unk_token_id]
        share = sum(index == tokenizer.unk_token_id for index in ids) / max(1, len(ids))
        return [_describe_unknown(unknown, share)] if share > 1 - MIN_KNOWN else []
    if not words:
        return []  # numbers and symbols
    letters = "".join(words)
    if sum(ord(letter) < 0x250 for letter in letters) < MIN_LATIN * len(letters):
        return [
            make_warning(
                "other_script", "The text is in another script than English, the language of the training texts."
            )
        ]
    unknown = [word for word in words if not _is_known(word, tokenizer)]
    num_foreign, num_english = (sum(word in known for word in words) for known in (FOREIGN, ENGLISH))
    is_foreign = num_foreign > num_english and num_foreign >= MIN_FOREIGN * len(words)
    is_name = len(words) <= 4 and not unknown
    if is_foreign or (len(words) >= 3 and share_of_english(words) < MIN_ENGLISH and not is_name):
        return [
            make_warning(
                "other_language", "The text has hardly any frequent English word; the training texts are English."
            )
        ]
    share = len(unknown) / len(words)
    return [_describe_unknown(unknown, share)] if share > 1 - MIN_KNOWN else []


def _describe_unknown(words: list[str], share: float) -> dict[str, str]:
    shown = ", ".join(dict.fromkeys(word[:20] for word in words[:5]))
    return make_warning("unknown_words", f"{100 * share:.0f} % of the words are unknown to the model: {shown}.")


def _is_known(word: str, tokenizer: PreTrainedTokenizerBase) -> bool:
    """Return whether a word is in the vocabulary as a whole, also with fewer repetitions of a letter."""
    if len(word) == 1 or word in ENGLISH or word in SHARED:
        return True
    forms = dict.fromkeys((word, re.sub(r"(.)\1{2,}", r"\1\1", word), re.sub(r"(.)\1+", r"\1", word)))
    tokens = [mark + form for form in forms if len(form) > 1 for mark in ("", "▁", "Ġ")]
    return any(index not in (None, tokenizer.unk_token_id) for index in tokenizer.convert_tokens_to_ids(tokens))


def check_audio(audio: np.ndarray, sampling_rate: int) -> Warnings:
    """
    Check a recording of speech.

    Args:
        audio: (num_samples,) float32, mono in [-1, 1], not silent.
        sampling_rate: in Hz.

    Returns:
        Warnings with the codes `short_audio`, `value_range`, `quiet`, `clipped`, `no_speech` and `noisy`.
    """
    warnings = []
    duration, peak = len(audio) / sampling_rate, float(np.abs(audio).max())
    if duration < MIN_AUDIO_S:
        warnings.append(make_warning("short_audio", f"The audio has {duration:.2f} s: pass at least {MIN_AUDIO_S} s."))
    if abs(float(audio.mean())) > MAX_OFFSET or peak > MAX_SAMPLE:
        message = (
            f"The samples reach {peak:.1f} and have the mean {audio.mean():+.2f}: scale them to [-1, 1] around 0."
        )
        warnings.append(make_warning("value_range", message))
    level = 20 * np.log10(peak)
    if level < MIN_PEAK_DB:
        warnings.append(
            make_warning("quiet", f"The audio is very quiet, with a peak of {level:.0f} dB: record it louder.")
        )
    at_limit = np.abs(audio) >= 0.995 * peak
    clipped = float((at_limit[2:] & at_limit[1:-1] & at_limit[:-2]).mean()) if peak > 0.3 and len(audio) > 2 else 0.0
    speech = _check_speech(audio, sampling_rate) if duration >= MIN_AUDIO_S else []
    loud = float((np.abs(audio) > 0.7 * peak).mean()) if not speech and peak > 0.3 else 0.0
    if max(clipped / MIN_CLIPPED, loud / MIN_LOUD) >= 1:
        message = f"{100 * max(clipped, loud):.2g} % of the samples are clipped: record with a lower level."
        warnings.append(make_warning("clipped", message))
    return warnings + speech


def _check_speech(audio: np.ndarray, sampling_rate: int) -> Warnings:
    """Return a warning for a recording without voiced frames, or with a noise that hides the speech."""
    step = max(1, round(sampling_rate / 8000))
    rate = sampling_rate / step
    samples = audio[: len(audio) // step * step].reshape(-1, step).mean(axis=1, dtype=np.float64)
    frames = np.lib.stride_tricks.sliding_window_view(samples, round(0.04 * rate))[:: round(0.02 * rate)]
    levels = 10 * np.log10(frames.var(axis=1) + 1e-12)
    loud, quiet = np.percentile(levels, (95, 10))
    frames = frames[levels > loud - 25]
    step = -(-len(frames) // NUM_FRAMES)
    size, window = frames.shape[1], np.hanning(frames.shape[1])

    def transform(frames: np.ndarray) -> np.ndarray:
        return np.abs(np.fft.rfft((frames - frames.mean(axis=1, keepdims=True)) * window, 2 * size)) ** 2

    power = transform(frames[::step])
    similarity = _correlate(power[: len(frames[1::step])], transform(frames[1::step]))
    correlation = np.fft.irfft(power)[:, :size]
    of_window = np.fft.irfft(np.abs(np.fft.rfft(window, 2 * size)) ** 2)[:size]
    first, last = int(rate / 500), int(rate / 65)  # lags of the pitch of voices
    pitched = correlation[:, first:last] / (correlation[:, :1] + 1e-12) * (of_window[0] / of_window[first:last])
    voiced = float((pitched.max(axis=1) > 0.6).mean())
    if voiced < MIN_VOICED or loud - quiet < MIN_LEVEL_RANGE_DB:
        message = f"No speech was found: {100 * voiced:.0f} % of the loud frames have the pitch of a voice."
        return [make_warning("no_speech", message)]
    pauses = float((levels < levels.mean() - 6).mean())
    if similarity > MAX_SIMILARITY and pauses < MIN_PAUSES:
        message = "No speech was found: the spectrum hardly changes and there are no pauses, as in music."
        return [make_warning("no_speech", message)]
    num_bands = (power.shape[1] - 2) // 8
    bands = power[:, 2 : 2 + 8 * num_bands].reshape(len(power), num_bands, 8).mean(axis=2)
    variation = float(np.log(bands + 1e-9).std(axis=0).mean())
    if variation < MIN_SPEECH_VARIATION:
        return [make_warning("noisy", "Noise hides the speech: record closer to the voice, or in a quieter place.")]
    return []


def _correlate(power: np.ndarray, following: np.ndarray) -> float:
    """Return the median correlation of log spectra (frames, bins) with the following ones; 0 without any."""
    if not len(following):
        return 0.0
    first, second = (np.log(values + 1e-9) for values in (power, following))
    first, second = (values - values.mean(axis=1, keepdims=True) for values in (first, second))
    norms = np.sqrt((first**2).sum(axis=1) * (second**2).sum(axis=1)) + 1e-12
    return float(np.median((first * second).sum(axis=1) / norms))


def check_sampling_rate(sampling_rate: float) -> Warnings:
    """Check the sampling rate of a waveform as it is given, in Hz."""
    low, high = SAMPLING_RATES
    if low <= sampling_rate <= high:
        return []
    message = f"The sampling rate is {sampling_rate:g} Hz: speech has {low} to {high} Hz. Is the rate right?"
    return [make_warning("sampling_rate", message)]
