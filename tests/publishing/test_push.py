# Copyright 2026 The modeling_umons authors.
# SPDX-License-Identifier: MIT
"""scripts/push_to_hub.py against a Hub on this machine: what goes there, what stays here, and what can go wrong."""

import importlib
import json
import shutil
import signal
import subprocess
import sys
import time

import huggingface_hub
import pytest
from huggingface_hub import RepoCard
from huggingface_hub.utils import disable_progress_bars, enable_progress_bars
from huggingface_hub.utils._runtime import is_xet_available

from modeling_umons.data import MoseiBuilder, prepare_dataset
from modeling_umons.publishing import checks as push_checks
from modeling_umons.publishing import push as push_module
from modeling_umons.publishing.push import PushError, make_plan, push


# What a token looks like; it is of nobody.
TOKEN = "hf_" + "secretSECRET" * 3
# Of huggingface_hub's own use of its HTTP client.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture
def hub(local_hub, monkeypatch, tmp_path):
    """The Hub of this process, in which nobody waits before trying again."""
    for name, value in {
        "ENDPOINT": local_hub.endpoint,
        "HF_HUB_DISABLE_XET": True,
        "HF_TOKEN_PATH": str(tmp_path / "no-token"),
    }.items():
        monkeypatch.setattr(huggingface_hub.constants, name, value)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    disable_progress_bars()
    yield local_hub
    enable_progress_bars()


@pytest.fixture
def model(root, tmp_path):
    """The folder of a small model, as after a run: beside it lies what stays here."""
    folder = tmp_path / "mini"
    shutil.copytree(root / "hub" / "umons-mini", folder)
    for name in (
        "checkpoint-7/optimizer.pt",
        "__pycache__/media.pyc",
        ".cache/x",
        "training_args.bin",
        "report/.x.part",
    ):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"\0")
    return folder


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """A prepared data set of a few rows."""
    folder = tmp_path_factory.mktemp("data")
    lines = ["segment_id,video_id,segment,split,start,end,sentiment,happy,sad,anger,surprise,disgust,fear"]
    for i, split in enumerate(("train", "train", "valid", "test")):
        lines.append(f"video{split}[{i}],video{split},{i},{split},{i},{i + 1},{i % 7 - 3},{i % 2},0,0.5,0,0,{i % 3}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    builder = MoseiBuilder(layout="labels", data_dir=str(folder), cache_dir=str(folder / "cache"))
    prepare_dataset(builder, folder / "mosei")
    return folder / "mosei"


@pytest.fixture
def space(root, tmp_path):
    """A Gradio Space, with links to a file and to a folder of code."""
    folder = tmp_path / "space"
    folder.mkdir()
    (folder / "README.md").write_text('---\n"sdk": "gradio"\nlicense: mit\n---\n\n# Try it\n')
    (folder / "app.py").write_text("import gradio\n")
    (folder / "media.py").symlink_to(root / "modeling_umons" / "media.py")
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "inner.py").write_text("x = 1\n")
    (folder / "package").symlink_to(tmp_path / "code")
    return folder


@pytest.fixture
def script(root, monkeypatch, capsys):
    """Calls the command; gives its exit status and what it said."""
    module = importlib.import_module("modeling_umons.cli.push")

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["push_to_hub.py", *map(str, words)])
        try:
            status = module.main()
        except SystemExit as stop:
            status = stop.code
        return status, "".join(capsys.readouterr())

    return call


def uploads(hub) -> int:
    """How many contents were sent to it."""
    return sum(method == "PUT" for method, _ in hub.requests)


