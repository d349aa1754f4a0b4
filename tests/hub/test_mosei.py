# Copyright 2026 The modeling_umons authors.
# SPDX-License-Identifier: MIT
"""hub/mosei: the card, the loading script, and a prepared data set that goes to a Hub and comes back."""

import importlib.util
import json
import subprocess
import sys

import datasets
import pytest
from datasets import disable_progress_bars, enable_progress_bars
from huggingface_hub import DatasetCard

from modeling_umons.data import MoseiBuilder, prepare_dataset
from modeling_umons.data.prepare import CARD_MARK, card_configs


DEADLINE = 240  # seconds, of which it takes a tenth
CONFIGURATIONS = ["all", "emotion", "sentiment-7", "sentiment-2", "sentiment"]

# What someone does who has the Hub alone: no package, no folder.
CLIENT = """
import json, sys, warnings
from datasets import load_dataset
from huggingface_hub import HfApi

folder, repository, configurations = sys.argv[1], "umons/mosei", sys.argv[2:]
api = HfApi()
api.create_repo(repository, repo_type="dataset", private=True)
api.upload_folder(folder_path=folder, repo_id=repository, repo_type="dataset")  # LFS there warns of its own httpx
warnings.simplefilter("error")
found = {}
for name in configurations:
    for split in ("train", "validation", "test"):
        streamed = load_dataset(repository, name, split=split, streaming=True)
        prepared = load_dataset(repository, name, split=split)
        found[f"{name} {split}"] = [list(streamed), list(prepared), str(streamed.features), str(prepared.features)]
json.dump(found, sys.stdout)
"""


@pytest.fixture
def tables(tmp_path):
    """A few segments in the layout `labels`."""
    folder = tmp_path / "tables"
    folder.mkdir()
    lines = ["segment_id,video_id,segment,split,start,end,sentiment,happy,sad,anger,surprise,disgust,fear"]
    for i, split in enumerate(5 * ["train"] + 2 * ["valid"] + ["test"]):
        lines.append(f"video{split}[{i}],video{split},{i},{split},{i},{i + 1},{i % 7 - 3},{i % 2},0,0.5,0,0,{i % 3}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    (folder / "transcripts.csv").write_text("segment_id,text\nvideotrain[1],wörds\n", encoding="utf-8")
    return folder


@pytest.fixture
def script(root, monkeypatch, tmp_path):
    """hub/mosei/load_mosei.py in this process: what it defines, and `run` for its command line."""
    spec = importlib.util.spec_from_file_location("mosei", root / "hub" / "mosei" / "load_mosei.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def run(*arguments) -> int:
        monkeypatch.setattr(sys, "argv", ["load_mosei.py", *map(str, arguments)])
        return module.main()

    module.run = run
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    disable_progress_bars()
    yield module
    enable_progress_bars()


def test_from_a_hub(local_hub, root, tables, tmp_path):
    builder = MoseiBuilder(layout="labels", data_dir=str(tables), cache_dir=str(tmp_path / "cache"))
    prepare_dataset(builder, tmp_path / "out", card=root / "hub" / "mosei" / "README.md")
    command = [sys.executable, "-c", CLIENT, str(tmp_path / "out"), *CONFIGURATIONS]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env=local_hub.environment(),
        timeout=DEADLINE,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found) == 15
    for name in CONFIGURATIONS:
        builder = MoseiBuilder(
            config_name=name, layout="labels", data_dir=str(tables), cache_dir=str(tmp_path / "cache")
        )
        for split, rows in builder.as_streaming_dataset().items():
            rows = list(rows)
            assert rows
            assert found[f"{name} {split}"] == [rows, rows, *[str(builder.info.features)] * 2]
    assert ("POST", "/api/datasets/umons/mosei/commit/main") in local_hub.requests


def test_card(root, tables, tmp_path):
    card = DatasetCard.load(root / "hub" / "mosei" / "README.md")
    builder = MoseiBuilder(layout="labels", data_dir=str(tables), cache_dir=str(tmp_path / "cache"))
    assert card.data["configs"] == card_configs(builder, ["train", "validation", "test"])
    assert card.data["license"] == "other"
    assert card.text.count(CARD_MARK) == 1
    for split, counts in MoseiBuilder.OFFICIAL_COUNTS.items():
        assert f"| {split} | {counts['segments']:,} | {counts['videos']:,} |" in card.text
    for name in ("sentiment_7", "emotions"):
        numbers = MoseiBuilder.OFFICIAL_COUNTS["test"][name].values()
        assert f"| segments | {' | '.join(f'{number:,}' for number in numbers)} |" in card.text


def test_load_mosei(script, tables):
    streamed = script.load_mosei(str(tables), "labels", "emotion", "train", streaming=True)
    prepared = script.load_mosei(str(tables), "labels", "emotion", "train")
    assert list(streamed) == list(prepared)
    assert prepared[1]["text"] == "wörds"
    assert list(script.load_mosei(str(tables), "labels")) == ["train", "validation", "test"]


def test_shown_rows(script, tables, capsys):
    arguments = [tables, "--layout", "labels", "--config_name", "sentiment-7", "--split", "train", "--num_rows", "2"]
    assert script.run(*arguments) == 0
    shown = capsys.readouterr().out
    assert shown.count("segment_id") == 2
    assert "text            'wörds'\n" in shown
    assert "sentiment_7     0\n" in shown
    assert script.describe([[0.0] * 80] * 7) == "7 x 80 numbers"
    assert script.describe("a" * 200) == f"'{'a' * 99}..."


def test_what_cannot_be_shown(script, tables, tmp_path, capsys):
    assert script.run(tmp_path / "nowhere", "--layout", "labels") == 1
    assert "there is no such folder" in capsys.readouterr().err
    (tables / "labels.csv").unlink()
    assert script.run(tables, "--layout", "labels") == 1
    assert "labels.csv" in capsys.readouterr().err
