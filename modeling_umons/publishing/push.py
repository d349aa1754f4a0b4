"""Pushing a finished folder to the Hub, in one commit: a model, a prepared data set, a metric of `evaluate`, or a Space.

What is there already is not uploaded again. Until the commit, which is one request, the repository is as it was (a new
one is empty): a push that was interrupted is simply repeated.
"""

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    constants,
    get_token,
    set_client_factory,
)
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import httpx, validate_repo_id
from huggingface_hub.utils._http import default_client_factory

from .checks import (
    README,
    Files,
    check,
    collect_files,
    expect,
    find_type,
    is_under,
    matches,
    read_metadata,
    refuse_tokens,
    replaced_patterns,
)


REPO_TYPES = {"model": "model", "dataset": "dataset", "metric": "space", "space": "space"}
# Where our cards load what they describe; in front of the name that it has here.
EXAMPLES = {
    "model": r"\bpipeline\([^()]*\bmodel=",
    "dataset": r"\bload_dataset\(",
    "metric": r"\bevaluate\.load\(",
}
TIMEOUT = 60.0  # seconds without a sign of life; `huggingface_hub` itself would wait for ever
ATTEMPTS = 3  # of the whole; `huggingface_hub` repeats single uploads, too
WAIT = 2.0  # seconds before the second attempt, twice that before the third
ANY_TOKEN = re.compile(r"hf_\w{20,}")
DEFAULT_REVISION = "main"


class PushError(OSError):
    """It was not pushed, or the Hub did not say that it was; and why. It never holds a token."""


@dataclass(frozen=True)
class Plan:
    """
    What is pushed, checked.

    Attributes:
        kind: "model", "dataset", "metric" or "space".
        repo_id: the repository, as user/name.
        files: path in the repository -> a file here, or contents.
        left_out: names of what is not uploaded.
        warnings: sentences.
        replaced: patterns of what must not stay in the repository where it is not in `files`.
        sdk: what a Space runs by.
    """

    kind: str
    repo_id: str
    files: dict[str, Path | bytes]
    left_out: list[str]
    warnings: list[str]
    replaced: list[str] = field(default_factory=list)
    sdk: str | None = None

    @property
    def repo_type(self) -> str:
        """As the Hub has it; a metric is a Space."""
        return REPO_TYPES[self.kind]

    def sizes(self) -> dict[str, int]:
        """Bytes of each file."""
        return {
            name: len(source) if isinstance(source, bytes) else source.stat().st_size
            for name, source in self.files.items()
        }

    def describe(self) -> str:
        """A line for the repository, and one for each file."""
        sizes = self.sizes()
        lines = [f"{self.kind} -> {self.repo_type} repository {self.repo_id}"]
        for name, size in sizes.items():
            source = self.files[name]
            is_linked = isinstance(source, Path) and not is_under(source, name)
            lines.append(f"{size:>14,}  {name}" + (f" -> {source.resolve()}" if is_linked else ""))
        lines.append(f"{sum(sizes.values()):>14,}  bytes in {len(sizes)} files")
        lines += [f"left out: {', '.join(self.left_out)}"] if self.left_out else []
        if replaced := [pattern for pattern in self.replaced if pattern not in self.files]:
            lines.append(f"removed there, where not in this list: {', '.join(replaced)}")
        return "\n".join([*lines, *(f"warning: {warning}" for warning in self.warnings)])


@dataclass(frozen=True)
class Pushed:
    """
    What came of it.

    Attributes:
        url: the repository's page.
        commit: the commit that the branch is at.
        is_new: whether this push made it; it is false where everything was there already.
        removed: what the repository has no longer.
    """

    url: str
    commit: str
    is_new: bool
    removed: list[str] = field(default_factory=list)


