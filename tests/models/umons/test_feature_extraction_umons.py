"""Log-mel features: golden frames, equations, forms of input and output."""

import io
import json

import av
import numpy as np
import pytest
import torch

from modeling_umons.models.umons.feature_extraction_umons import (
    UmonsFeatureExtractor,
    _hann_window,
    _mel_basis,
    is_silent,
    normalize_level,
)
from modeling_umons.models.umons.media_umons import read_clip


RATE = 22050


@pytest.fixture(scope="module")
def extractor() -> UmonsFeatureExtractor:
    return UmonsFeatureExtractor()


def speechlike(seconds: float, lead: float = 0.7, tail: float = 0.4, rate: int = RATE) -> np.ndarray:
    """Harmonics of a gliding tone under a slow envelope, between two stretches of hiss 80 dB below it; float32."""
    rng = np.random.default_rng(0)
    time = np.arange(int(seconds * rate)) / rate
    phase = 2 * np.pi * (140 * time + 25 * time**2)
    voice = sum(np.sin(k * phase) / k for k in range(1, 12)) * (0.6 + 0.4 * np.sin(2 * np.pi * 3 * time))
    parts = [np.zeros(int(lead * rate)), 0.2 * voice, np.zeros(int(tail * rate))]
    waveform = np.concatenate(parts)
    return (waveform + 2e-5 * rng.standard_normal(len(waveform))).astype(np.float32)


# The recipe from its equations, in float64 and loop by loop: nothing below is shared with the extractor.


def reference_span(y: np.ndarray) -> tuple[int, int]:
    padded = np.pad(y.astype(np.float64), 1024)
    rms = np.array([np.sqrt(np.mean(padded[i : i + 2048] ** 2)) for i in range(0, len(y) + 1, 512)])
    decibels = 20 * np.log10(np.maximum(1e-5, rms)) - 20 * np.log10(max(1e-5, rms.max()))
    loud = np.flatnonzero(decibels > -60)
    return 512 * loud[0], min(len(y), 512 * (loud[-1] + 1))


def slaney_hz(mel: np.ndarray) -> np.ndarray:
    """Linear up to 1000 Hz (15 mel), then logarithmic with 27 mel to a factor of 6.4."""
    return np.where(mel < 15, mel * 200 / 3, 1000 * 6.4 ** ((mel - 15) / 27))


def reference_features(y: np.ndarray) -> np.ndarray:
    start, end = reference_span(y)
    y = y[start:end].astype(np.float64)
    y = np.concatenate([y[:1], y[1:] - 0.97 * y[:-1]])

    window = np.zeros(2048)
    window[473 : 473 + 1102] = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(1102) / 1102)
    padded = np.pad(y, 1024)
    frames = np.stack([padded[i : i + 2048] * window for i in range(0, len(y) + 1, 275)])
    magnitudes = np.abs(np.fft.rfft(frames))

    top = 15 + 27 * np.log(11.025) / np.log(6.4)
    edges = slaney_hz(np.linspace(0, top, 82))
    bins = np.linspace(0, 11025, 1025)
    filters = [
        2 / (high - low) * np.maximum(0, np.minimum((bins - low) / (mid - low), (high - bins) / (high - mid)))
        for low, mid, high in zip(edges, edges[1:], edges[2:], strict=False)
    ]
    decibels = 20 * np.log10(np.maximum(1e-5, magnitudes @ np.stack(filters, axis=1)))
    return np.clip((decibels - 20 + 100) / 100, 1e-8, 1)[::16]


@pytest.mark.shared
def test_matches_golden_frames(extractor, shared):
    import soundfile
    from safetensors.numpy import load_file

    golden = load_file(shared / "golden" / "mel" / "mel.safetensors")
    assert len(golden) == 5
    waveforms = [
        soundfile.read(next((shared / "data" / "ravdess").rglob(name)), dtype="float32")[0] for name in golden
    ]

    batch = extractor(waveforms, sampling_rate=RATE)
    for row, (waveform, frames) in enumerate(zip(waveforms, golden.values(), strict=True)):
        expected = frames[::16]
        single = extractor(waveform, sampling_rate=RATE)["input_features"][0]
        assert single.shape == expected.shape
        np.testing.assert_allclose(single, expected, rtol=0, atol=1e-5)
        assert batch["input_features_mask"][row].sum() == len(expected)
        np.testing.assert_array_equal(batch["input_features"][row, : len(expected)], single)
        assert not batch["input_features"][row, len(expected) :].any()


