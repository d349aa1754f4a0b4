"""`umons push` and `--push_to_hub` against a Hub on 127.0.0.1."""

import json
import shutil
import signal
import subprocess
import sys
import time

import huggingface_hub
import pytest
from call_command import call as call_command
from huggingface_hub import RepoCard
from huggingface_hub.utils import disable_progress_bars, enable_progress_bars

from modeling_umons.cli import push as push_command
from modeling_umons.cli import train as train_command
from modeling_umons.data import MoseiBuilder, prepare_dataset
from modeling_umons.publishing.assemble import assemble_folder
from modeling_umons.publishing.plan import plan_push
from modeling_umons.publishing.push import PushError, push


# Has the form of a token, and belongs to nobody.
TOKEN = "hf_" + "secretSECRET" * 3
# huggingface_hub's own use of its HTTP client.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture
def hub(local_hub, monkeypatch, tmp_path):
    """The Hub of this process. Waiting before a retry takes no time."""
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
    """The folder of a small model after a run, with files that are not pushed."""
    folder = tmp_path / "umons-mini"
    assemble_folder(root / "hub" / "umons-mini", folder)
    for name in ("checkpoint-7/optimizer.pt", "training_args.bin", "report/.x.part"):
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
def umons_push(capsys):
    """Call the command; return its exit status and its output."""

    def call(*arguments):
        try:
            status = push_command.main([*map(str, arguments)])
        except SystemExit as stop:
            status = stop.code
        return status, "".join(capsys.readouterr())

    return call


def push_folder(folder, repo_id, **options):
    with plan_push(folder, repo_id) as plan:
        return push(plan, **options)


def count_uploads(hub) -> int:
    return sum(method == "PUT" for method, _ in hub.requests)


def change_weights(model):
    data = bytearray((model / "model.safetensors").read_bytes())
    data[-4:] = b"\0\0\0\0" if data[-4:] != b"\0\0\0\0" else b"\0\0\0\1"
    (model / "model.safetensors").write_bytes(data)


def test_push_makes_one_commit(hub, model, umons_push):
    status, output = umons_push(model, "--repo_id", "umons/mini", "--commit_message", "First")
    assert status == 0, output
    commit, files = hub.head("model", "umons/mini")
    content = hub.store.load("model", "umons/mini")
    assert [c["title"] for c in content["commits"].values()] == ["initial commit", "First"]
    assert commit in output
    expected = {str(path.relative_to(model)) for path in model.rglob("*") if path.is_file()}
    expected -= {"checkpoint-7/optimizer.pt", "training_args.bin", "report/.x.part"}
    assert set(files) - {".gitattributes"} == expected
    for name in expected - {"README.md"}:
        assert hub.content("model", "umons/mini", name) == (model / name).read_bytes(), name
    # The example of the pushed card loads the repository.
    local, pushed = (model / "README.md").read_bytes(), hub.content("model", "umons/mini", "README.md")
    assert pushed == local.replace(b'model="umons-mini"', b'model="umons/mini"') != local
    assert RepoCard(pushed.decode()).data.license == "cc-by-nc-sa-4.0"

    uploads = count_uploads(hub)
    status, output = umons_push(model, "--repo_id", "umons/mini")
    assert (status, count_uploads(hub), hub.head("model", "umons/mini")[0]) == (0, uploads, commit)
    assert "nothing has changed" in output
    change_weights(model)
    assert umons_push(model, "--repo_id", "umons/mini")[0] == 0
    assert count_uploads(hub) == uploads + 1
    assert hub.head("model", "umons/mini")[0] != commit


def test_folder_without_code_is_pushed_with_code(hub, root, model):
    push_folder(root / "hub" / "umons-mini", "umons/mini")
    assert hub.content("model", "umons/mini", "modeling_tbje.py") == (model / "modeling_tbje.py").read_bytes()