def make_plan(
    folder: str | Path,
    repo_id: str,
    kind: str | None = None,
    endpoint: str | Path | None = None,
    token: str | None = None,
) -> Plan:
    """
    What a push of `folder` uploads, without any network.

    Args:
        folder: what is pushed.
        repo_id: the repository, as user/name.
        kind: "model", "dataset", "metric" or "space"; found out by default.
        endpoint: a folder with the handler of an inference endpoint, whose files go to the model's repository too.
        token: what must not be in a file, beside all that looks like a token of the Hub; that of the user by default.

    Raises:
        ValueError: the name of the repository, or the options, cannot be.
        OSError: the folder is not whole, would not load for others, or holds what is not for others.
    """
    folder = Path(folder)
    check_repo_id(repo_id)
    kind = kind or find_type(folder)
    if not folder.is_dir():
        raise OSError(f"{folder} is no folder.")
    files, left_out = collect_files(folder)
    metadata = read_metadata(folder / README)
    warnings = check(kind, folder, files, metadata, repo_id)
    if endpoint is not None:
        if kind != "model":
            raise ValueError(f"--endpoint is for models; {folder} is a {kind}.")
        files |= _endpoint_files(Path(endpoint), files)
    refuse_tokens(files, (token or get_token() or "").strip())
    readme = fill_in_repo_id(files[README].read_text(encoding="utf-8"), kind, _names(folder, metadata), repo_id)
    contents = {name: readme.encode("utf-8") if name == README else path for name, path in files.items()}
    return Plan(kind, repo_id, contents, left_out, warnings, replaced_patterns(kind, metadata), metadata.get("sdk"))


def check_repo_id(repo_id: str) -> None:
    """Raises ValueError where it is not user/name, as the Hub has it."""
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise ValueError(f"{repo_id!r} cannot be the name of a repository: {error}") from None
    if "/" not in repo_id:
        raise ValueError(f"{repo_id!r} does not say whose repository it is: give user/name or organization/name.")


def _endpoint_files(endpoint: Path, model_files: Files) -> dict[str, Path]:
    if not (endpoint / "handler.py").is_file():
        raise OSError(f"{endpoint} has no handler.py, which an inference endpoint starts from.")
    # The card is the model's.
    files = {name: path for name, path in collect_files(endpoint)[0].items() if name != README}
    for name, path in files.items():
        if name in model_files and model_files[name].read_bytes() != path.read_bytes():
            raise OSError(
                f"{path} would take the place of {model_files[name]}, which is another file: rename one of them."
            )
    return files


def _names(folder: Path, metadata: dict) -> set[str]:
    """What the card can call the thing: by the folder that it is in, or was trained in."""
    what = f"{folder / README}: `model-index`"
    models = [expect(dict, model, what).get("name") for model in expect(list, metadata.get("model-index") or [], what)]
    folder = folder.resolve()
    return {folder.name, f"{folder.parent.name}/{folder.name}", *(name for name in models if isinstance(name, str))}


def fill_in_repo_id(card: str, kind: str, names: set[str], repo_id: str) -> str:
    """The card with the repository's name where its examples load the thing by a name that it has here."""
    if kind not in EXAMPLES:
        return card
    heading = re.search(r"^# (.+)$", card, re.MULTILINE)
    names = {name for name in names | ({heading[1].strip()} if heading else set()) if name}
    known = "|".join(map(re.escape, names))
    call = re.compile(rf"""({EXAMPLES[kind]}\s*)(["'])(?:{known})\2""")
    # In blocks of code alone.
    return re.sub(
        r"^```.*?^```",
        lambda block: call.sub(rf"\1\g<2>{repo_id}\2", block[0]),
        card,
        flags=re.MULTILINE | re.DOTALL,
    )


def push(
    plan: Plan,
    private: bool = False,
    revision: str | None = None,
    commit_message: str | None = None,
    token: str | None = None,
) -> Pushed:
    """
    Makes the repository and the branch where they are missing, and one commit of what is new in `plan`.

    Args:
        plan: from `make_plan`.
        private: make a new repository private; of one that exists, refuse to push what is asked to be private.
        revision: the branch; main by default.
        commit_message: what the commit is called.
        token: by default that of `hf auth login` or of the variable HF_TOKEN.

    Raises:
        PushError: it was not pushed, or the Hub did not say that it was.
    """
    token = find_token(token)
    revision = revision or DEFAULT_REVISION
    message = commit_message or f"Upload {plan.kind}"
    api, before = HfApi(token=token), None
    with hub_errors(plan.repo_id, token):
        for attempt in range(1, ATTEMPTS + 1):
            try:
                now = _find_or_create(api, plan, private, revision)
                # A commit whose answer was lost on the way is found by the next attempt, and is of this push.
                before = before or now
                return _commit(api, plan, before, now, revision, message)
            except Exception as error:
                if attempt == ATTEMPTS or not _may_pass(_cause(error)):
                    raise
                time.sleep(WAIT * attempt)
    raise AssertionError("unreachable")


