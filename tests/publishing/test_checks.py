"""Checks before a push: folders that are incomplete, damaged or not for the public."""

import shutil

import pytest

from modeling_umons.publishing.assemble import assemble_folder
from modeling_umons.publishing.plan import fill_in_card, plan_push


@pytest.fixture
def model(root, tmp_path):
    """The folder of a small model, with its code."""
    assemble_folder(root / "hub" / "umons-mini", tmp_path / "mini")
    return tmp_path / "mini"


def check(folder, repo_id="umons/mini", **options):
    with plan_push(folder, repo_id, **options) as plan:
        return plan.warnings


def truncate(path, by):
    path.write_bytes(path.read_bytes()[:-by])


DAMAGES = {
    "import": (lambda f: (f / "media_umons.py").unlink(), r"has no media_umons\.py, but \w+\.json names"),
    "pipeline": (lambda f: (f / "pipeline_umons.py").unlink(), r"no pipeline_umons\.py, but config\.json names"),
    "weights": (lambda f: (f / "model.safetensors").unlink(), r"has no model\.safetensors"),
    "header": (lambda f: (f / "model.safetensors").write_bytes(b"\xff" * 9), "not a complete safetensors file"),
    "truncated": (lambda f: truncate(f / "model.safetensors", 1000), "not a complete safetensors file"),
    "pickle": (lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"), r"pytorch_model\.bin is a pickle"),
    "stray": (lambda f: (f / "model-00001-of-00002.safetensors").touch(), "does not belong to these weights"),
    "index": (lambda f: (f / "model.safetensors.index.json").write_text("{}"), "has no `weight_map`"),
    "shard": (
        lambda f: (f / "model.safetensors.index.json").write_text('{"weight_map": {"a": "b.safetensors"}}'),
        r"has no b\.safetensors",
    ),
    "tokenizer": (lambda f: (f / "tokenizer.json").unlink(), r"has no tokenizer\.json"),
    "processor": (
        lambda f: [(f / name).unlink() for name in ("processor_config.json", "preprocessor_config.json")],
        r"has no processor_config\.json",
    ),
    "auto_map": (lambda f: (f / "config.json").write_text('{"model_type": "umons"}'), "names no code"),
    "json": (lambda f: (f / "config.json").write_text("{"), "is not valid JSON"),
    "deep_json": (lambda f: (f / "config.json").write_text("[" * 100_000), "is not valid JSON"),
    "json_list": (lambda f: (f / "config.json").write_text("[1]"), "is not a JSON object"),
    "card": (lambda f: (f / "README.md").unlink(), r"has no README\.md"),
    "yaml": (lambda f: (f / "README.md").write_text("---\na: [\n---\n"), "not a YAML mapping"),
    "link": (lambda f: (f / "lost.py").symlink_to("nowhere"), "is a symbolic link to nowhere"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_incomplete_model_raises(model, name):
    damage, message = DAMAGES[name]
    damage(model)
    with pytest.raises(OSError, match=message) as raised:
        check(model)
    assert str(model) in str(raised.value)


@pytest.mark.parametrize(
    ("card", "message"),
    [
        ("configs: x", "no `configs` with `data_files`"),
        ("configs: [{data_files: 3}]", "no `configs` with `data_files`"),
        ("configs: [{data_files: 'data/train-*'}]", r"has no data/train-\*, which its card names"),
        ("sdk: gradio", r"has no app\.py"),
        ("sdk: [x]", "no valid `sdk`"),
        ("pretty_name: x", "is neither a model"),
    ],
)  # fmt: skip
def test_incomplete_data_set_or_space_raises(tmp_path, card, message):
    (tmp_path / "README.md").write_text(f"---\n{card}\n---\n")
    with pytest.raises(OSError, match=message):
        check(tmp_path, "umons/x")


def test_metric_needs_a_repository_of_its_name(root):
    assert check(root / "hub" / "metrics", "umons/metrics") == []
    with pytest.raises(OSError, match=r"loads other\.py from a repository named 'other', but .* has metrics"):
        check(root / "hub" / "metrics", "umons/other")


def test_folders_of_the_project(root, model, tmp_path):
    (model / "README.md").write_text("# Mine\n")
    assert "names no licence" in check(model)[0]
    with pytest.raises(OSError, match=r"has no data/train-\*\.parquet, which its card names"):
        check(root / "hub" / "mosei", "umons/mosei")
    with plan_push(root / "hub" / "space", "umons/app") as plan:
        assert sum(name.endswith(".mp4") for name in plan.files) == 2
    with plan_push(root / "hub" / "umons-mini", "umons/mini", endpoint=root / "hub" / "endpoint") as plan:
        assert {"handler.py", "request_handling.py", "modeling_tbje.py"} <= set(plan.files)
    with pytest.raises(OSError, match=r"is neither a model .* such as mini in it"):
        check(model.parent)
    with pytest.raises(OSError, match="is not a folder"):
        check(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="--endpoint is for models"):
        check(root / "hub" / "space", endpoint=root / "hub" / "endpoint")


def test_damaged_parquet_file_raises(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "README.md").write_text("---\nlicense: mit\nconfigs: [{data_files: './data/train-*.parquet'}]\n---\n")
    path = tmp_path / "data" / "train-00000-of-00001.parquet"
    path.write_bytes(b"PAR1 PAR1")
    with plan_push(tmp_path, "umons/x") as plan:
        assert (plan.kind, plan.warnings) == ("dataset", [])
        assert plan.stale == ["data/train-?????-of-?????.parquet"]
    truncate(path, 1)
    with pytest.raises(OSError, match="not a complete Parquet file"):
        check(tmp_path, "umons/x")


@pytest.mark.parametrize("token", ["hf_" + "ofSomebodyElse" * 2, "of-another-kind"], ids=["any", "own"])
def test_token_in_a_file_raises(model, monkeypatch, token):
    monkeypatch.setenv("HF_TOKEN", token if not token.startswith("hf_") else "hf_test")
    (model / "notes.txt").write_text("hf_a_name_in_some_code_and_no_token" + "x" * 1000)
    assert check(model) == []
    (model / "notes.txt").write_text("x" * ((4 << 20) - 10) + token)  # across blocks of 4 MiB
    with pytest.raises(OSError, match=r"notes\.txt holds a token") as raised:
        check(model)
    assert token not in str(raised.value)


def test_originals_stay_as_they_are(root, model):
    before = {path: path.read_bytes() for path in model.rglob("*") if path.is_file()}
    with plan_push(model, "umons/other", endpoint=root / "hub" / "endpoint", tag="v1") as plan:
        assert b"umons/other" in plan.files["README.md"].read_bytes()
    assert {path: path.read_bytes() for path in model.rglob("*") if path.is_file()} == before
    assert not plan.folder.exists()


def test_endpoint_must_not_replace_a_file_of_the_model(model, root, tmp_path):
    endpoint = shutil.copytree(root / "hub" / "endpoint", tmp_path / "endpoint")
    (endpoint / "config.json").write_text("{}")
    with pytest.raises(OSError, match=r"would replace another config\.json"):
        check(model, endpoint=endpoint)


def test_only_examples_of_the_card_are_filled_in():
    card = """# mini
`pipeline("x", model="mini")` and `revision="main"` are not in a block.
```python
a = pipeline("x", model='mini', revision="main", trust_remote_code=True)
b = pipeline("x", model="minimal")
c = transcribe(name="mini")
d = load_dataset("mini")
```
"""
    filled = fill_in_card(card, "model", {"mini"}, "umons/mini")
    assert filled == card.replace("model='mini'", "model='umons/mini'")
    tagged = fill_in_card(card, "model", {"mini"}, "umons/mini", tag="v1.0")
    assert tagged == filled.replace("'umons/mini', revision=\"main\"", "'umons/mini', revision=\"v1.0\"")
    filled = fill_in_card(card, "dataset", {"mini"}, "umons/mini")
    assert filled == card.replace('load_dataset("mini")', 'load_dataset("umons/mini")')
