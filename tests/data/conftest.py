"""A source in memory, with features, with what is missing, and with segments that cannot be read."""

from functools import cached_property

import numpy as np
import pytest
from datasets import disable_progress_bars, enable_progress_bars

from modeling_umons.data import builders
from modeling_umons.data.layouts import Source
from modeling_umons.data.schema import make_features
from modeling_umons.models.umons.configuration_umons import EMOTIONS


class TinySource(Source):
    """40 segments in three splits. What `bad` names cannot be read, with the error that stands there."""

    features = make_features(audio_size=3, video_size=2)
    bad: dict[str, Exception] = {}

    @cached_property
    def segments(self) -> dict[str, list[str]]:
        self.left_out |= {f"stray[{i}]": "its video is in no split" for i in range(6)}
        sizes = {"train": 33, "validation": 0, "test": 7}
        return {split: [f"{split}_{i // 3}[{i % 3}]" for i in range(size)] for split, size in sizes.items()}

    def read(self, split: str, segment_id: str) -> dict:
        if segment_id in self.bad:
            raise self.bad[segment_id]
        number = self.segments[split].index(segment_id)
        random = np.random.default_rng(number)
        row = {"segment_id": segment_id, "video_id": segment_id[:-3], "segment": number % 3}
        if number % 4:
            row |= {"start": 0.5 * number, "end": 0.5 * number + 9, "text": f"the wörd {number}"}
            row["words"] = [{"word": word, "start": 0.1, "end": None} for word in row["text"].split()]
            row["audio_features"] = random.normal(size=(1 + number % 5, 3)).astype(np.float32)
        if number % 3:
            row["video_features"] = random.normal(size=(2, 2)).astype(np.float32)
            row["sentiment"] = (number % 13 - 6) / 2
            row |= {name: float((number + i) % 4 == 0) for i, name in enumerate(EMOTIONS)}
        return row


@pytest.fixture
def tiny_source(monkeypatch) -> type[TinySource]:
    """Any layout of any folder is this source."""
    monkeypatch.setattr(builders, "open_source", lambda layout, folder, **options: TinySource(folder))
    monkeypatch.setattr(TinySource, "bad", {})
    return TinySource


@pytest.fixture
def quiet():
    """No progress bars of `datasets`."""
    disable_progress_bars()
    yield
    enable_progress_bars()


@pytest.fixture
def mosi_folder(tmp_path):
    """A small table of the layout `mosi`, with two rows that cannot be read."""
    lines = ["segment_id,split,sentiment,text"]
    lines += [
        f"video{i // 5}_{i % 5},{split},{i % 7 - 3},text {i}" for i, split in enumerate(40 * ["train"] + ["test"] * 9)
    ]
    lines[7] = "video1_1,train,much,text 6"
    lines[45] = "video8_x,test,1,text 44"
    (tmp_path / "mosi").mkdir()
    (tmp_path / "mosi" / "mosi.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "mosi"