def find_token(token: str | None = None) -> str:
    """The token, or that of the user. Raises PushError where there is none, or where it cannot be one."""
    token = (token or get_token() or "").strip()
    if not token:
        raise PushError(
            "There is no token to push with: run `hf auth login`, or set HF_TOKEN, with a token that may write "
            "(huggingface.co/settings/tokens)."
        )
    if not re.fullmatch(r"[!-~]+", token):
        raise PushError(
            "The token holds spaces, or other characters that no token has: copy it anew from "
            "huggingface.co/settings/tokens."
        )
    return token


def _commit(api: HfApi, plan: Plan, before, now, revision: str, message: str) -> Pushed:
    """Commits what the repository, as it is now, has not; what is told is against how it was before."""

    def old(info) -> list[str]:
        names = {file.rfilename for file in info.siblings or ()} - set(plan.files)
        return sorted(name for name in names if matches(name, plan.replaced))

    additions = [CommitOperationAdd(name, source) for name, source in plan.files.items()]
    deletions = [CommitOperationDelete(name, is_folder=False) for name in old(now)]
    # With the parent named, a commit that someone else makes meanwhile is not undone by this one.
    commit = api.create_commit(
        repo_id=plan.repo_id,
        repo_type=plan.repo_type,
        operations=[*additions, *deletions],
        commit_message=message,
        revision=revision,
        parent_commit=now.sha,
    )
    kind = "" if plan.repo_type == "model" else f"{plan.repo_type}s/"
    url = f"{api.endpoint}/{kind}{plan.repo_id}"
    url = url if revision == DEFAULT_REVISION else f"{url}/tree/{revision}"
    return Pushed(url, commit.oid, commit.oid != before.sha, old(before))


def _find_or_create(api: HfApi, plan: Plan, private: bool, revision: str):
    """What is at the branch, which is made where it is missing."""
    repo = {"repo_id": plan.repo_id, "repo_type": plan.repo_type}
    try:
        info = api.repo_info(**repo)
    except RepositoryNotFoundError as error:
        if error.response.status_code != 404:
            raise
        api.create_repo(**repo, private=private or None, space_sdk=plan.sdk, exist_ok=True)
        info = api.repo_info(**repo)
    if private and not info.private:
        raise PushError(
            f"{plan.repo_id} exists and is public: make it private in its settings, or push without --private."
        )
    if revision == DEFAULT_REVISION:
        return info
    try:
        return api.repo_info(**repo, revision=revision)
    except RevisionNotFoundError:
        api.create_branch(**repo, branch=revision, exist_ok=True)
        return api.repo_info(**repo, revision=revision)


# --- what can go wrong on the way


@contextmanager
def hub_errors(repo_id: str, token: str) -> Iterator[None]:
    """
    Within, the Hub has to show a sign of life in `TIMEOUT` seconds; and what goes wrong is a `PushError` in words.
    Files go by plain HTTP: what `hf_xet` sends knows neither this limit nor our attempts.
    """

    def client_factory() -> httpx.Client:
        client = default_client_factory()
        client.event_hooks = {"request": [*client.event_hooks["request"], _limit]}
        return client

    set_client_factory(client_factory)
    is_xet_disabled, constants.HF_HUB_DISABLE_XET = constants.HF_HUB_DISABLE_XET, True
    try:
        yield
    except PushError:
        raise
    except Exception as error:
        # Without the chain of errors: it tells of requests, whose headers hold the token.
        raise PushError(redact(_explain(_cause(error), repo_id), token)) from None
    finally:
        constants.HF_HUB_DISABLE_XET = is_xet_disabled
        set_client_factory(default_client_factory)


def _limit(request: httpx.Request) -> None:
    # Here, and not as the client's timeout: `huggingface_hub` passes None for some requests, which would count more.
    limits = request.extensions.get("timeout", {})
    request.extensions["timeout"] = {
        kind: limits.get(kind) or TIMEOUT for kind in ("connect", "read", "write", "pool")
    }