def test_a_model_goes_whole_in_one_commit(hub, model, script):
    status, said = script(model, "--repo_id", "umons/mini", "--commit_message", "First")
    assert status == 0, said
    commit, files = hub.head("model", "umons/mini")
    content = hub.store.load("model", "umons/mini")
    assert [c["title"] for c in content["commits"].values()] == ["initial commit", "First"]
    assert commit in said
    expected = {str(path.relative_to(model)) for path in model.rglob("*") if path.is_file()}
    stays = {"checkpoint-7/optimizer.pt", "__pycache__/media.pyc", ".cache/x", "training_args.bin", "report/.x.part"}
    assert set(files) - {".gitattributes"} == expected - stays
    for name in expected - stays - {"README.md"}:
        assert hub.content("model", "umons/mini", name) == (model / name).read_bytes(), name
    # In the card that is there, the example loads the repository, and the rest is as here.
    here, there = (model / "README.md").read_bytes(), hub.content("model", "umons/mini", "README.md")
    assert there == here.replace(b'model="umons-mini"', b'model="umons/mini"') != here
    assert RepoCard(there.decode()).data.license == "cc-by-nc-sa-4.0"

    # Again, and there is nothing to do; with other weights, they alone are sent.
    sent = uploads(hub)
    status, said = script(model, "--repo_id", "umons/mini")
    assert (status, uploads(hub), hub.head("model", "umons/mini")[0]) == (0, sent, commit)
    assert "nothing new" in said
    change_weights(model)
    assert script(model, "--repo_id", "umons/mini")[0] == 0
    assert uploads(hub) == sent + 1
    assert hub.head("model", "umons/mini")[0] != commit


def change_weights(model):
    data = bytearray((model / "model.safetensors").read_bytes())
    data[-4:] = b"\0\0\0\0" if data[-4:] != b"\0\0\0\0" else b"\0\0\0\1"
    (model / "model.safetensors").write_bytes(data)


