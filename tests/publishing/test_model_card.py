"""The model card."""

import json

import pytest
from huggingface_hub import ModelCard
from transformers.pipelines import SUPPORTED_TASKS

from modeling_umons import UmonsConfig
from modeling_umons.publishing.model_card import SYSTEMS, renew_model_card, write_model_card
from modeling_umons.tasks.task import make_task


def figures(rows: int, **more):
    return {
        "rows": rows, "groups": None, "model": {"mae": 0.75, "corr": 0.25, "acc2_has0": 0.5, "anger_f1": 0.125},
        "intervals": {"mae": [0.5, 1.0]}, "constant": {"mae": 1.25}, "rivals": {"tfidf": {"mae": 0.875}},
        "notes": ["Drawn by lot."], **more,
    }  # fmt: skip


RESULTS = {
    "validation": figures(8),
    "test": figures(
        9, thresholds={"anger": -0.5}, model_tuned={"anger_f1": 0.5}, intervals_tuned={}, sources={"MOSI": figures(4)}
    ),
}
ROWS = {"train": 30, "validation": 8, "test": 9}


@pytest.fixture
def write(root, tmp_path):
    """Writes a card and reads it as the Hub does."""

    def call(
        source="clips/metadata.csv", results=RESULTS, modalities=("text", "audio"), recipe=None, system="umons", **more
    ):
        options = make_task("classification", classes=["calm", "angry"]).config_options()
        config = UmonsConfig(modalities=list(modalities), **options)
        config.model_type = system
        write_model_card(tmp_path, root / "model_card.md", config, source, ROWS, recipe or {}, results, **more)
        return ModelCard.load(tmp_path / "README.md")

    return call


@pytest.mark.parametrize(
    ("modalities", "example"), [(["text", "audio"], '{"text": "what a wonderful day"}'), (["audio"], '"clip.wav"')]
)
def test_card_loads(write, tmp_path, modalities, example):
    card = write(modalities=modalities, recipe={"learning_rate": 0.001, "modalities": ["text", "audio"]})
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert text.startswith("---\nlanguage: en\n")
    assert "{{" not in text
    assert card.data.tags[:4] == ["emotion-recognition", "sentiment-analysis", "multimodal", "umons"]
    assert f"# {tmp_path.name}\n" in card.text
    assert f"recognize({example})" in card.text
    assert f"from {' and '.join(modalities)}, by" in card.text
    assert "2 label(s): angry, calm." in card.text
    assert "clips/metadata.csv: 30 train rows, 8 validation rows, 9 test rows." in card.text
    assert "- learning_rate: 0.001\n- modalities: text, audio\n" in card.text


def test_results_stand_with_intervals_and_rivals(write):
    text = write().text
    start = text.index("### test (9 rows)")
    assert "| metric | model | 95 % interval | constant | TF-IDF |" in text
    assert "| mae | 0.750 | 0.500 to 1.000 | 1.250 | 0.875 |" in text[start:]
    assert "#### test, MOSI (4 rows)" in text
    assert "Thresholds of logits: anger -0.500." in text[start:]
    assert "- Drawn by lot." in text


def test_the_hub_reads_the_figures_of_the_test_split_by_source(write, tmp_path):
    sources = {name: {**figures(4), "model": {"mae": mae}} for name, mae in (("mosi", 0.5), ("other one", 0.25))}
    card = write(results={"test": figures(9, sources=sources)})
    assert card.data.model_name == tmp_path.name
    assert [(r.dataset_name, r.dataset_type, r.dataset_config, r.metric_value) for r in card.data.eval_results] == [
        ("CMU-MOSI (test rows of clips/metadata.csv)", "cmu-mosi", "clips/metadata.csv", 0.5),
        ("other one (test rows of clips/metadata.csv)", "other-one", "clips/metadata.csv", 0.25),
    ]
    assert len(card.data.to_dict()["model-index"][0]["results"]) == 2