def test_dry_run_uses_no_network(hub, model, umons_push, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    status, output = umons_push(model, "--repo_id", "umons/mini", "--dry_run")
    assert status == 0
    assert hub.requests == []
    assert "model repository umons/mini" in output
    assert f"{(model / 'model.safetensors').stat().st_size:,}  model.safetensors\n" in output
    assert f"bytes in {sum(path.is_file() for path in model.rglob('*')) - 3} files" in output
    assert "unless listed above: model.safetensors.index.json, model-?????-of-?????.safetensors" in output
    assert "not pushed: checkpoint-7, report/.x.part, training_args.bin" in output
    assert "warning" not in output


def test_data_set_metric_and_space(hub, dataset, root, umons_push):
    for folder, repo, kind in (
        (dataset, "umons/mosei", "dataset"),
        (root / "hub" / "metrics", "umons/metrics", "space"),
        (root / "hub" / "space", "umons/app", "space"),
    ):
        status, output = umons_push(folder, "--repo_id", repo)
        assert status == 0, output
        assert f"{hub.url(kind, repo)} is at {hub.head(kind, repo)[0]}" in output
    assert {"data/train-00000-of-00001.parquet", "README.md"} <= set(hub.head("dataset", "umons/mosei")[1])
    assert hub.store.load("space", "umons/metrics")["sdk"] == "static"
    assert b'"umons/metrics", "joint"' in hub.content("space", "umons/metrics", "README.md")
    assert hub.store.load("space", "umons/app")["sdk"] == "gradio"
    assert {"app.py", "examples/097.mp4"} <= set(hub.head("space", "umons/app")[1])


def test_branches_and_private_repositories(hub, model):
    main = push_folder(model, "umons/mini").commit
    change_weights(model)
    branch = push_folder(model, "umons/mini", revision="tries/second")
    assert branch.url == f"{hub.endpoint}/umons/mini/tree/tries/second"
    assert hub.head("model", "umons/mini")[0] == main
    assert hub.head("model", "umons/mini", "tries/second")[0] == branch.commit != main
    for revision in (None, "third"):
        with pytest.raises(PushError, match="is public"):
            push_folder(model, "umons/mini", private=True, revision=revision)
    assert "third" not in hub.store.load("model", "umons/mini")["refs"]
    push_folder(model, "umons/hidden", private=True, revision="first")
    assert hub.store.load("model", "umons/hidden")["private"]
    push_folder(model, "umons/hidden", private=True)
    assert set(hub.head("model", "umons/hidden")[1]) == set(hub.head("model", "umons/hidden", "first")[1])


def test_pull_request_leaves_main_unchanged(hub, model, umons_push):
    main = push_folder(model, "umons/mini").commit
    change_weights(model)
    status, output = umons_push(model, "--repo_id", "umons/mini", "--create_pr")
    assert status == 0, output
    assert f"{hub.endpoint}/umons/mini/discussions/1 is at" in output
    assert hub.head("model", "umons/mini")[0] == main
    assert (
        hub.content("model", "umons/mini", "model.safetensors", "refs/pr/1")
        == (model / "model.safetensors").read_bytes()
    )
    for options in (["--tag", "v1"], ["--revision", "other"]):
        status, output = umons_push(model, "--repo_id", "umons/mini", "--create_pr", *options)
        assert status == 2
        assert "leave out --tag and --revision" in output


def test_tag_pins_the_example_of_the_card(hub, model, umons_push):
    card = (model / "README.md").read_text(encoding="utf-8")
    (model / "README.md").write_text(card.replace('model="umons-mini"', 'model="umons-mini", revision="main"'))
    assert umons_push(model, "--repo_id", "umons/mini", "--tag", "v1.0")[0] == 0
    content = hub.store.load("model", "umons/mini")
    assert content["tags"] == {"v1.0": content["refs"]["main"]}
    assert b'model="umons/mini", revision="v1.0"' in hub.content("model", "umons/mini", "README.md", "v1.0")
    change_weights(model)
    status, output = umons_push(model, "--repo_id", "umons/mini", "--tag", "v1.0")
    assert status == 1
    assert "has a tag v1.0 already" in output
    assert hub.store.load("model", "umons/mini") == content


def test_stale_files_are_deleted_and_other_files_stay(hub, dataset, model, umons_push, tmp_path):
    api = huggingface_hub.HfApi(endpoint=hub.endpoint, token=TOKEN)

    def put(kind, repo, *names):
        operations = [huggingface_hub.CommitOperationAdd(name, b"theirs") for name in names]
        api.create_commit(repo, operations, commit_message="Theirs", repo_type=kind)

    push_folder(model, "umons/mini")
    theirs = {"onnx/adapter.safetensors", "onnx/model.safetensors", "adapter_model.safetensors"}
    put("model", "umons/mini", *theirs, "model-00001-of-00002.safetensors", "model.safetensors.index.json")
    status, output = umons_push(model, "--repo_id", "umons/mini")
    assert status == 0
    names = {name for name in hub.head("model", "umons/mini")[1] if "safetensors" in name}
    assert names == {*theirs, "model.safetensors"}
    assert "removed: model-00001-of-00002.safetensors\nremoved: model.safetensors.index.json\n" in output

    push_folder(dataset, "umons/mosei")
    theirs = {"other/train-00000-of-00001.parquet", "data/faces-0.parquet", "data/train-x/a.parquet"}
    put("dataset", "umons/mosei", *theirs)
    other = shutil.copytree(dataset, tmp_path / "other")
    (other / "data" / "train-00000-of-00001.parquet").rename(other / "data" / "train-00000-of-00002.parquet")
    assert push_folder(other, "umons/mosei").removed == ["data/train-00000-of-00001.parquet"]
    names = {name for name in hub.head("dataset", "umons/mosei")[1] if name.endswith(".parquet")}
    assert names == {str(path.relative_to(other)) for path in other.rglob("*.parquet")} | theirs


@pytest.mark.parametrize("repo_id", ["mini", "a/b/c", "umons/..", "umons/mi ni", "umons/"])
def test_invalid_repository_name_is_wrong_usage(hub, umons_push, root, repo_id):
    status, output = umons_push(root / "hub" / "umons-mini", "--repo_id", repo_id)
    assert status == 2
    assert repr(repo_id) in output
    assert hub.requests == []


def test_concurrent_commit_is_not_undone(hub, model, monkeypatch):
    """The repository changes between the look at it and the commit."""
    push_folder(model, "umons/mini")
    change_weights(model)
    create_commit = huggingface_hub.HfApi.create_commit
    other = []

    def create_commit_second(api, repo_id, operations, **options):
        operation = huggingface_hub.CommitOperationAdd("notes.txt", b"theirs")
        other.append(create_commit(api, repo_id, [operation], commit_message="Theirs").oid)
        return create_commit(api, repo_id, operations, **options)

    monkeypatch.setattr(huggingface_hub.HfApi, "create_commit", create_commit_second)
    with pytest.raises(PushError, match="changed during the push: push again"):
        push_folder(model, "umons/mini")
    assert [hub.head("model", "umons/mini")[0]] == other
    monkeypatch.undo()


# Path of the requests that fail, how, message of the Hub, and words of the error.
FAULTS = {
    "401": (r"/api/models", 401, "Invalid credentials", "hf auth login"),
    "403": (r"/commit/", 403, "No rights", "write access"),
    "403_create": (r"/api/repos/create|/api/models", 403, "No rights", "write access"),
    "412": (r"/commit/", 412, "A commit has happened since", "changed during the push"),
    "500": (r".", 500, "Internal", "Push again"),
    "500_uploads": (r"/_lfs/", 500, "Internal", "Push again"),
    "cut_uploads": (r"/_lfs/", "cut", "", "Push again"),
    "cut_commit": (r"/commit/", "cut", "", "Push again"),
    "418": (r"/commit/", 418, f"teapot of {TOKEN}", r"teapot of hf_\*\*\*"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_failed_push_changes_nothing_and_can_be_repeated(hub, model, umons_push, name, caplog):
    pattern, how, message, words = FAULTS[name]
    before = push_folder(model, "umons/mini").commit
    change_weights(model)
    hub.fail(pattern, how, message=message)
    status, output = umons_push(model, "--repo_id", "umons/mini")
    assert status == 1
    assert "Traceback" not in output
    assert TOKEN not in output + caplog.text
    with pytest.raises(OSError, match=words):
        raise OSError(output)
    hub.mend()
    assert hub.head("model", "umons/mini")[0] == before
    assert push_folder(model, "umons/mini").is_new
    assert hub.content("model", "umons/mini", "model.safetensors") == (model / "model.safetensors").read_bytes()


def test_offline_mode_unreachable_hub_and_missing_token(hub, model, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(PushError, match=r"HF_HUB_OFFLINE|offline mode"):
        push_folder(model, "umons/mini")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(PushError, match="umons/mini was not pushed"):
        push_folder(model, "umons/mini")
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(PushError, match="hf auth login"):
        push_folder(model, "umons/mini")


def test_invalid_tokens_are_not_sent(hub, model):
    for token in (f"{TOKEN}\nX: y", f"{TOKEN[:20]} {TOKEN[20:]}", f"{TOKEN}\0", f"{TOKEN}é"):
        with pytest.raises(PushError, match="No valid token") as raised:
            push_folder(model, "umons/mini", token=token)
        assert TOKEN[:10] not in str(raised.value)
    assert hub.requests == []


def test_interrupt_has_its_exit_status(hub, model, umons_push, monkeypatch):
    def stop(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(huggingface_hub.HfApi, "create_commit", stop)
    status, output = umons_push(model, "--repo_id", "umons/mini")
    assert status == 130
    assert "unless the commit was under way" in output


def test_killed_push_changes_nothing_and_can_be_repeated(hub, model, root, tmp_path):
    """No file and no output holds the token."""
    before = push_folder(model, "umons/mini").commit
    old = hub.content("model", "umons/mini", "model.safetensors")
    change_weights(model)
    command = [sys.executable, "-m", "modeling_umons.cli.main", "push", model, "--repo_id", "umons/mini"]
    environment = {**hub.environment(), "HF_TOKEN": TOKEN, "HF_DEBUG": "1"}
    hub.fail(r"/_lfs/", "hold")
    with subprocess.Popen(
        command, env=environment, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert hub.is_held.wait(60)
        process.send_signal(signal.SIGKILL)
        output = process.communicate()[0]
    assert process.returncode == -signal.SIGKILL
    assert hub.head("model", "umons/mini")[0] == before
    assert hub.content("model", "umons/mini", "model.safetensors") == old
    hub.mend()
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert hub.content("model", "umons/mini", "model.safetensors") == (model / "model.safetensors").read_bytes()
    assert TOKEN not in output + done.stdout + done.stderr
    for path in tmp_path.rglob("*"):
        assert not (path.is_file() and TOKEN.encode() in path.read_bytes()), path


@pytest.fixture
def train(root, monkeypatch, tmp_path):
    """Train a tiny model on a few rows."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")
    table = tmp_path / "rows.csv"
    lines = [f"{text} number {i},{i % 3 - 1},{split}" for i, (text, split) in enumerate(
        [("good", "train"), ("bad", "train"), ("good", "train"), ("bad", "train"), ("bad", "validation"),
         ("good", "validation"), ("good", "test"), ("bad", "test")])]  # fmt: skip
    table.write_text("\n".join(["text,sentiment,split", *lines]) + "\n")

    def call(*arguments, output=tmp_path / "run"):
        options = [
            "--hidden_size=8", "--intermediate_size=8", "--num_hidden_layers=1", "--num_attention_heads=2",
            "--word_embedding_size=8", "--num_train_epochs=1", "--task=sentiment", "--modalities=text",
            "--label_range", "-3", "3",
        ]  # fmt: skip
        call_command(train_command.main, f"--train_file={table}", f"--output_dir={output}", *options, *arguments)
        return output

    return call


def test_training_pushes_its_model_at_the_end(hub, train, capsys, caplog, tmp_path, umons_push):
    options = [
        "--push_to_hub",
        "--hub_model_id=tiny",
        f"--hub_token={TOKEN}",
        "--license=mit",
        "--hub_private_repo=true",
    ]
    with pytest.raises(SystemExit, match="only the final model is pushed"):
        train(*options, "--hub_strategy=all_checkpoints")
    with pytest.raises(SystemExit, match="requires a single model, but 2 are trained"):
        train(*options, "--seeds=2")
    hub.fail("whoami", 401)
    with pytest.raises(SystemExit, match="hf auth login") as stop:
        train(*options)
    assert not (tmp_path / "run").exists()
    hub.mend()

    hub.fail("/commit/", 403)
    with pytest.raises(SystemExit, match=r"The model is saved in .*/run, but was not pushed") as stop:
        train(*options)
    message = str(stop.value)
    assert "umons push" in message
    hub.mend()
    before = len(hub.requests)
    status, output = umons_push(*message.splitlines()[-1].split()[2:])
    assert status == 0, output
    commits = [path for method, path in hub.requests[before:] if method == "POST" and "/commit/" in path]
    assert commits == ["/api/models/umons/tiny/commit/main"]

    # The same command again resumes a finished run, and pushes nothing new.
    train(*options, "--resume_from_checkpoint=last")
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
    assert TOKEN not in "".join(capsys.readouterr()) + caplog.text + message
    assert "hub_" not in json.dumps(json.loads((tmp_path / "run/report/report.json").read_text())["recipe"])


def test_misspelt_option_does_not_show_the_token(hub, train):
    with pytest.raises(SystemExit) as stop:
        train(f"--hub_tokne={TOKEN}")
    assert TOKEN not in str(stop.value)