def test_dry_run_shows_all_and_asks_nobody(hub, model, script, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    status, said = script(model, "--repo_id", "umons/mini", "--dry_run")
    assert status == 0
    assert hub.requests == []
    assert "model repository umons/mini" in said
    assert f"{(model / 'model.safetensors').stat().st_size:,}  model.safetensors\n" in said
    assert f"bytes in {sum(path.is_file() for path in model.rglob('*')) - 5} files" in said
    assert (
        "removed there, where not in this list: model.safetensors.index.json, model-?????-of-?????.safetensors" in said
    )
    assert "left out: .cache, __pycache__, checkpoint-7, report/.x.part, training_args.bin" in said
    assert "warning" not in said


def test_data_metric_and_space(hub, dataset, space, root, script):
    for folder, repo, kind in (
        (dataset, "umons/mosei", "dataset"),
        (root / "hub" / "metrics", "umons/metrics", "space"),
        (space, "umons/app", "space"),
    ):
        status, said = script(folder, "--repo_id", repo)
        assert status == 0, said
        assert f"{hub.url(kind, repo)} is at {hub.head(kind, repo)[0]}" in said
    assert {"data/train-00000-of-00001.parquet", "README.md"} <= set(hub.head("dataset", "umons/mosei")[1])
    assert hub.store.load("space", "umons/metrics")["sdk"] == "static"
    assert b'"umons/metrics", "joint"' in hub.content("space", "umons/metrics", "README.md")
    assert hub.store.load("space", "umons/app")["sdk"] == "gradio"
    assert hub.content("space", "umons/app", "media.py") == (root / "modeling_umons" / "media.py").read_bytes()
    assert hub.content("space", "umons/app", "package/inner.py") == b"x = 1\n"


def test_endpoint_handler_goes_with_the_model(hub, model, root, tmp_path):
    endpoint = tmp_path / "endpoint"
    endpoint.mkdir()
    (endpoint / "handler.py").write_text("class EndpointHandler: ...\n")
    (endpoint / "README.md").write_text("# Of the handler\n")
    (endpoint / "media.py").symlink_to(root / "modeling_umons" / "media.py")  # the same that the model has
    push(make_plan(model, "umons/mini", endpoint=endpoint))
    assert hub.content("model", "umons/mini", "handler.py") == b"class EndpointHandler: ...\n"
    assert b"# umons-mini" in hub.content("model", "umons/mini", "README.md")
    (endpoint / "config.json").write_text("{}")
    with pytest.raises(OSError, match="would take the place of"):
        make_plan(model, "umons/mini", endpoint=endpoint)
    with pytest.raises(OSError, match=r"no handler\.py"):
        make_plan(model, "umons/mini", endpoint=tmp_path / "code")


def test_branches_and_privacy(hub, model):
    plan = make_plan(model, "umons/mini")
    main = push(plan).commit
    change_weights(model)
    branch = push(make_plan(model, "umons/mini"), revision="tries/second")
    assert branch.url == f"{hub.endpoint}/umons/mini/tree/tries/second"
    assert hub.head("model", "umons/mini")[0] == main
    assert hub.head("model", "umons/mini", "tries/second")[0] == branch.commit != main
    for revision in (None, "third"):
        with pytest.raises(PushError, match="exists and is public"):
            push(plan, private=True, revision=revision)
    assert "third" not in hub.store.load("model", "umons/mini")["refs"]
    push(make_plan(model, "umons/hidden"), private=True, revision="first")
    assert hub.store.load("model", "umons/hidden")["private"]
    push(make_plan(model, "umons/hidden"), private=True)
    assert set(hub.head("model", "umons/hidden")[1]) == set(hub.head("model", "umons/hidden", "first")[1])


def test_old_shards_do_not_stay_and_what_others_put_there_does(hub, dataset, model, script, tmp_path):
    """Names that only look like ours are left alone, whatever folder they are in."""
    api = huggingface_hub.HfApi(endpoint=hub.endpoint, token=TOKEN)

    def put(kind, repo, *names):
        operations = [huggingface_hub.CommitOperationAdd(name, b"theirs") for name in names]
        api.create_commit(repo, operations, commit_message="Theirs", repo_type=kind)

    push(make_plan(model, "umons/mini"))
    theirs = {"onnx/adapter.safetensors", "onnx/model.safetensors", "adapter_model.safetensors"}
    put("model", "umons/mini", *theirs, "model-00001-of-00002.safetensors", "model.safetensors.index.json")
    status, said = script(model, "--repo_id", "umons/mini")
    assert status == 0
    there = {name for name in hub.head("model", "umons/mini")[1] if "safetensors" in name}
    assert there == {*theirs, "model.safetensors"}
    assert "removed: model-00001-of-00002.safetensors\nremoved: model.safetensors.index.json\n" in said

    push(make_plan(dataset, "umons/mosei"))
    theirs = {"other/train-00000-of-00001.parquet", "data/faces-0.parquet", "data/train-x/a.parquet"}
    put("dataset", "umons/mosei", *theirs)
    other = tmp_path / "other"
    shutil.copytree(dataset, other)
    (other / "data" / "train-00000-of-00001.parquet").rename(other / "data" / "train-00000-of-00002.parquet")
    assert push(make_plan(other, "umons/mosei")).removed == ["data/train-00000-of-00001.parquet"]
    there = {name for name in hub.head("dataset", "umons/mosei")[1] if name.endswith(".parquet")}
    assert there == {str(path.relative_to(other)) for path in other.rglob("*.parquet")} | theirs


@pytest.mark.parametrize(
    ("pattern", "replaced"),
    [
        ("./data/train-*", ["data/train-*.parquet"]),
        ("https://example.org/train.parquet", []),
        ("data/**", ["data/**/*.parquet"]),
    ],
)
def test_cards_that_are_as_the_hub_has_them(hub, dataset, tmp_path, pattern, replaced):
    shutil.copytree(dataset / "data", tmp_path / "mosei" / "data")
    (tmp_path / "mosei" / "README.md").write_text(f"---\nlicense: mit\nconfigs: [{{data_files: '{pattern}'}}]\n---\n")
    plan = make_plan(tmp_path / "mosei", "umons/mosei")
    assert (plan.warnings, plan.replaced) == ([], replaced)
    assert push(plan).is_new


def cut(path, by):
    path.write_bytes(path.read_bytes()[:-by])


def test_what_else_is_not_whole(dataset, space, root, tmp_path, model):
    (model / "README.md").write_text("# Mine\n")
    assert "names no licence" in make_plan(model, "umons/mini").warnings[0]
    with pytest.raises(OSError, match=r"no data/train-\*\.parquet, which its configuration 'all' reads"):
        make_plan(root / "hub" / "mosei", "umons/mosei")
    with pytest.raises(OSError, match=r"looks for other\.py in a repository of the name 'other', but .* has metrics"):
        make_plan(root / "hub" / "metrics", "umons/other")
    damaged = tmp_path / "damaged"
    shutil.copytree(dataset, damaged)
    cut(next(damaged.glob("data/train*")), 2)
    with pytest.raises(OSError, match="no Parquet file, or is cut short"):
        make_plan(damaged, "umons/mosei")
    assert "no requirements" in make_plan(space, "umons/app").warnings[0]
    (space / "app.py").unlink()
    with pytest.raises(OSError, match=r"has no app\.py"):
        make_plan(space, "umons/app")
    with pytest.raises(OSError, match=r"is no model .* It holds mini: push one of them"):
        make_plan(model.parent, "umons/app")
    with pytest.raises(OSError, match="is no folder"):
        make_plan(tmp_path / "nowhere", "umons/app")
    with pytest.raises(ValueError, match="--endpoint is for models"):
        make_plan(dataset, "umons/mosei", endpoint=tmp_path)


@pytest.mark.parametrize("repo_id", ["mini", "a/b/c", "umons/..", "umons/mi ni", "umons/"])
def test_names_that_cannot_be(hub, script, root, repo_id):
    status, said = script(root / "hub" / "umons-mini", "--repo_id", repo_id)
    assert status == 2
    assert repr(repo_id) in said
    assert hub.requests == []


# What the Hub does, what the user reads, and whether it was tried again.
FAULTS = {
    "401": (r"/api/models", 401, "Invalid credentials", "does not accept the token", 1),
    "403": (r"/commit/", 403, "No rights", r"may not write to umons/mini \(403\)", 1),
    "403 at once": (r"/api/repos/create", 403, "No rights", r"may not write to umons/mini \(403\)", 1),
    "404": (r"/api/repos/create", 404, "Nobody", "is the name right", 1),
    "412": (r"/commit/", 412, "A commit has happened since", "Someone else changed", 1),
    "429": (r"/api/models", 429, "Slow down", "too many requests", 3),
    "500": (r".", 500, "Internal", r"is in trouble \(500\)", 3),
    "500 in uploads": (r"/_lfs/", 500, "Internal", r"is in trouble \(500\)", 18),
    "cut in uploads": (r"/_lfs/", "cut", "", r"The line to http://127.0.0.1:\d+ broke", 18),
    "cut in the commit": (r"/commit/", "cut", "", r"The line to http://127.0.0.1:\d+ broke", 3),
    "418": (r"/commit/", 418, f"teapot of {TOKEN}", r"refused the push to umons/mini \(418\)", 1),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_bad_hub(hub, model, script, name, caplog):
    """In words, after so many tries; the remote is as it was, and the push repeated goes through."""
    pattern, how, message, words, tries = FAULTS[name]
    is_new = "create" in pattern
    if not is_new:
        before = push(make_plan(model, "umons/mini")).commit
        change_weights(model)
    hub.requests.clear()
    hub.fail(pattern, how, message=message)
    status, said = script(model, "--repo_id", "umons/mini")
    assert status == 1
    assert len([path for _, path in hub.requests if hub.faults[0].pattern.search(path)]) == tries
    said = said.replace("\n", " ")
    assert_matches(words, said)
    assert "Traceback" not in said
    assert TOKEN not in said + caplog.text
    hub.mend()
    if not is_new:
        assert hub.head("model", "umons/mini")[0] == before
    pushed = push(make_plan(model, "umons/mini"))
    assert pushed.is_new
    assert hub.content("model", "umons/mini", "model.safetensors") == (model / "model.safetensors").read_bytes()


def assert_matches(words, said):
    with pytest.raises(OSError, match=words):
        raise OSError(said)


def test_what_passes_is_waited_for(hub, model):
    hub.fail(r"/api/repos/create", 503, times=1)
    hub.fail(r"/_lfs/", 500, times=2)
    hub.fail(r"/commit/", "cut", times=1)
    assert push(make_plan(model, "umons/mini")).is_new
    assert len(hub.store.load("model", "umons/mini")["commits"]) == 2


def test_no_hub_no_token_no_network(hub, model, monkeypatch):
    plan = make_plan(model, "umons/mini")
    hub.fail(r".", "hold")
    monkeypatch.setattr(push_module, "TIMEOUT", 0.2)
    with pytest.raises(PushError, match=r"did not answer for 0\.2 s"):
        push(plan)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(PushError, match="HF_HUB_OFFLINE"):
        push(plan)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(PushError, match="cannot be reached"):
        push(plan)
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(PushError, match="hf auth login"):
        push(plan)


@pytest.mark.parametrize(
    "token", [TOKEN, "hf_" + "ofSomebodyElse" * 2, "of-another-kind"], ids=["own", "other", "odd"]
)
def test_a_folder_with_a_token_in_it(hub, model, script, monkeypatch, token):
    """Wherever it stands, and in a dry run too."""
    monkeypatch.setattr(push_checks, "CHUNK", 1 << 10)
    if not token.startswith("hf_"):
        monkeypatch.setenv("HF_TOKEN", token)
    (model / "notes.txt").write_text("hf_a_name_in_some_code_and_no_token" + "x" * 1000 + token)
    for options in ([], ["--dry_run"]):
        status, said = script(model, "--repo_id", "umons/mini", *options)
        assert status == 1
        assert "notes.txt holds a token" in said
        assert token not in said
    assert hub.requests == []


def test_tokens_that_cannot_be(hub, model):
    plan = make_plan(model, "umons/mini")
    for token in (f"{TOKEN}\nX: y", f"{TOKEN[:20]} {TOKEN[20:]}", f"{TOKEN}\0", f"{TOKEN}é"):
        with pytest.raises(PushError, match="characters that no token has") as refused:
            push(plan, token=token)
        assert TOKEN[:10] not in str(refused.value)
    assert hub.requests == []
    hub.fail(r".", 418, message=f"teapot of {TOKEN}")
    with pytest.raises(PushError, match="teapot of hf_") as refused:
        push(plan, token=f" {TOKEN}\n")
    assert TOKEN not in str(refused.value)


def test_large_files_go_the_way_that_is_tried_here(hub, model, monkeypatch):
    """By HTTP, although hf_xet is installed and wanted, and would be asked for at another address."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", False)
    assert is_xet_available()
    assert push(make_plan(model, "umons/mini")).is_new
    assert uploads(hub) > 0
    assert not [path for _, path in hub.requests if "xet" in path]
    assert is_xet_available()


def test_a_commit_whose_answer_is_lost(hub, model):
    before = push(make_plan(model, "umons/mini")).commit
    change_weights(model)
    hub.fail(r"/commit/", "lost", times=1)
    pushed = push(make_plan(model, "umons/mini"))
    assert pushed.is_new
    assert pushed.commit == hub.head("model", "umons/mini")[0] != before
    assert len(hub.store.load("model", "umons/mini")["commits"]) == 3  # and not another one


def test_ctrl_c_promises_nothing(hub, model, script, monkeypatch):
    def stop(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(huggingface_hub.HfApi, "create_commit", stop)
    status, said = script(model, "--repo_id", "umons/mini")
    assert status == 130
    assert "unless the commit was under way" in said


def test_killed_in_the_middle(hub, model, root, tmp_path):
    """The remote stays at the old commit, and repeating is enough. Nothing that was written or said holds the token."""
    before = push(make_plan(model, "umons/mini")).commit
    old = hub.content("model", "umons/mini", "model.safetensors")
    change_weights(model)
    command = [sys.executable, root / "scripts" / "push_to_hub.py", model, "--repo_id", "umons/mini"]
    environment = {**hub.environment(), "HF_TOKEN": TOKEN, "HF_DEBUG": "1"}
    hub.fail(r"/_lfs/", "hold")
    with subprocess.Popen(
        command, env=environment, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert hub.is_held.wait(60)
        process.send_signal(signal.SIGKILL)
        said = process.communicate()[0]
    assert process.returncode == -signal.SIGKILL
    assert hub.head("model", "umons/mini")[0] == before
    assert hub.content("model", "umons/mini", "model.safetensors") == old
    hub.mend()
    hub.fail(r"/_lfs/", 500, times=1)  # so that it also warns
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert hub.content("model", "umons/mini", "model.safetensors") == (model / "model.safetensors").read_bytes()
    assert "500" in done.stderr
    assert TOKEN not in said + done.stdout + done.stderr
    for path in tmp_path.rglob("*"):
        assert not (path.is_file() and TOKEN.encode() in path.read_bytes()), path


@pytest.fixture
def train(root, monkeypatch, tmp_path):
    """Calls scripts/train.py for a tiny model of a few rows."""
    module = importlib.import_module("modeling_umons.cli.train")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")
    table = tmp_path / "rows.csv"
    lines = [f"{text} number {i},{i % 3 - 1},{split}" for i, (text, split) in enumerate(
        [("good", "train"), ("bad", "train"), ("good", "train"), ("bad", "train"), ("bad", "validation"),
         ("good", "validation"), ("good", "test"), ("bad", "test")])]  # fmt: skip
    table.write_text("\n".join(["text,sentiment,split", *lines]) + "\n")

    def call(*words, output=tmp_path / "run"):
        options = ["--hidden_size=8", "--intermediate_size=8", "--num_hidden_layers=1", "--num_attention_heads=2",
                   "--word_embedding_size=8", "--num_train_epochs=1", "--task=sentiment", "--modalities=text"]  # fmt: skip
        monkeypatch.setattr(
            sys, "argv", ["train.py", f"--train_file={table}", f"--output_dir={output}", *options, *words]
        )
        module.main()
        return output

    return call


def test_a_run_pushes_its_model_at_the_end(hub, train, capsys, caplog, tmp_path, script):
    wish = ["--push_to_hub", "--hub_model_id=tiny", f"--hub_token={TOKEN}", "--license=mit", "--hub_private_repo=true"]
    with pytest.raises(SystemExit, match="checkpoints are not pushed"):
        train(*wish, "--hub_strategy=all_checkpoints")
    with pytest.raises(SystemExit, match="goes with one model, and these are 2"):
        train(*wish, "--seeds=2")
    hub.fail("whoami", 401)
    with pytest.raises(SystemExit, match="does not accept the token") as stop:
        train(*wish)
    assert not (tmp_path / "run").exists()
    hub.mend()

    hub.fail("/commit/", 403)
    with pytest.raises(SystemExit, match=r"The model is whole in .*/run, but was not pushed") as stop:
        train(*wish)
    said = str(stop.value)
    assert "scripts/push_to_hub.py" in said
    hub.mend()
    before = len(hub.requests)
    status, _ = script(*said.splitlines()[-1].split()[2:])  # as it says
    assert status == 0
    commits = [path for method, path in hub.requests[before:] if method == "POST" and "/commit/" in path]
    assert commits == ["/api/models/umons/tiny/commit/main"]

    # The same command again goes on with nothing, and finds all there.
    train(*wish, "--resume_from_checkpoint=last")
    content = hub.store.load("model", "umons/tiny")
    assert content["private"]
    assert len(content["commits"]) == 2
    files = hub.head("model", "umons/tiny")[1]
    assert {"README.md", "config.json", "pipeline_umons.py", "report/report.json", "tokenizer.json"} <= set(files)
    assert not [name for name in files if name.startswith("checkpoint") or name.endswith(".bin")]
    assert b'model="umons/tiny"' in hub.content("model", "umons/tiny", "README.md")
    assert list((tmp_path / "run").glob("checkpoint-*/training_args.bin"))
    for path in tmp_path.rglob("*"):
        assert not (path.is_file() and TOKEN.encode() in path.read_bytes()), path
    assert TOKEN not in "".join(capsys.readouterr()) + caplog.text + said
    assert "hub_" not in json.dumps(json.loads((tmp_path / "run/report/report.json").read_text())["recipe"])


def test_a_misspelt_option_does_not_show_the_token(hub, train):
    with pytest.raises(SystemExit) as stop:
        train(f"--hub_tokne={TOKEN}")
    assert TOKEN not in str(stop.value)
