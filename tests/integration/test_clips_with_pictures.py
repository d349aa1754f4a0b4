"""Tests of predictions on real clips from audio and video, without transcripts."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from modeling_umons import (
    UmonsConfig,
    UmonsFeatureExtractor,
    UmonsForSequenceClassification,
    UmonsProcessor,
    UmonsVideoProcessor,
    build_tokenizer,
)


pytestmark = pytest.mark.shared


def test_predict_command_with_video_tower(shared, tmp_path):
    torch.manual_seed(0)
    config = UmonsConfig(
        modalities=["text", "audio", "video"], vocab_size=2, hidden_size=64, intermediate_size=64, num_hidden_layers=2,
        video_tower={}, joint_sentiment=True,
    )  # fmt: skip
    UmonsForSequenceClassification(config).save_pretrained(tmp_path / "model")
    # No overlap halves the number of frames of the slow video tower.
    processor = UmonsProcessor(build_tokenizer([]), UmonsFeatureExtractor(), UmonsVideoProcessor(clip_stride=16))
    processor.save_pretrained(tmp_path / "model")
    clips = sorted(path for path in (shared / "data" / "clips").iterdir() if path.suffix in (".mp4", ".mpg"))
    assert len(clips) == 8

    command = [sys.executable, "-m", "modeling_umons.cli.main", "predict", *map(str, clips)]
    command += ["--model", str(tmp_path / "model"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(tmp_path))
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    assert [result["input"] for result in results] == [str(clip) for clip in clips]
    for result in results:
        assert "video" in result["modalities"]
        assert "text" not in result["modalities"]
        assert len(result["emotions"]) == 6
        assert result["sentiment"] == pytest.approx(result["sentiment"])  # a number, not NaN
