# Copyright 2026 The modeling_umons authors.
# SPDX-License-Identifier: MIT
"""What a push refuses before anything is sent: folders that are not whole, damaged files, and links to elsewhere."""

import shutil
from pathlib import Path

import pytest

from modeling_umons.publishing.push import fill_in_repo_id, make_plan


@pytest.fixture
def model(root, tmp_path):
    """The folder of a small model, without links."""
    return shutil.copytree(root / "hub" / "umons-mini", tmp_path / "mini")


def cut(path, by):
    path.write_bytes(path.read_bytes()[:-by])


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda f: (f / "media.py").unlink(), r"has no media\.py, but \w+\.py imports it"),
        (lambda f: (f / "pipeline_umons.py").unlink(), r"no pipeline_umons\.py, but config\.json names"),
        (lambda f: (f / "modeling_umons.py").write_text("x ="), "is no Python"),
        (lambda f: (f / "modeling_umons.py").write_text("x = 1"), "has no class UmonsModel"),
        (lambda f: (f / "model.safetensors").unlink(), r"has no model\.safetensors"),
        (lambda f: (f / "model.safetensors").write_bytes(b"\xff" * 9), "no safetensors file, or is cut short"),
        (lambda f: cut((f / "model.safetensors"), 1000), "is cut short"),
        (lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"), r"pytorch_model\.bin is a pickle"),
        (lambda f: (f / "model-00001-of-00002.safetensors").write_bytes(b""), "is no part of these weights"),
        (lambda f: (f / "tokenizer.json").unlink(), r"has no tokenizer\.json"),
        (lambda f: [f.joinpath(n).unlink() for n in ("processor_config.json", "preprocessor_config.json")],
         r"has no processor_config\.json"),
        (lambda f: (f / "config.json").write_text('{"model_type": "umons"}'), "names no code"),
        (lambda f: (f / "config.json").write_text("{"), "is no JSON"),
        (lambda f: (f / "README.md").unlink(), r"has no README\.md"),
        (lambda f: (f / "README.md").write_text("---\na: [\n---\n"), "no YAML mapping"),
        (lambda f: (f / "lost.py").symlink_to("nowhere"), "a link to nowhere, where there is no file"),
        (lambda f: (f / "loop").symlink_to(f), "a link to a folder that it is in"),
        (lambda f: (f / "a\udcff").touch(), r"a\\udcff' has a name that the Hub cannot have"),
        *[(lambda f, name=name, text=text: spoil_file(f / name, text), words) for name, text, words in (
            ("config.json", "[1]", r"config\.json is \[1\], but it has to be a mapping"),
            ("config.json", "[" * 100_000, r"config\.json is no JSON"),
            ("config.json", '{"auto_map": "x"}', r"`auto_map` is 'x', but it has to be a mapping"),
            ("config.json", '{"auto_map": {"AutoModel": 3}}', r"`auto_map` is 3, but it has to be a text"),
            ("config.json", '{"auto_map": {"AutoModel": "media.x"}, "modalities": 3}', r"`modalities` is 3"),
            ("processor_config.json", '{"a": {"auto_map": ["x"]}}', r"json: `a`: `auto_map` is \['x'\]"),
            ("processor_config.json", '{"custom_pipelines": [1]}', r"`custom_pipelines` is \[1\]"),
            ("processor_config.json", '{"custom_pipelines": {"a": {}}}', r"`impl` is None, but it has to be a text"),
            ("tokenizer.json", "3", r"tokenizer\.json is 3"),
            ("model.safetensors.index.json", "{}", "`weight_map` is None, but it has to be a mapping"),
            ("model.safetensors.index.json", '{"weight_map": {"a": 3}}', "`weight_map` is 3, but it has to be a text"),
            ("model.safetensors", "[]", r"its header is \[\], but it has to be a mapping"),
            ("model.safetensors", '{"a": 3}', "its header is 3"),
            ("model.safetensors", '{"a": {}}', "`data_offsets` is None, but it has to be a list"),
            ("model.safetensors", '{"a": {"data_offsets": ["x"]}}', "its header is 'x', but it has to be an integer"),
            ("README.md", "---\nmodel-index: x\n---\n", "`model-index` is 'x', but it has to be a list"),
            ("README.md", "---\nmodel-index: [x]\n---\n", "`model-index` is 'x', but it has to be a mapping"),
        )],
    ],
    ids=["import", "pipeline", "python", "class", "weights", "header", "cut", "pickle", "stray", "tokenizer", "processor",
         "code", "json", "card", "yaml", "link", "loop", "name", *[f"shape{i}" for i in range(17)]],
)  # fmt: skip
def test_a_model_that_is_not_whole(model, spoil, words):
    spoil(model)
    with pytest.raises(OSError, match=words):
        make_plan(model, "umons/mini")


