"""Models on the Hugging Face Hub: `hub:org/name`, or `hub:org/name@revision`; a repository is a model folder.

`hf:` is the same as `hub:`; people use it for captioners that were published for `transformers`.

`huggingface_hub` fetches into its own cache and holds the tokens. We fetch only files that belong to a model folder, so
nothing that runs code arrives.
"""

import logging
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from showtell.errors import BundleError, ShowtellError, UsageError, needs

PREFIX = "hub:"
PREFIXES = (PREFIX, "hf:")
TRANSFORMERS_FILES = (
    "preprocessor_config.json",
    "processor_config.json",
    "generation_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "model.safetensors.index.json",
    "model-*.safetensors",
)
"""What a captioner of transformers may hold besides the files that showtell's models have; none runs code."""
LOG_IN = "Log in with 'hf auth login', or set HF_TOKEN."
TIMEOUT = 10.0  # seconds for the Hub to say which commit a revision is
COMMIT = re.compile(r"[0-9a-f]{40}")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class HubName:
    """What `hub:org/name@revision` names; the revision is a branch, a tag or a commit."""

    repo: str
    revision: str | None = None
    prefix: str = PREFIX

    @classmethod
    def parse(cls, text: str) -> "HubName":
        """Parse such a name. Raises UsageError."""
        prefix = next((each for each in PREFIXES if text.startswith(each)), "")
        repo, at, revision = text.removeprefix(prefix).partition("@")
        if not prefix or not re.fullmatch(r"[\w.-]+/[\w.-]+", repo) or bool(at) != bool(revision):
            raise UsageError(
                f"'{text}' is not the name of a model on the Hub.", "Write hub:org/name, or hub:org/name@revision."
            )
        return cls(repo, revision or None, prefix)

    def __str__(self) -> str:
        return f"{self.prefix}{self.repo}" + (f"@{self.revision}" if self.revision else "")


def fetch_model(where: str, files: Sequence[str], check: Callable[[Path], object]) -> tuple[Path, str]:
    """The folder in the cache that holds the model, and its name with its commit.

    A commit that is in the cache is used without asking. Other revisions are looked up each time; if the Hub can't be
    reached (or `HF_HUB_OFFLINE` is set), the one that was fetched last is used, with a note.

    Args:
        where: `hub:org/name[@revision]`.
        files: names of the files that a model folder may have.
        check: given a folder with config.json, raises if the rest, which may be many gigabytes, is not wanted.

    Raises:
        UsageError: `where` is no such name.
        BundleError: there is no such model, it may not be read, or it can't be fetched and is not in the cache.
        MissingExtraError: `huggingface_hub` is not installed.
    """
    name = HubName.parse(where)
    api, errors = _hub()
    wanted = {"revision": name.revision, "allow_patterns": list(files), "tqdm_class": _bars()}
    if name.revision and COMMIT.fullmatch(name.revision):
        try:
            return _model_in(api.snapshot_download(name.repo, **wanted, local_files_only=True), name)
        except errors.LocalEntryNotFoundError:
            pass  # then it is fetched
    try:
        commit = api.model_info(name.repo, revision=name.revision, timeout=TIMEOUT).sha
        first = {**wanted, "revision": commit, "allow_patterns": ["config.json"]}
        check(_model_in(api.snapshot_download(name.repo, **first), name)[0])
        folder = api.snapshot_download(name.repo, **wanted)
    except (errors.HTTPError, OSError, ValueError) as error:
        if (problem := _problem(error, name, api.endpoint, errors)) is not None:
            raise problem from None
        try:
            folder = api.snapshot_download(name.repo, **wanted, local_files_only=True)
        except errors.LocalEntryNotFoundError:
            raise BundleError(
                f"{name} can't be fetched ({_first_line(error)}) and is not in the cache.",
                "Try again with a network. After that the model is in the cache and needs no network.",
            ) from None
        found, pinned = _model_in(folder, name)
        logger.warning("%s is %s, from the cache: %s.", name, pinned, _first_line(error))
        return found, pinned
    found, pinned = _model_in(folder, name)
    logger.info("%s is %s", name, pinned)
    return found, pinned


