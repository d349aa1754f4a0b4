"""Model card."""

import pytest
from huggingface_hub import ModelCard
from small_pipelines import make_model, make_processor
from transformers import pipeline
from transformers.pipelines import SUPPORTED_TASKS

from modeling_umons import UmonsConfig
from modeling_umons.publishing.model_card import (
    PAPERS,
    SYSTEMS,
    TASK,
    choose_pipeline_tag,
    read_template,
    write_model_card,
)
from modeling_umons.tasks.task import make_task


def results_of(rows: int, **more):
    return {
        "rows": rows, "groups": None, "model": {"mae": 0.75, "corr": 0.25, "acc2_non0": 0.5, "anger_f1": 0.125},
        "intervals": {"mae": [0.5, 1.0]}, "baselines": {"constant": {"mae": 1.25}, "tfidf": {"mae": 0.875}},
        "notes": ["Chosen at random."], **more,
    }  # fmt: skip


RESULTS = {
    "validation": results_of(8),
    "test": results_of(
        9, thresholds={"anger": -0.5}, model_tuned={"mae": 0.5}, intervals_tuned={}, sources={"mosi": results_of(4)}
    ),
}
ROWS = {"train": 30, "validation": 8, "test": 9}


@pytest.fixture
def write(tmp_path):
    """Write a card, and read it as the Hub does."""

    def call(
        source="clips/metadata.csv", results=RESULTS, modalities=("text", "audio"), recipe=None, system="umons", **more
    ):
        options = make_task("classification", classes=["calm", "angry"]).config_options()
        config = UmonsConfig(modalities=list(modalities), **options)
        config.model_type = system
        write_model_card(tmp_path, config, source, ROWS, recipe or {}, results, **more)
        return ModelCard.load(tmp_path / "README.md")

    return call


@pytest.mark.parametrize(
    ("modalities", "example", "requirements"),
    [
        (["text"], '{"text": "what a wonderful day"}', "`torch` and `transformers`."),
        (["text", "audio"], '{"text": "what a wonderful day"}', "`torch` and `transformers`; `av` for audio."),
        (["audio", "video"], '"clip.wav"', "`transformers`; `av` for audio; `av` and `torchvision` for video."),
    ],
)
def test_card_is_filled_in(write, tmp_path, modalities, example, requirements):
    card = write(modalities=modalities)
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "{{" in read_template()
    assert "{{" not in text
    assert "\n\n\n" not in text
    assert card.data.tags[:4] == ["emotion-recognition", "sentiment-analysis", "multimodal", "umons"]
    assert f"# {tmp_path.name}\n" in card.text
    assert f"recognize({example})" in card.text
    assert f"from {' and '.join(modalities)} with" in card.text
    assert requirements in card.text
    assert "\nangry, calm\n" in card.text
    assert "`clips/metadata.csv`: 30 train rows, 8 validation rows, 9 test rows." in card.text
    assert ("widget" in card.data.to_dict()) == ("text" in modalities)


def test_results_are_one_table_of_the_test_split(write):
    text = write().text
    assert text.count("| --- |") == 1
    assert "| data | metric | model | 95 % interval | constant | TF-IDF |" in text
    assert "| CMU-MOSI (4) | mae | 0.750 | 0.500 to 1.000 | 1.250 | 0.875 |" in text
    assert "tuned" not in text
    assert "anger_f1" not in text
    assert "Results on the validation split" in write(results={"validation": results_of(8)}).text


def test_card_has_groups_and_tests_of_explanations(write):
    group = {"rows": 12, "model": {"mae": 0.5}, "intervals": {"mae": [0.4, 0.6]}}
    found = {"groups": {"male": group}, "worst": {"mae": "male"}, "left_out": 0}
    curve = {"explanation": [1.0]}
    explained = {
        "texts": 40, "score": "sentiment", "top_word": {"explanation": 0.5, "best": 0.52, "random": 0.1},
        "agreement": 0.9, "shares": [0.0], "deletion": curve, "insertion": curve,
    }  # fmt: skip
    text = write(results={"test": results_of(9, by_column={"gender": found}, explanations=explained)}).text
    assert "| male | 12 | 0.500 (0.400 to 0.600) |" in text
    assert "Worst: male (mae)." in text
    assert "the best single word by 0.520" in text
    assert "deletion" not in text


def test_metadata_has_the_test_results_by_source(write, tmp_path):
    sources = {name: {**results_of(4), "model": {"mae": mae}} for name, mae in (("mosi", 0.5), ("other one", 0.25))}
    card = write(results={"test": results_of(9, sources=sources)})
    assert card.data.model_name == tmp_path.name
    assert [(r.dataset_name, r.dataset_type, r.metric_value) for r in card.data.eval_results] == [
        ("CMU-MOSI (test rows of clips/metadata.csv)", "cmu-mosi", 0.5),
        ("other one (test rows of clips/metadata.csv)", "other-one", 0.25),
    ]
    assert len(card.data.to_dict()["model-index"][0]["results"]) == 2
    assert card.data.datasets == ["cmu-mosi"]


