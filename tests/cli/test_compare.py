"""`umons compare` on a few rows of the sample, and its models in use."""

import csv
import json
import re
from pathlib import Path

import pytest
from call_command import call
from PIL import Image
from transformers import AutoModelForSequenceClassification, pipeline

from modeling_umons import EMOTIONS
from modeling_umons.cli import compare


TASK = "multimodal-emotion-recognition"
BASELINES = ["tfn", "mfn", "graph_mfn", "multilogue_net"]
# Of all models one, and two that have less to read.
NAMES = ["umons", "umons_text", *BASELINES]
OPTIONS = [
    "--model", *NAMES, "--seed", "42", "--seeds", "2", "--num_train_epochs", "1", "--per_device_train_batch_size", "4",
    "--word_embedding_size", "8", "--hidden_size", "8", "--intermediate_size", "8", "--num_hidden_layers", "1",
    "--num_attention_heads", "2", "--learning_rate", "1e-4", "--learning_rates", "tfn=0.005", "umons_text=0.002",
    "--config_overrides", "tfn.dropout=0.25", "mfn.memory_size=6", "graph_mfn.memory_size=7",
    "multilogue_net.global_state_size=9", "multilogue_net.party_state_size=10",
]  # fmt: skip


@pytest.fixture(scope="module")
def table(root, tmp_path_factory) -> Path:
    """Twelve training rows and six of each held-out split, three per video with two speakers."""
    sample = root / "hub" / "sample"
    with open(sample / "metadata.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    chosen = [row for split, n in (("train", 12), ("validation", 6), ("test", 6)) for row in
              [row for row in rows if row["split"] == split][:n]]  # fmt: skip
    for i, row in enumerate(chosen):
        row |= {"video_id": f"video {i // 3}", "segment": i % 3, "speaker": "AB"[i % 2]}
        row["file_name"] = str(sample / row["file_name"])
    path = tmp_path_factory.mktemp("table") / "metadata.csv"
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, chosen[0])
        writer.writeheader()
        writer.writerows(chosen)
    return path


@pytest.fixture(scope="module")
def run(root, table, tmp_path_factory):
    """Call `umons compare` without plots, which other tests cover. A warning is an error."""
    cache = tmp_path_factory.getbasetemp() / "datasets-cache"

    def main(*words):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("datasets.config.HF_DATASETS_CACHE", cache)
            patch.setenv("ACCELERATE_USE_CPU", "true")
            patch.setattr("modeling_umons.evaluation.report.write_plots", lambda *args, **options: [])
            patch.setattr("modeling_umons.evaluation.seeds.plot_seeds", lambda *args, **options: None)
            call(compare.main, "compare", "--train_file", table, *words)

    return main


@pytest.fixture(scope="module")
def compared(run, tmp_path_factory) -> Path:
    """Folder of a comparison."""
    output = tmp_path_factory.mktemp("compared") / "out"
    run(*OPTIONS, "--output_dir", output)
    return output


@pytest.fixture(scope="module")
def clip(root) -> str:
    return str(root / "hub" / "sample" / "clips" / "040.mp4")


def read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def test_comparison_has_all_models(compared):
    comparison = read(compared / "comparison.json")
    assert list(comparison["systems"]) == NAMES
    assert (comparison["task"], comparison["split"], comparison["seeds"]) == ("joint", "test", 2)
    assert (comparison["rows"], comparison["groups"]) == (6, 2)
    text = (compared / "comparison.md").read_text(encoding="utf-8")
    for name, system in comparison["systems"].items():
        mae = system["metrics"]["mae"]
        reports = [read(compared / name / f"seed-{seed}" / "report" / "report.json") for seed in (42, 43)]
        assert mae["values"] == [report["splits"]["test"]["model"]["mae"] for report in reports]
        assert mae["values"][0] != mae["values"][1]
        assert f"| {name} | {mae['mean']:.3f} ± {mae['std']:.3f}<br>" in text
        model = AutoModelForSequenceClassification.from_pretrained(compared / name / "seed-42")
        assert system["parameters"] == model.num_parameters()
        assert system["seconds_per_epoch"] > 0
    assert set(comparison["baselines"]) == {"constant", "tfidf"}
    with Image.open(compared / "comparison.png") as image:
        assert min(image.size) > 400