@pytest.mark.parametrize(
    ("seconds", "lead", "tail"),
    [(3.0, 0.7, 0.4), (1.0, 0.0, 0.0), (0.02, 0.3, 0.3), (0.03, 0.0, 0.0), (4400 / RATE, 0.0, 0.0)],
    ids=["silence at both ends", "no silence", "short burst", "shorter than a window", "a frame at the very end"],
)
def test_matches_the_equations(extractor, seconds, lead, tail):
    waveform = speechlike(seconds, lead, tail)
    output = extractor(waveform, sampling_rate=RATE, return_offsets=True)
    expected = reference_features(waveform)
    assert output["input_features"].shape == (1, *expected.shape)
    np.testing.assert_allclose(output["input_features"][0], expected, rtol=0, atol=1e-5)
    assert output["offsets"][0] == pytest.approx(reference_span(waveform)[0] / RATE)


@pytest.mark.parametrize("num_samples", [1, 511, 512, 1024, 2048, 5000, RATE])
@pytest.mark.parametrize("level", [1.0, 0.02, 0.005, 1e-6])
def test_trims_like_the_equations(extractor, num_samples, level):
    # A burst in the middle of hiss 70 dB below it. Where the peak is under 1e-2 RMS, the floor of 1e-5 keeps all.
    waveform = np.random.default_rng(num_samples).standard_normal(num_samples) * level
    waveform[: num_samples // 3] *= 10 ** (-70 / 20)
    waveform[-(num_samples // 4) :] *= 10 ** (-70 / 20)
    waveform = waveform.astype(np.float32)
    assert extractor._non_silent_span(torch.from_numpy(waveform)) == reference_span(waveform)


def test_trims_less_with_a_higher_threshold():
    waveform = speechlike(1.0)
    offsets = [
        UmonsFeatureExtractor(trim_db=trim_db)(waveform, sampling_rate=RATE, return_offsets=True)["offsets"][0]
        for trim_db in (20, 60, 120)
    ]
    assert offsets[0] >= offsets[1] > 0.6
    assert offsets[2] == 0


@pytest.mark.parametrize("rate", [8000, 44100])
def test_offsets_of_resampled_audio_are_seconds(extractor, rate):
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(rate) / rate)
    waveform = np.concatenate([np.zeros(rate), tone])
    (offset,) = extractor(waveform, sampling_rate=rate, return_offsets=True)["offsets"]
    assert offset == pytest.approx(1.0, abs=2048 / RATE)


def test_audio_of_one_step_is_not_silent():
    step = np.float32(2.0**-15)
    assert not is_silent(np.array([0.0, -step], np.float32))
    assert is_silent(np.array([0.0, np.nextafter(step, np.float32(0))], np.float32))


@pytest.mark.parametrize("rate", [RATE, 16000])
def test_silence_is_padding(extractor, rate):
    step = 2.0**-15  # of 16 bits
    waveforms = [np.zeros(rate), np.full(rate, 0.9 * step), np.full(rate, 1.1 * step), np.full(rate, 128, np.uint8)]
    output = extractor(waveforms, sampling_rate=rate, return_offsets=True)
    assert output["input_features"].shape == (4, 1 + RATE // 4400, 80)
    assert output["input_features_mask"].all(axis=1).tolist() == [False, False, True, False]
    assert output["input_features_mask"][[0, 1, 3]].sum() == 0
    assert output["input_features"].any(axis=(1, 2)).tolist() == [False, False, True, False]
    assert not np.any(output["offsets"])


def test_keeps_one_frame_of_every_stride(extractor):
    waveform = speechlike(2.0)
    every_frame = UmonsFeatureExtractor(frame_stride=1, max_length=1000)(waveform, sampling_rate=RATE)
    kept = extractor(waveform, sampling_rate=RATE)["input_features"]
    np.testing.assert_allclose(kept, every_frame["input_features"][:, ::16], rtol=0, atol=1e-6)


def test_frame_duration(extractor):
    assert extractor.frame_duration == pytest.approx(0.19955, abs=1e-5)
    # A click (a time known to the sample) is in the frame its time says, and in no other.
    waveform = speechlike(3.0, lead=1.0)
    waveform[int(1.0 * RATE) :] *= 1e-3
    click = 2.2
    waveform[int(click * RATE)] = 1.0
    output = UmonsFeatureExtractor(frame_stride=1)(waveform, sampling_rate=RATE, return_offsets=True, truncation=False)
    loudest = output["input_features"][0].mean(axis=1).argmax()
    found = output["offsets"][0] + loudest * 275 / RATE
    assert found == pytest.approx(click, abs=275 / RATE)


@pytest.mark.parametrize("form", ["list", "tensor", "float64", "bfloat16", "read-only", "reversed", "gradient"])
def test_forms_of_one_waveform(extractor, form):
    waveform = torch.from_numpy(speechlike(0.5)).bfloat16().float().numpy()
    expected = extractor(waveform, sampling_rate=RATE)["input_features"]
    read_only = waveform.copy()
    read_only.flags.writeable = False
    given = {
        "list": waveform.tolist(),
        "tensor": torch.from_numpy(waveform),
        "float64": waveform.astype(np.float64),
        "bfloat16": torch.from_numpy(waveform).bfloat16(),
        "read-only": read_only,
        "reversed": waveform[::-1].copy()[::-1],
        "gradient": torch.from_numpy(waveform).requires_grad_(),
    }[form]
    np.testing.assert_array_equal(extractor(given, sampling_rate=RATE)["input_features"], expected)
    np.testing.assert_array_equal(extractor([given], sampling_rate=RATE)["input_features"], expected)


def test_channels_in_a_list_are_averaged(extractor):
    left, right = speechlike(1.0), speechlike(1.0)[::-1]
    expected = extractor((left + right) / 2, sampling_rate=RATE)["input_features"]
    stereo = np.stack([left, right])
    for given in ([stereo], [stereo.T], [torch.from_numpy(stereo)], [stereo.T.tolist()], stereo[None]):
        np.testing.assert_allclose(extractor(given, sampling_rate=RATE)["input_features"], expected, rtol=0, atol=1e-6)


def test_2d_arrays_are_batches(extractor):
    batch = np.stack([speechlike(1.0), speechlike(1.0)[::-1]])
    expected = extractor(list(batch), sampling_rate=RATE)["input_features"]
    assert expected.shape[0] == 2
    for given in (batch, torch.from_numpy(batch.copy()), batch.tolist(), tuple(batch)):
        np.testing.assert_array_equal(extractor(raw_speech=given, sampling_rate=RATE)["input_features"], expected)


@pytest.mark.parametrize(
    ("dtype", "zero", "full_scale"), [("int16", 0, 32768), ("int32", 0, 2147483648), ("uint8", 128, 128)]
)
def test_scales_integers(extractor, dtype, zero, full_scale):
    integers = np.round(speechlike(1.0).astype(np.float64) * full_scale + zero).astype(dtype)
    expected = extractor((integers.astype(np.float64) - zero) / full_scale, sampling_rate=RATE)["input_features"]
    for given in (integers, torch.from_numpy(integers)):
        np.testing.assert_allclose(extractor(given, sampling_rate=RATE)["input_features"], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("rate", [16000, 44100, 48000, 44056])
def test_resamples(extractor, rate):
    # The same sound up to 8 kHz, but for the hiss: compare the lower half of the bands, where the voice stands out.
    expected = extractor(speechlike(2.0), sampling_rate=RATE)["input_features"][:, :, :40]
    features = extractor(speechlike(2.0, rate=rate), sampling_rate=rate)["input_features"][:, :, :40]
    assert features.shape == expected.shape
    assert np.abs(features - expected)[expected > 0.4].mean() < 0.02
    assert np.corrcoef(features.ravel(), expected.ravel())[0, 1] > 0.99


def encode(samples: np.ndarray, rate: int, codec: str, container_format: str) -> bytes:
    """A file of float samples (num_channels, num_samples)."""
    file = io.BytesIO()
    with av.open(file, "w", format=container_format) as container:
        layout = {1: "mono", 2: "stereo"}[len(samples)]
        stream = container.add_stream(codec, rate=rate, layout=layout)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples, np.float32), format="fltp", layout=layout)
        frame.sample_rate = rate
        for part in av.AudioResampler(stream.format.name, layout, rate).resample(frame):
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    return file.getvalue()


def assert_file_equals_array(source, sampling_rate: int):
    """Features of a file, and of its samples at the file's own rate."""
    with av.open(source if isinstance(source, str) else io.BytesIO(source)) as container:
        own_rate = container.streams.audio[0].rate
    assert own_rate != sampling_rate
    extractor = UmonsFeatureExtractor(sampling_rate=sampling_rate)
    from_file = read_clip(source, video=False, sampling_rate=sampling_rate).audio
    samples = read_clip(source, video=False, sampling_rate=own_rate).audio
    expected = extractor(from_file, sampling_rate=sampling_rate)["input_features"]
    for given in (samples, samples.astype(np.float64), [np.stack([samples, samples])]):
        features = extractor(given, sampling_rate=own_rate)["input_features"]
        np.testing.assert_allclose(features, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("rate", "codec", "container_format"),
    [(48000, "pcm_s16le", "wav"), (44100, "pcm_f32le", "wav"), (16000, "flac", "flac"), (48000, "pcm_s24le", "wav")],
)
def test_file_equals_its_array(rate, codec, container_format):
    stereo = np.stack([speechlike(2.0, rate=rate), speechlike(2.0, rate=rate)[::-1]])
    assert_file_equals_array(encode(stereo, rate, codec, container_format), RATE)
    assert_file_equals_array(encode(stereo[:1], rate, codec, container_format), 11025)


def test_sample_clip_equals_its_array(root):
    for clip in sorted((root / "hub" / "sample" / "clips").iterdir())[:4]:
        assert_file_equals_array(str(clip), 16000)


@pytest.mark.shared
def test_real_recording_equals_its_array(shared):
    recordings = sorted((shared / "data" / "ravdess").rglob("*.flac"))[::40]
    assert len(recordings) > 10
    for recording in recordings:
        assert_file_equals_array(str(recording), 16000)
    for clip in (shared / "data" / "clips").glob("grid_*.mpg"):
        assert_file_equals_array(str(clip), RATE)


@pytest.mark.parametrize("rate", [8000, 16000, 48000, 1_000_000])
def test_waveform_shorter_than_the_resampling_filter_has_one_frame(extractor, rate):
    for num_samples in (1, 10, 30):
        features = extractor(np.full(num_samples, 0.5), sampling_rate=rate)["input_features"]
        assert features.shape == (1, 1, 80)
        assert np.isfinite(features).all()


def test_default_device_and_dtype_do_not_matter(extractor):
    waveform = speechlike(0.5)
    expected = extractor(waveform, sampling_rate=RATE)["input_features"]
    for cached in (_hann_window, _mel_basis):
        cached.cache_clear()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            features = extractor(waveform, sampling_rate=RATE)["input_features"]
    finally:
        torch.set_default_dtype(torch.float32)
    np.testing.assert_array_equal(features, expected)


def test_missing_sampling_rate_is_logged(extractor, caplog):
    waveform = speechlike(0.5)
    features = extractor(waveform)["input_features"]
    assert "sampling_rate" in caplog.text
    caplog.clear()
    np.testing.assert_array_equal(extractor(waveform, sampling_rate=RATE)["input_features"], features)
    assert not caplog.text


@pytest.mark.parametrize(
    ("waveform", "message"),
    [
        (np.zeros(0, dtype=np.float32), "Waveform 1 of the batch is empty"),
        ([], "Waveform 1 of the batch is empty"),
        (np.array([0.1, np.nan]), "Waveform 1 of the batch has NaN or infinite"),
        (torch.tensor([0.1, torch.inf]), "Waveform 1 of the batch has NaN or infinite"),
        (np.zeros((1, 2, 100)), r"Waveform 1 of the batch has shape \(1, 2, 100\)"),
        (None, r"Waveform 1 of the batch has shape \(\)"),
        ("speech.wav", r"Waveform 1 of the batch has shape \(\)"),
        ([[0.1, 0.2], [0.1]], "Waveform 1 of the batch has channels of unequal length"),
        (np.zeros(100, dtype=np.int64), "Waveform 1 of the batch has samples of type int64"),
        (np.zeros(100, dtype=np.complex64), "Waveform 1 of the batch has samples of type complex64"),
    ],
)
def test_invalid_waveforms_raise(extractor, waveform, message):
    with pytest.raises(ValueError, match=message):
        extractor([np.full(100, 0.1), waveform], sampling_rate=RATE)


def test_empty_list_raises(extractor):
    with pytest.raises(ValueError, match="Waveform 0 of the batch is empty"):
        extractor([], sampling_rate=RATE)


@pytest.mark.parametrize("rate", [0, -16000, float("nan"), float("inf")])
def test_invalid_sampling_rates_raise(extractor, rate):
    with pytest.raises(ValueError, match="`sampling_rate` is"):
        extractor(np.full(100, 0.1), sampling_rate=rate)


def test_max_length_zero_raises(extractor):
    with pytest.raises(ValueError, match="`max_length` is 0"):
        extractor(np.full(100, 0.1), sampling_rate=RATE, max_length=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hop_length": 0}, "`hop_length` is 0"),
        ({"sampling_rate": -1}, "`sampling_rate` is -1"),
        ({"trim_db": 0.0}, "`trim_db` is 0.0"),
        ({"win_length": 4096}, "longer than `n_fft`"),
        ({"feature_size": 1}, "at least 2 mel bands"),
    ],
)
def test_invalid_settings_raise(options, message):
    with pytest.raises(ValueError, match=message):
        UmonsFeatureExtractor(**options)


def test_truncates_and_pads(extractor):
    long, short = speechlike(13.0, 0, 0), speechlike(1.0, 0, 0)
    cut = extractor([long, short], sampling_rate=RATE)
    assert cut["input_features"].shape == (2, 60, 80)
    assert cut["input_features"].dtype == np.float32
    assert cut["input_features_mask"].dtype == np.int64
    assert cut["input_features_mask"].sum(axis=1).tolist() == [60, 6]

    whole = extractor([long, short], sampling_rate=RATE, truncation=False)["input_features"]
    assert whole.shape == (2, 66, 80)
    np.testing.assert_array_equal(extractor(long, sampling_rate=RATE, max_length=7)["input_features"], whole[:1, :7])

    assert extractor(short, sampling_rate=RATE, padding="max_length")["input_features"].shape == (1, 60, 80)
    # The cut is at `max_length` itself, only the padding is rounded up
    rounded = extractor([long, short], sampling_rate=RATE, max_length=10, pad_to_multiple_of=8, return_tensors="pt")
    assert rounded["input_features"].shape == (2, 16, 80)
    assert rounded["input_features_mask"].sum(dim=1).tolist() == [10, 6]
    assert rounded["input_features_mask"].dtype == torch.int64

    ragged = extractor([long, short], sampling_rate=RATE, padding=False)
    assert [len(frames) for frames in ragged["input_features"]] == [60, 6]


def test_padding_value_and_side():
    extractor = UmonsFeatureExtractor(padding_value=-1.0, padding_side="left")
    batch = extractor([speechlike(2.0, 0, 0), speechlike(1.0, 0, 0)], sampling_rate=RATE)
    mask = batch["input_features_mask"][1]
    assert mask.tolist() == [0] * 5 + [1] * 6
    assert (batch["input_features"][1, mask == 0] == -1).all()


def test_saves_and_loads(tmp_path):
    extractor = UmonsFeatureExtractor(preemphasis=0.9, trim_db=40.0, max_length=20)
    waveform = speechlike(1.0)
    features = extractor(waveform, sampling_rate=RATE)["input_features"]
    extractor.save_pretrained(tmp_path)  # after use: nothing that was computed may get in the way
    assert json.loads(extractor.to_json_string())["trim_db"] == 40.0

    loaded = UmonsFeatureExtractor.from_pretrained(tmp_path)
    assert loaded.to_dict() == extractor.to_dict()
    np.testing.assert_array_equal(loaded(waveform, sampling_rate=RATE)["input_features"], features)


def test_defaults_are_the_papers():
    saved = UmonsFeatureExtractor().to_dict()
    expected = {
        "feature_size": 80, "sampling_rate": 22050, "padding_value": 0.0, "n_fft": 2048, "hop_length": 275,
        "win_length": 1102, "preemphasis": 0.97, "trim_db": 60.0, "frame_stride": 16, "max_length": 60,
    }  # fmt: skip
    assert {name: saved[name] for name in expected} == expected


@pytest.mark.parametrize("option", ["preemphasis", "win_length", "n_fft", "hop_length"])
def test_every_setting_changes_the_features(option):
    other = {"preemphasis": 0.5, "win_length": 900, "n_fft": 4096, "hop_length": 300}[option]
    waveform = speechlike(2.0)
    default = UmonsFeatureExtractor()(waveform, sampling_rate=RATE)["input_features"]
    changed = UmonsFeatureExtractor(**{option: other})(waveform, sampling_rate=RATE)["input_features"]
    assert default.shape != changed.shape or np.abs(default - changed).max() > 1e-3


def test_floats_in_the_range_of_int16_raise():
    with pytest.raises(ValueError, match=r"samples up to 16384; pass floats in \[-1, 1\]"):
        UmonsFeatureExtractor()(np.full(22050, 16384.0, np.float32), sampling_rate=22050)


def test_rate_in_khz_raises():
    with pytest.raises(ValueError, match=r"sampling_rate=22\.05 is not between 1000 and 1000000: pass the rate in Hz"):
        UmonsFeatureExtractor()(np.full(22050, 0.1, np.float32), sampling_rate=22.05)


def test_waveform_in_antiphase_does_not_cancel():
    left = np.sin(np.arange(22050, dtype=np.float32))
    extract = UmonsFeatureExtractor()
    features, expected = (
        extract([samples], sampling_rate=22050)["input_features"] for samples in (np.stack([left, -left]), left)
    )
    np.testing.assert_array_equal(features, expected)


def make_speech(seconds: float = 2.0) -> np.ndarray:
    """Return syllables of noise with pauses between them."""
    noise = np.random.default_rng(0).normal(0, 0.1, round(seconds * RATE)).astype(np.float32)
    time = np.arange(len(noise)) / RATE
    return noise * (np.sin(2 * np.pi * 3 * time) > 0)


@pytest.mark.parametrize("gain_db", [-30, -20, 10])
def test_normalized_level_removes_gain_and_silence(gain_db):
    extractor, speech = UmonsFeatureExtractor(normalize_level=True), make_speech()
    expected = extractor(speech, sampling_rate=RATE)["input_features"][0]
    quiet = extractor(10 ** (gain_db / 20) * speech, sampling_rate=RATE)["input_features"][0]
    np.testing.assert_allclose(quiet, expected, atol=1e-3)
    silence = np.zeros(RATE, np.float32)
    after_silence = normalize_level(np.concatenate([silence, speech, silence]), RATE)[RATE:-RATE]
    np.testing.assert_allclose(after_silence, normalize_level(speech, RATE), rtol=0.05)


def test_normalized_level_is_that_of_active_speech():
    speech = make_speech()
    normalized = normalize_level(speech, RATE)
    active = normalized[speech != 0]
    assert 20 * np.log10(np.sqrt(np.mean(np.square(active)))) == pytest.approx(-20, abs=1)
    silence = np.full(RATE, 1e-6, np.float32)
    assert np.array_equal(normalize_level(silence, RATE), silence)