def test_the_hub_reads_the_figures_of_the_test_split(write, tmp_path):
    card = write(source="someone/mosi", results={"test": figures(9)})
    results = {result.metric_name: result for result in card.data.eval_results}
    assert set(results) == {"mae", "corr", "acc2_has0"}
    assert results["mae"].metric_value == 0.75
    assert [results[name].metric_type for name in ("mae", "corr", "acc2_has0")] == ["mae", "pearsonr", "accuracy"]
    assert {(r.dataset_split, r.dataset_name, r.dataset_type) for r in results.values()} == {
        ("test", "someone/mosi", "someone/mosi")
    }
    assert card.data.metrics == ["accuracy", "mae", "pearsonr"]
    assert card.data.datasets == ["someone/mosi"]


@pytest.mark.parametrize(
    ("modalities", "task", "others"),
    [
        (["text", "audio"], "text-classification", ["audio-classification"]),
        (["audio", "video"], "audio-classification", ["video-classification"]),
        (["video"], "video-classification", []),
    ],
)
def test_the_task_is_one_that_the_hub_has(write, modalities, task, others):
    card = write(modalities=modalities)
    assert card.data.pipeline_tag == task
    assert {result.task_type for result in card.data.eval_results} == {task}
    assert card.data.tags[4:] == others
    assert {task, *others} <= set(SUPPORTED_TASKS)


def test_what_it_came_from(write, tmp_path):
    data = write(recipe={"model_name_or_path": "someone/mini"}).data
    assert data.base_model == "someone/mini"
    assert data.datasets is None
    assert write(recipe={"model_name_or_path": str(tmp_path)}).data.base_model is None


def test_card_is_renewed_from_the_report(write, root, tmp_path):
    recipe = {"learning_rate": 0.001, "modalities": ["text"]}
    write(recipe=recipe, license="mit", about_data="One.\n\nTwo.", limits="Not for cats.")
    config = UmonsConfig(**make_task("classification", classes=["calm", "angry"]).config_options())
    config.save_pretrained(tmp_path)
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "report.json").write_text(json.dumps({"recipe": recipe, "splits": RESULTS}))
    (tmp_path / "README.md").write_text(card.replace("## Results", "## Old results"), encoding="utf-8")
    renew_model_card(tmp_path, root / "model_card.md")
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == card
    (tmp_path / "README.md").write_text("# Of other making\n")
    with pytest.raises(ValueError, match="has no section 'Data'"):
        renew_model_card(tmp_path, root / "model_card.md")


PAPERS = {
    "umons": ("10.18653/v1/2020.challengehml-1.1", "Delbrouck"),
    "tfn": ("10.18653/v1/D17-1115", "Zadeh"),
    "mfn": (None, "Zadeh"),
    "graph_mfn": ("10.18653/v1/P18-1208", "Zadeh"),
    "multilogue_net": ("10.18653/v1/2020.challengehml-1.3", "Shenoy"),
}


@pytest.mark.parametrize("system", SYSTEMS)
def test_the_paper_is_that_of_the_system(write, system):
    """One paper, and that of the others nowhere."""
    cited = write(system=system).text.partition("## Citation\n\n```bibtex\n")[2]
    doi, author = PAPERS[system]
    assert f'doi = "{doi}"' in cited if doi else "doi" not in cited
    assert f'author = "{author}' in cited
    assert (cited.count("@inproceedings"), cited.count("```")) == (1, 1)
    assert cited.count("{") == cited.count("}")


def test_a_model_that_was_not_tested(write):
    card = write(results={})
    assert "Not evaluated." in card.text
    assert card.data.eval_results is None
    assert "model_name" not in card.data.to_dict()


def test_what_people_say_of_it(write):
    assert "license" not in write().data.to_dict()
    card = write(license="mit", about_data="Utterances of four sources.", limits="Not for cats.")
    assert card.data.license == "mit"
    assert card.text.index("Utterances of four sources.") < card.text.index("Not for cats.")


def test_paths_of_a_machine_stay_there(write, tmp_path):
    table = tmp_path / "clips" / "metadata.csv"
    card = write(source=str(table), recipe={"word_vectors": str(tmp_path / "glove.txt")})
    assert "\nmetadata.csv: 30 train rows" in card.text
    assert "- word_vectors: glove.txt" in card.text
    assert str(tmp_path) not in card.text
