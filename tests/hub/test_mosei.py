"""hub/mosei: the card, and a prepared data set that is pushed to a Hub and loaded from it."""

import json
import subprocess
import sys

import pytest
from huggingface_hub import DatasetCard

from modeling_umons.data import MoseiBuilder, prepare_dataset
from modeling_umons.data.prepare import CARD_MARK, card_configs


DEADLINE = 240  # seconds, of which it takes a tenth
CONFIGURATIONS = ["all", "emotion", "sentiment-7", "sentiment-2", "sentiment"]

# A client that has only the Hub: neither the package nor the folder.
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


def test_prepared_data_set_loads_from_the_hub(local_hub, root, tables, tmp_path):
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


def test_card_agrees_with_the_builder(root, tables, tmp_path):
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