def redact(text: str, token: str | None = None) -> str:
    """The text without that token, and without anything else that looks like one."""
    return ANY_TOKEN.sub("hf_***", text.replace(token, "hf_***") if token else text)


def _cause(error: Exception) -> Exception:
    """What was wrong with the upload of a file is inside of an error that names the file."""
    is_wrapped = isinstance(error, RuntimeError) and isinstance(error.__cause__, Exception)
    return error.__cause__ if is_wrapped else error


def _may_pass(error: Exception) -> bool:
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code in (408, 429, 500, 502, 503, 504)
    return isinstance(error, (httpx.NetworkError, httpx.RemoteProtocolError))


def _explain(error: Exception, repo_id: str) -> str:
    hub = constants.ENDPOINT
    if isinstance(error, HfHubHTTPError):
        return _explain_status(error, repo_id, hub)
    if isinstance(error, OfflineModeIsEnabled):
        return "The variable HF_HUB_OFFLINE forbids all network: unset it to push."
    if isinstance(error, httpx.TimeoutException):
        return f"{hub} did not answer for {TIMEOUT:g} s: push again; what has arrived is not sent twice."
    if isinstance(error, httpx.ConnectError):
        return f"{hub} cannot be reached ({error}): see to the network, and push again."
    if isinstance(error, httpx.HTTPError):
        return f"The line to {hub} broke ({error}): push again; what has arrived is not sent twice."
    return f"{repo_id} could not be pushed: {error}"


def _explain_status(error: HfHubHTTPError, repo_id: str, hub: str) -> str:
    status, says = error.response.status_code, error.server_message or error.response.headers.get("X-Error-Message")
    says = f" It says: {says}" if says else ""
    if status == 401:
        return f"{hub} does not accept the token (401): log in anew with `hf auth login`, or set HF_TOKEN.{says}"
    if status == 403:
        return f"The token may not write to {repo_id} (403): take one with write permission, or a repository of yours.{says}"
    if status == 404:
        return f"{hub} has no {repo_id}, or does not show it to you (404): is the name right?{says}"
    if status in (409, 412):
        return f"Someone else changed {repo_id} during the push ({status}): push again.{says}"
    if status == 429:
        return f"{hub} got too many requests (429): push again later.{says}"
    if status >= 500:
        return f"{hub} is in trouble ({status}): push again later; what has arrived is not sent twice.{says}"
    return f"{hub} refused the push to {repo_id} ({status}).{says}"


# --- at the end of a training run


@dataclass(frozen=True)
class FinalPush:
    """
    What --push_to_hub of a training run asks for: its finished folder is pushed once.

    Attributes:
        repo_id: as user/name; a name alone is the user's own, and none is the name of the output folder.
        private, revision: as `push` has them.
        token: as `push` has it.
    """

    repo_id: str
    private: bool = False
    revision: str | None = None
    token: str | None = field(default=None, repr=False)

    def check(self) -> "FinalPush":
        """
        This, with its full name. Raises ValueError or PushError where the push would fail for what can be known before
        the training.
        """
        token = find_token(self.token)
        repo_id = self.repo_id
        with hub_errors(repo_id, token):
            user = HfApi(token=token).whoami()["name"]
        repo_id = repo_id if "/" in repo_id else f"{user}/{repo_id}"
        check_repo_id(repo_id)
        return FinalPush(repo_id, self.private, self.revision, self.token)

    def __call__(self, folder: str | os.PathLike) -> Pushed:
        """Pushes a finished model. Raises PushError, which says how to repeat the push."""
        try:
            plan = make_plan(folder, self.repo_id, "model", token=self.token)
            return push(plan, self.private, self.revision, token=self.token)
        except (OSError, ValueError) as error:
            options = ["--private"] * self.private + [f"--revision {self.revision}"] * bool(self.revision)
            command = " ".join([f"python scripts/push_to_hub.py {folder} --repo_id {self.repo_id}", *options])
            raise PushError(
                f"The model is whole in {folder}, but was not pushed. {error} To push it:\n{command}"
            ) from None