def push_model(
    folder: Path, where: str, files: Sequence[str], card: str, *, private: bool = False, message: str = "Model"
) -> str:
    """Push the model in a folder to a repository, and return its name with the new commit.

    Args:
        folder: the model folder.
        where: `hub:org/name`; the repository is made if it does not exist.
        files: names of the files that a model folder may have; the repository loses those that the folder lacks.
        card: README.md of the repository.
        private: whether a new repository is private.
        message: the commit message.

    Raises:
        UsageError: `where` is no such name, or names a revision.
        BundleError: there is no token, or it may not write there; the Hub can't be reached.
        MissingExtraError: `huggingface_hub` is not installed.
    """
    name = HubName.parse(where)
    if name.revision:
        raise UsageError(f"{where} names a revision, and pushing makes a new one.", f"Write {PREFIX}{name.repo}.")
    api, errors = _hub()
    import huggingface_hub
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    if huggingface_hub.get_token() is None:
        raise BundleError(f"Pushing to {name} needs a token that may write.", LOG_IN)
    added = [file for file in files if (folder / file).is_file() and file != "README.md"]
    try:
        api.create_repo(name.repo, private=private, exist_ok=True)
        there = set(api.list_repo_files(name.repo))
        operations = [
            CommitOperationAdd("README.md", card.encode()),
            *(CommitOperationAdd(file, folder / file) for file in added),
            *(CommitOperationDelete(f) for f in files if f in there and f not in (*added, "README.md")),
        ]
        commit = api.create_commit(name.repo, operations, commit_message=message).oid
    except (errors.HTTPError, OSError, ValueError, RuntimeError) as error:
        problem = _problem(error, name, api.endpoint, errors)
        raise problem or BundleError(f"{folder} can't be pushed to {name}: {_first_line(error)}.") from None
    return f"{name}@{commit}"


def card_with_facts(card: str, defaults: Mapping[str, Any], said: Mapping[str, Any]) -> str:
    """A model card with the Hub's front matter (YAML): from `said` first, then from the card, then from the defaults.

    Raises:
        BundleError: the card's own front matter is not YAML.
        MissingExtraError: `huggingface_hub` is not installed.
    """
    _hub()
    from huggingface_hub import ModelCard, ModelCardData

    try:
        own, text = {}, card
        if card.startswith("---"):
            parsed: Any = ModelCard(card, ignore_metadata_errors=False)
            own, text = parsed.data.to_dict(), parsed.text
        facts = ModelCardData(**{**defaults, **own, **said})
        return f"---\n{facts.to_yaml()}\n---\n\n{text.lstrip()}"
    except Exception as error:  # whatever the YAML reader raises
        raise BundleError(f"The front matter of the model card can't be read: {_first_line(error)}.") from None


def _hub() -> tuple[Any, Any]:
    """The client, and the module of its errors. Raises MissingExtraError."""
    with needs("hub", "The Hugging Face Hub"):
        from huggingface_hub import HfApi, errors
    return HfApi(library_name="showtell"), errors


def _bars() -> type | None:
    """The library's own progress bars if there is a terminal; else bars that are never shown."""
    from huggingface_hub.utils.tqdm import tqdm

    class Silent(tqdm):
        def __init__(self, *arguments: Any, **settings: Any) -> None:
            super().__init__(*arguments, **(settings | {"disable": True}))  # type: ignore[no-untyped-call]

    return None if sys.stderr.isatty() else Silent


def _model_in(folder: str, name: HubName) -> tuple[Path, str]:
    """A folder of the cache, which is named after the commit. Raises BundleError when it holds no model."""
    path = Path(folder)
    if not (path / "config.json").is_file():
        raise BundleError(f"{name} is not a model that showtell can read: it has no config.json.")
    return path, f"{name.prefix}{name.repo}@{path.name}"


def _problem(error: Exception, name: HubName, endpoint: str, errors: Any) -> ShowtellError | None:
    """The error for an answer of the Hub; None if it did not answer, or has a problem itself."""
    page = f"{endpoint}/{name.repo}"
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, errors.GatedRepoError):
        return BundleError(f"Access to {name} must be requested.", f"Request access on {page}, then: {LOG_IN}")
    if isinstance(error, errors.RevisionNotFoundError):
        return BundleError(f"{name}: the model has no such revision.", f"See {page}/commits/main")
    if isinstance(error, errors.RepositoryNotFoundError):
        return BundleError(f"There is no {name}, or it is private.", f"If it is private: {LOG_IN}")
    if isinstance(error, errors.HFValidationError):
        return UsageError(f"{name} is not the name of a model: {_first_line(error)}", "Write hub:org/name.")
    if status in (401, 403):
        return BundleError(f"The Hub answers {status} for {name}: the token does not allow this.", LOG_IN)
    return None


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