def test_metadata_has_the_test_results(write):
    card = write(source="someone/mosi", results={"test": results_of(9)})
    results = {result.metric_name: result for result in card.data.eval_results}
    assert results["mae"].metric_value == 0.75
    assert {name: result.metric_type for name, result in results.items()} == {
        "mae": "mae", "corr": "pearsonr", "acc2_non0": "accuracy",
    }  # fmt: skip
    assert {(r.dataset_split, r.dataset_name, r.dataset_type) for r in results.values()} == {
        ("test", "someone/mosi", "someone/mosi")
    }
    assert card.data.metrics == ["accuracy", "mae", "pearsonr"]
    assert card.data.datasets == ["someone/mosi"]


def test_pipeline_tag_gives_the_example_of_the_hub_a_right_answer(tmp_path):
    """The Hub shows `pipeline(pipeline_tag, model=...)` for tasks of transformers."""
    options = {name: make_task(name).config_options() for name in ("joint", "emotion", "sentiment", "sentiment-7")}
    joint = UmonsConfig(modalities=["text"], **options.pop("joint"))
    assert choose_pipeline_tag(joint) == TASK
    assert choose_pipeline_tag(UmonsConfig(modalities=["audio"], **options["emotion"])) == TASK
    for name, task_options in options.items():
        model = make_model(modalities=["text"], **task_options)
        tag = choose_pipeline_tag(model.config)
        assert tag == "text-classification" in SUPPORTED_TASKS
        folder = tmp_path / name
        pipeline(TASK, model=model, processor=make_processor()).save_pretrained(folder)
        make_processor().save_pretrained(folder)
        stock = {entry["label"]: entry["score"] for entry in pipeline(tag, model=str(folder))("so glad", top_k=None)}
        own = pipeline(TASK, model=str(folder))({"text": "so glad"})
        entries = own.get("emotions") or own.get("labels") or []
        expected = {entry["label"]: entry["score"] for entry in entries}
        if name == "sentiment":
            expected = {model.config.id2label[0]: own["sentiment"]}
        assert stock == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("modalities", "tag", "others"),
    [
        (["text", "audio"], "text-classification", ["audio-classification"]),
        (["audio", "video"], TASK, ["audio-classification", "video-classification"]),
    ],
)
def test_tasks_of_the_hub_are_tags(write, modalities, tag, others):
    card = write(modalities=modalities)
    assert card.data.pipeline_tag == tag
    assert {result.task_type for result in card.data.eval_results} == {tag}
    assert card.data.tags[4:] == others
    assert set(others) <= set(SUPPORTED_TASKS)


def test_base_model_is_named_without_its_path(write, tmp_path):
    data = write(recipe={"model_name_or_path": "someone/mini"}).data
    assert data.base_model == "someone/mini"
    assert data.datasets == ["cmu-mosi"]
    assert write(recipe={"model_name_or_path": str(tmp_path)}).data.base_model == tmp_path.name


def test_license_is_that_of_the_base_model(write, tmp_path):
    base = tmp_path / "base"
    base.mkdir()
    recipe = {"model_name_or_path": str(base)}
    assert write(recipe=recipe).data.license is None
    (base / "README.md").write_text("---\nlicense: apache-2.0\n---\n\n# A model\n", encoding="utf-8")
    card = write(recipe=recipe)
    assert card.data.license == "apache-2.0"
    assert "apache-2.0, the licence of the base model base." in card.text
    assert write(recipe=recipe, license="mit").data.license == "mit"


DOIS = {
    "umons": ("10.18653/v1/2020.challengehml-1.1", "Delbrouck"),
    "tfn": ("10.18653/v1/D17-1115", "Zadeh"),
    "mfn": (None, "Zadeh"),
    "graph_mfn": ("10.18653/v1/P18-1208", "Zadeh"),
    "multilogue_net": ("10.18653/v1/2020.challengehml-1.3", "Shenoy"),
    "mult": ("10.18653/v1/P19-1656", "Tsai"),
}


@pytest.mark.parametrize("system", SYSTEMS)
def test_citation_is_the_paper_of_the_system(write, system):
    assert set(SYSTEMS) == set(PAPERS) == set(DOIS)
    cited = write(system=system).text.partition("## Citation\n\n```bibtex\n")[2]
    doi, author = DOIS[system]
    assert f'doi = "{doi}"' in cited if doi else "doi" not in cited
    assert f'author = "{author}' in cited
    assert (cited.count("@inproceedings"), cited.count("```")) == (1, 1)
    assert cited.count("{") == cited.count("}")


def test_model_without_results(write):
    card = write(results={})
    assert "Not evaluated." in card.text
    assert card.data.eval_results is None
    assert "model_name" not in card.data.to_dict()


def test_licence_data_and_limits(write):
    card = write()
    assert "license" not in card.data.to_dict()
    assert "The licence has not been set." in card.text
    card = write(license="mit", about_data="Utterances of four sources.", limits="Not for cats.")
    assert card.data.license == "mit"
    assert card.text.index("Utterances of four sources.") < card.text.index("Not for cats.")


def test_paths_are_not_published(write, tmp_path):
    card = write(source=str(tmp_path / "clips" / "metadata.csv"))
    assert "\n`metadata.csv`: 30 train rows" in card.text
    assert str(tmp_path) not in card.text


def test_template_of_the_package_equals_the_one_at_the_top(root):
    packaged = root / "modeling_umons" / "publishing" / "model_card.md"
    assert packaged.read_text(encoding="utf-8") == (root / "model_card.md").read_text(encoding="utf-8")
