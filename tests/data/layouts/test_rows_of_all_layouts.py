"""The same rows, from each layout: streamed by the builder, prepared by it, and from Parquet in both ways."""

import shutil

import pytest
from datasets import load_dataset

from modeling_umons.data import MoseiBuilder, prepare_dataset
from modeling_umons.data.layouts import open_source


@pytest.fixture
def folder_folder(root, tmp_path):
    """Two clips of the sample."""
    folder = tmp_path / "clips"
    (folder / "clips").mkdir(parents=True)
    lines = (root / "hub" / "sample" / "metadata.csv").read_text(encoding="utf-8").splitlines(keepends=True)
    (folder / "metadata.csv").write_text("".join(lines[:3]), encoding="utf-8")
    for line in lines[1:3]:
        name = line.split(",")[0]
        shutil.copy(root / "hub" / "sample" / name, folder / name)
    return folder


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("layout", ["umons", "csd", "mmsa", "folder"])
def test_rows(request, layout, tmp_path):
    options = {
        "layout": layout,
        "data_dir": str(request.getfixturevalue(f"{layout}_folder")),
        "cache_dir": str(tmp_path / "cache"),
    }
    output = tmp_path / "out"
    report = prepare_dataset(MoseiBuilder(**options), output)
    source = open_source(layout, options["data_dir"])
    assert report["failures"] == []
    segments = {split: ids for split, ids in source.segments.items() if ids}
    assert {split: record["segments"] for split, record in report["splits"].items() if record["segments"]} == {
        split: len(ids) for split, ids in segments.items()
    }
    for name in MoseiBuilder.builder_configs:
        builder = MoseiBuilder(config_name=name, **options)
        builder.download_and_prepare()
        prepared = builder.as_dataset()
        from_parquet = load_dataset(str(output), name, streaming=True)
        in_cache = load_dataset(str(output), name, cache_dir=str(tmp_path / "cache"))
        for split, ids in segments.items():
            rows = list(builder.as_streaming_dataset(split=split))
            assert [row["segment_id"] for row in rows] == ids
            assert list(prepared[split]) == list(from_parquet[split]) == list(in_cache[split]) == rows
            assert prepared[split].features == from_parquet[split].features == in_cache[split].features