def spoil_file(path, text):
    """With another content; of safetensors, another header."""
    is_weights = path.suffix == ".safetensors"
    path.write_bytes(is_weights * len(text).to_bytes(8, "little") + text.encode() + is_weights * b"\0")


@pytest.mark.parametrize(
    ("card", "words"),
    [
        ("configs: x", "`configs` is 'x', but it has to be a list"),
        ("configs: {a: 1}", "`configs` is {'a': 1}"),
        ("configs: [x]", "`configs` is 'x', but it has to be a mapping"),
        ("configs: [{data_files: 3}]", "`data_files` is 3"),
        ("configs: [{data_files: 'data/**.parquet'}]", "is no pattern of files"),
        ("sdk: gradio\napp_file: 3", "`app_file` is 3, but it has to be a text"),
        ("sdk: gradio\ntags: 3", "`tags` is 3"),
        ("sdk: [x]", "does not say how the Space runs"),
    ],
)  # fmt: skip
def test_cards_that_nobody_can_read(tmp_path, card, words):
    (tmp_path / "README.md").write_text(f"---\n{card}\n---\n")
    with pytest.raises(OSError, match=words):
        make_plan(tmp_path, "umons/x")


def test_links(model, root, tmp_path):
    """Into the folder around, and to code; and they are shown, also where the folder above is the link."""
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True)
    for path in (home / "id_rsa", home / ".ssh" / "key", home / "code.py"):
        path.write_text("x = 1\n")
    inner = tmp_path / "around"
    model = model.rename(inner.mkdir() or inner / "mini")
    (inner / "notes").mkdir()
    (inner / "notes" / "one.txt").write_text("one")

    (model / "extra").symlink_to(inner / "notes")
    (model / "helper.py").symlink_to(home / "code.py")
    said = make_plan(model, "umons/mini").describe()
    assert f"  extra/one.txt -> {inner / 'notes' / 'one.txt'}\n" in said
    assert f"  helper.py -> {home / 'code.py'}\n" in said
    assert said.count("->") == 3
    for target in (home, home / "id_rsa", home / ".ssh", Path("/")):
        (model / "extra").unlink()
        (model / "extra").symlink_to(target)
        with pytest.raises(OSError, match=r"extra is a link to .*, which is hidden, or outside of .*/around:"):
            make_plan(model, "umons/mini")


def test_links_from_a_folder_that_stands_in_the_home(model, monkeypatch):
    monkeypatch.setenv("HOME", str(model.parent))
    (model.parent / "id_rsa").write_text("x")
    (model / "extra").symlink_to(model.parent / "id_rsa")
    with pytest.raises(OSError, match=r"outside of .*/mini:"):
        make_plan(model, "umons/mini")


def test_links_of_our_own_folders(root):
    plan = make_plan(root / "hub" / "umons-mini", "umons/mini", endpoint=root / "hub" / "endpoint")
    assert "requests_umons.py" in plan.files
    assert [name for name in make_plan(root / "hub" / "space", "umons/app").files if name.endswith(".mp4")]


def test_only_examples_of_the_card_are_filled_in():
    card = """# mini
`pipeline("x", model="mini")` is old.
```python
a = pipeline("x", model='mini', trust_remote_code=True)
b = pipeline("x", model="minimal")
c = Transcriber(model="mini")
d = load_dataset("mini")
```
"""
    filled = fill_in_repo_id(card, "model", {"mini"}, "umons/mini")
    assert filled == card.replace("model='mini'", "model='umons/mini'")
    filled = fill_in_repo_id(card, "dataset", {"mini"}, "umons/mini")
    assert filled == card.replace('load_dataset("mini")', 'load_dataset("umons/mini")')
