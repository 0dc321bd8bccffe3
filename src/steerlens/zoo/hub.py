"""Snapshots of the Hugging Face hub as local folders, with only the needed files."""

import difflib
import errno
from collections.abc import Sequence
from pathlib import Path

from steerlens.errors import ModelError


class FilesMissingError(ModelError):
    """A repository of the hub lacks needed files."""


def snapshot(
    repository: str,
    revision: str | None,
    patterns: Sequence[str],
    *,
    local_files_only: bool,
    instead: str,
    weights: str | None = None,
) -> Path:
    """Returns the folder of a snapshot, from the cache if it has the files, else downloaded.

    Args:
        repository: `owner/name`.
        revision: commit, branch or tag; None for the main branch.
        patterns: needed files; those without a wildcard must exist.
        local_files_only: never use the network.
        instead: advice to the user if the hub does not provide the files.
        weights: stem of the needed weights, in one safetensors file or in shards.

    Raises:
        FilesMissingError: if the repository lacks needed files.
        ModelError: if the files are not in the cache and cannot be downloaded.
    """
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    cached = cached_snapshot(repository, revision, patterns)
    if cached is not None and not _lacking(cached, patterns, weights):
        return cached
    at = f"{repository}{f' at {revision[:12]}' if revision else ''}"
    cache = _cache_holds(repository, revision, patterns, weights)
    if local_files_only:
        missing = cache or f"{at} is not in the cache of this machine"
        raise ModelError(f"{missing}, and the network is not to be used. {instead}")
    try:
        # A single request: downloads would retry for half a minute before they report that there is no network.
        HfApi().model_info(repository, revision=revision, timeout=15)
    except (GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise ModelError(f"the Hugging Face hub does not give out {at}: {_reason(error)}. {instead}") from None
    except (HfHubHTTPError, HFValidationError) as error:  # an answer, or a name that no repository can have
        raise ModelError(f"the Hugging Face hub does not give out {at}: {_reason(error)}. {instead}") from None
    except Exception as error:  # the exceptions of whichever HTTP library the hub's client is built on
        missing = cache or f"{at} is not in the cache"
        reason = f"the Hugging Face hub is not reachable ({_reason(error)})"
        raise ModelError(f"{reason}, and {missing}. {instead}") from None
    try:
        files = [f"{weights}.safetensors", f"{weights}.safetensors.index.json", f"{weights}-*-of-*.safetensors"]
        wanted = [*patterns, *(files if weights else [])]
        folder = Path(snapshot_download(repository, revision=revision, allow_patterns=wanted))
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:  # the command line has one message for it
            raise
        raise ModelError(f"{at} could not be downloaded ({_reason(error)}). {instead}") from None
    lacking = _lacking(folder, patterns, weights)
    if lacking:
        raise FilesMissingError(f"{at} does not hold {', '.join(lacking)}{_close_to(folder, lacking)}.")
    return folder


def cached_snapshot(repository: str, revision: str | None, patterns: Sequence[str]) -> Path | None:
    """Returns the folder of a snapshot if all needed files are on this machine, without using the network."""
    from huggingface_hub import try_to_load_from_cache

    folder: Path | None = None
    for pattern in patterns:
        if "*" in pattern:
            continue
        file = try_to_load_from_cache(repository, pattern, revision=revision)
        if not isinstance(file, str) or not Path(file).is_file():
            return None
        # snapshots/<commit>/<pattern>: as many levels up as the pattern has parts
        folder = Path(file).parents[pattern.count("/")]
    return folder


def _cache_holds(repository: str, revision: str | None, patterns: Sequence[str], weights: str | None) -> str:
    """Describes the files of a repository that the cache lacks; empty if it has nothing of the repository."""
    from huggingface_hub.constants import HF_HUB_CACHE

    place = Path(HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}"
    branch = place / "refs" / (revision or "main")
    commit = branch.read_text(encoding="utf-8").strip() if branch.is_file() else revision or ""
    folder = place / "snapshots" / commit
    if not commit or not folder.is_dir():
        return ""
    lacking = _lacking(folder, patterns, weights)
    return f"{repository} is in the cache without {', '.join(lacking)}{_close_to(folder, lacking)}" if lacking else ""


def _close_to(folder: Path, lacking: Sequence[str]) -> str:
    """Lists files of a folder with names similar to missing files, which may have been renamed."""
    names = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]
    close = dict.fromkeys(match for name in lacking for match in difflib.get_close_matches(name, names, n=2))
    return f" (it holds {', '.join(close)})" if close else ""


def _lacking(folder: Path, patterns: Sequence[str], weights: str | None = None) -> list[str]:
    from steerlens.storage import read_json  # imports torch, which listing models does not need

    index = folder / f"{weights}.safetensors.index.json"
    if weights is not None and not (folder / f"{weights}.safetensors").is_file():
        shards = read_json(index, weights).get("weight_map", {}).values() if index.is_file() else []
        patterns = [*patterns, *(sorted(set(shards)) or [f"{weights}.safetensors"])]
    return [pattern for pattern in patterns if "*" not in pattern and not (folder / pattern).is_file()]


def _reason(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
