"""Push of a folder to the Hugging Face Hub in one commit: a model, a data set, a metric of `evaluate` or a Space."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import filter_repo_objects, httpx

from ..utils.redact import redact
from .plan import DEFAULT_REVISION, Plan, check_repo_id, plan_push


REMEDIES = {
    401: "Log in with `hf auth login`, or set HF_TOKEN.",
    403: "Use a token with write access to the repository, or --create_pr.",
    404: "Check the name of the repository, and the access of the token.",
    412: "The repository changed during the push: push again.",
}


class PushError(OSError):
    """Failure of a push. Its message never holds a token."""


@dataclass(frozen=True)
class Pushed:
    """Result of a push."""

    url: str  # of the repository, or of the pull request
    commit: str
    is_new: bool  # false if the repository had all files already
    removed: list[str]  # files deleted in the repository


def push(
    plan: Plan,
    private: bool = False,
    revision: str | None = None,
    commit_message: str | None = None,
    create_pr: bool = False,
    token: str | None = None,
) -> Pushed:
    """
    Create the repository and the branch if they are missing, and commit the files of `plan` in one commit.

    The repository does not change before the commit. The push is refused if somebody else commits during it.

    Args:
        plan: from `plan_push`.
        private: create a private repository; a public one is refused.
        revision: the branch; main by default.
        commit_message: subject of the commit.
        create_pr: open a pull request against main, instead of a commit.
        token: by default that of `hf auth login`, or the variable HF_TOKEN.

    Raises:
        PushError: nothing was pushed, or the Hub did not confirm it.
    """
    if create_pr and (plan.tag or revision not in (None, DEFAULT_REVISION)):
        raise ValueError("--create_pr opens a pull request against main: leave out --tag and --revision.")
    token = find_token(token)
    api = HfApi(token=token)
    repo = {"repo_id": plan.repo_id, "repo_type": plan.repo_type}
    with _hub_errors(plan.repo_id, token):
        if not create_pr:
            api.create_repo(**repo, private=private or None, space_sdk=plan.sdk, exist_ok=True)
        info = api.repo_info(**repo)
        if private and not info.private:
            raise PushError(f"{plan.repo_id} is public: make it private in its settings, or push without --private.")
        if plan.tag and plan.tag in {ref.name for ref in api.list_repo_refs(**repo).tags}:
            raise PushError(f"{plan.repo_id} has a tag {plan.tag} already: choose another --tag.")
        if revision not in (None, DEFAULT_REVISION):
            api.create_branch(**repo, branch=revision, exist_ok=True)
            info = api.repo_info(**repo, revision=revision)
        names = {file.rfilename for file in info.siblings or ()} - set(plan.files)
        removed = sorted(filter_repo_objects(names, allow_patterns=plan.stale))
        # Not `upload_folder`: with hf_xet it may split large folders into several commits.
        commit = api.create_commit(
            **repo,
            operations=[
                *(CommitOperationAdd(name, path) for name, path in plan.files.items()),
                *(CommitOperationDelete(name, is_folder=False) for name in removed),
            ],
            commit_message=commit_message or f"Upload {plan.kind}",
            revision=revision,
            create_pr=create_pr,
            parent_commit=info.sha,
        )
        if plan.tag:
            api.create_tag(**repo, tag=plan.tag, revision=commit.oid)
    url = commit.pr_url or str(commit.repo_url) + (f"/tree/{revision}" if revision else "")
    return Pushed(url, commit.oid, commit.oid != info.sha, removed)


def find_token(token: str | None = None) -> str:
    """Return `token`, or the user's. Raises PushError if there is none."""
    token = (token or get_token() or "").strip()
    if not re.fullmatch(r"[!-~]+", token):
        raise PushError("No valid token: run `hf auth login`, or set HF_TOKEN (huggingface.co/settings/tokens).")
    return token


@contextmanager
def _hub_errors(repo_id: str, token: str) -> Iterator[None]:
    """Raise PushError, without tokens and with a remedy, for errors of the Hub and of the network."""
    try:
        yield
    except PushError:
        raise
    except (httpx.HTTPError, OSError, RuntimeError, ValueError) as error:
        # Errors of single uploads are causes of a RuntimeError.
        cause = next((e for e in (error, error.__cause__) if isinstance(e, HfHubHTTPError)), error)
        status, reason = None, str(cause).rstrip()
        if isinstance(cause, HfHubHTTPError):
            status = cause.response.status_code
            reason = f"{cause.server_message or 'The Hub refused it.'} ({status})"
        remedy = REMEDIES.get(status, "Push again: files that arrived are not sent twice.")
        # Not chained: the original error holds the request, whose headers hold the token.
        raise PushError(redact(f"{repo_id} was not pushed: {reason} {remedy}", token)) from None


@dataclass(frozen=True)
class FinalPush:
    """Push of a model at the end of its training. A `repo_id` without an owner is in the user's account."""

    repo_id: str
    private: bool = False
    revision: str | None = None
    token: str | None = field(default=None, repr=False)

    def check(self) -> "FinalPush":
        """Return this push with its full repository name. Raises ValueError or PushError if it cannot succeed."""
        token = find_token(self.token)
        with _hub_errors(self.repo_id, token):
            user = HfApi(token=token).whoami()["name"]
        repo_id = self.repo_id if "/" in self.repo_id else f"{user}/{self.repo_id}"
        check_repo_id(repo_id)
        return replace(self, repo_id=repo_id)

    def __call__(self, folder: str | os.PathLike) -> Pushed:
        """Push a trained model. Raises PushError with the command that repeats the push."""
        try:
            with plan_push(folder, self.repo_id, "model", token=self.token) as plan:
                return push(plan, self.private, self.revision, token=self.token)
        except (OSError, ValueError) as error:
            options = " --private" * self.private + f" --revision {self.revision}" * bool(self.revision)
            raise PushError(
                f"The model is saved in {folder}, but was not pushed. {error} To push it:\n"
                f"umons push {folder} --repo_id {self.repo_id}{options}"
            ) from None
