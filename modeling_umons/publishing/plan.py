"""Plan of a push: the assembled and checked folder. Uses no network."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from huggingface_hub import get_token
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from .assemble import assemble_folder
from .checks import README, check_folder, find_kind, read_metadata, stale_patterns


REPO_TYPES = {"model": "model", "dataset": "dataset", "metric": "space", "space": "space"}
# Calls in the code blocks of cards, before the name that a push replaces by the repository's.
LOADING_CALLS = {"model": r"\bmodel=", "dataset": r"\bload_dataset\(", "metric": r"\bevaluate\.load\("}
DEFAULT_REVISION = "main"


@dataclass(frozen=True)
class Plan:
    """
    Checked contents of a push.

    Attributes:
        kind: "model", "dataset", "metric" or "space".
        repo_id: the repository, as user/name.
        folder: the assembled folder.
        ignored: names of files and folders that are not pushed.
        warnings: sentences.
        stale: patterns of files that are deleted in the repository unless they are pushed.
        sdk: the SDK of a Space.
        tag: a name for the commit, which the examples of the card load.
        licence: the licence and the base model of the card, as a line.
    """

    kind: str
    repo_id: str
    folder: Path
    ignored: list[str]
    warnings: list[str]
    stale: list[str]
    sdk: str | None = None
    tag: str | None = None
    licence: str = ""

    @property
    def repo_type(self) -> str:
        """Type of the repository; a metric is a Space."""
        return REPO_TYPES[self.kind]

    @property
    def files(self) -> dict[str, Path]:
        """Path in the repository -> local path."""
        paths = sorted(path for path in self.folder.rglob("*") if path.is_file())
        return {path.relative_to(self.folder).as_posix(): path for path in paths}

    def describe(self) -> str:
        """Return one line for the repository and one for each file."""
        sizes = {name: path.stat().st_size for name, path in self.files.items()}
        lines = [f"{self.kind} -> {self.repo_type} repository {self.repo_id}"]
        lines += [f"{size:>14,}  {name}" for name, size in sizes.items()]
        lines.append(f"{sum(sizes.values()):>14,}  bytes in {len(sizes)} files")
        lines += [self.licence] if self.licence else []
        lines += [f"not pushed: {', '.join(self.ignored)}"] if self.ignored else []
        if stale := [pattern for pattern in self.stale if pattern not in sizes]:
            lines.append(f"deleted in the repository, unless listed above: {', '.join(stale)}")
        return "\n".join([*lines, *(f"warning: {warning}" for warning in self.warnings)])


@contextmanager
def plan_push(
    folder: str | Path,
    repo_id: str,
    kind: str | None = None,
    endpoint: str | Path | None = None,
    tag: str | None = None,
    token: str | None = None,
) -> Iterator[Plan]:
    """
    Assemble and check what a push uploads, in a temporary folder. Uses no network.

    Args:
        folder: a model, a data set, a metric or a Space.
        repo_id: the repository, as user/name.
        kind: "model", "dataset", "metric" or "space"; by default, found from the files.
        endpoint: a folder with the handler of an Inference Endpoint, pushed with the model.
        tag: a name for the commit, such as v1.0.
        token: a token that no file may contain; by default the user's.

    Raises:
        ValueError: the repository's name or the options are not valid.
        OSError: the folder is incomplete, would not load for others, or holds something that must not be published.
    """
    check_repo_id(repo_id)
    folder = Path(folder)
    kind = kind or find_kind(folder)
    if endpoint is not None and kind != "model":
        raise ValueError(f"--endpoint is for models, but {folder} is a {kind}.")
    with TemporaryDirectory(prefix="umons-push-") as temporary:
        assembled = Path(temporary, folder.resolve().name)
        try:
            ignored = assemble_folder(folder, assembled, endpoint, link_large_files=True)
            metadata = read_metadata(assembled)
            warnings = check_folder(assembled, kind, metadata, repo_id, (token or get_token() or "").strip())
        except OSError as error:
            raise OSError(str(error).replace(str(assembled), str(folder))) from None
        names = {folder.resolve().name, f"{folder.resolve().parent.name}/{folder.resolve().name}"}
        card = (assembled / README).read_text(encoding="utf-8")
        (assembled / README).write_text(fill_in_card(card, kind, names, repo_id, tag), encoding="utf-8")
        stale = stale_patterns(kind, metadata)
        licence = f"licence: {metadata['license']}" if metadata.get("license") else ""
        if metadata.get("base_model"):
            licence = f"{licence or 'licence: none'} (base model: {metadata['base_model']})"
        yield Plan(kind, repo_id, assembled, ignored, warnings, stale, metadata.get("sdk"), tag, licence)


def check_repo_id(repo_id: str) -> None:
    """Raise ValueError if `repo_id` is not user/name."""
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise ValueError(f"{repo_id!r} is not a valid name of a repository: {error}") from None
    if "/" not in repo_id:
        raise ValueError(f"{repo_id!r} names no owner: use user/name or organization/name.")


def fill_in_card(card: str, kind: str, names: set[str], repo_id: str, tag: str | None = None) -> str:
    """Return the card with the repository's name, and the tag, in its code blocks that load one of `names`."""
    if kind not in LOADING_CALLS:
        return card
    title = re.search(r"^# (.+)$", card, re.MULTILINE)
    known = "|".join(map(re.escape, names | ({title[1].strip()} if title else set())))
    call = re.compile(rf"""({LOADING_CALLS[kind]}\s*)(["'])(?:{known})\2""")

    def fill(block: re.Match) -> str:
        code = call.sub(rf"\1\g<2>{repo_id}\2", block[0])
        return code.replace(f'revision="{DEFAULT_REVISION}"', f'revision="{tag}"') if tag else code

    return re.sub(r"^```.*?^```", fill, card, flags=re.MULTILINE | re.DOTALL)