def test_models_are_evaluated_on_same_rows(compared):
    reports = [read(path) for path in compared.glob("*/seed-*/report/report.json")]
    assert len(reports) == 2 * len(NAMES)
    for split in ("validation", "test"):
        figures = [report["splits"][split] for report in reports]
        assert all((one["rows"], one["groups"]) == (6, 2) for one in figures)
        assert all(one["baselines"] == figures[0]["baselines"] for one in figures)


def test_single_model_options_apply(compared):
    reports = {name: read(compared / name / "seed-42" / "report" / "report.json") for name in NAMES}
    rates = {
        name: next(entry["learning_rate"] for entry in report["history"] if "learning_rate" in entry)
        for name, report in reports.items()
    }
    assert rates == pytest.approx(dict.fromkeys(NAMES, 1e-4) | {"tfn": 0.005, "umons_text": 0.002})
    configs = {name: read(compared / name / "seed-42" / "config.json") for name in NAMES}
    assert {name: config["model_type"] for name, config in configs.items()} == {
        name: name.removesuffix("_text") for name in NAMES
    }
    assert configs["umons_text"]["modalities"] == ["text"]
    assert configs["tfn"]["dropout"] == 0.25
    assert (configs["mfn"]["memory_size"], configs["graph_mfn"]["memory_size"]) == (6, 7)
    assert configs["multilogue_net"]["dropout"] == 0.5


def test_finished_models_are_not_retrained(run, compared, capsys):
    """Only the comparison is rewritten."""
    kept = {path: path.stat().st_mtime_ns for path in compared.rglob("*.safetensors")}
    kept |= {path: path.stat().st_mtime_ns for path in compared.rglob("report.json")}
    assert len(kept) >= 4 * len(NAMES)
    before = read(compared / "comparison.json")
    for path in compared.glob("comparison.*"):
        path.unlink()
    run(*OPTIONS, "--output_dir", compared, "--resume_from_checkpoint", "last")
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert read(compared / "comparison.json") == before
    assert (compared / "comparison.md").is_file()
    assert (compared / "comparison.png").is_file()
    lines = [line for line in capsys.readouterr().out.splitlines() if line]
    assert lines[0].startswith("test (6 rows in 2 groups)")
    assert [line.split()[0] for line in lines[1:]] == [*NAMES, "constant", "TF-IDF"]


@pytest.mark.parametrize("name", BASELINES)
def test_pipeline_loads_each_model(compared, clip, name):
    recognize = pipeline(TASK, model=str(compared / name / "seed-42"))
    assert type(recognize.model.config).__name__.lower() == f"{name.replace('_', '')}config"
    both, words = recognize([{"text": "I am so happy", "video": clip}, {"text": "I am so happy"}])
    for result, modalities in ((both, ["text", "audio"]), (words, ["text"])):
        assert result["modalities"] == modalities
        assert {entry["label"] for entry in result["emotions"]} == set(EMOTIONS)
        assert all(0 < entry["score"] < 1 for entry in result["emotions"])
    assert both["sentiment"] != words["sentiment"]

    segments = recognize({"video": clip}, chunk_length_s=1.0, batch_size=2)
    assert len(segments) > 1
    assert segments[0]["timestamp"] == (0.0, 1.0)
    assert all(segment["modalities"] in (["audio"], []) for segment in segments)
    again = recognize({"video": clip}, chunk_length_s=1.0)
    heard = [[s["sentiment"] for s in of if s["modalities"]] for of in (segments, again)]
    assert heard[0] == pytest.approx(heard[1], abs=1e-5)
    assert heard[0]


def test_efficacies_snippet_of_documentation_runs(compared, root, monkeypatch, capsys):
    text = (root / "docs" / "comparison.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.+?)^```$", text, re.MULTILINE | re.DOTALL)
    path = '"runs/compare/graph_mfn/seed-1"'
    assert code.count(path) == 1
    monkeypatch.chdir(root)
    names: dict = {}
    exec(code.replace(path, f'"{(compared / "graph_mfn" / "seed-42").as_posix()}"'), names)
    efficacies, means = names["efficacies"], names["means"]
    assert efficacies.shape[0] == len(names["rows"]) == 18
    assert efficacies.shape[2] == len(names["model"].config.edges()) == 5
    assert ((means > 0) & (means < 1)).all()
    assert "text -> output: " in capsys.readouterr().out
