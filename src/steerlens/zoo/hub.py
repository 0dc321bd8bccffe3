"""The Hugging Face hub: a pinned snapshot becomes a folder, and only the files that are needed are fetched."""

import difflib
import errno
from collections.abc import Sequence
from pathlib import Path

from steerlens.errors import ModelError


class FilesMissingError(ModelError):
    """A repository of the hub is there, and files that are needed are not in it."""


def snapshot(
    repository: str,
    revision: str | None,
    patterns: Sequence[str],
    *,
    local_files_only: bool,
    instead: str,
    weights: str | None = None,
) -> Path:
    """The folder of a snapshot, from the cache if the files are there, else downloaded.

    Args:
        repository: `owner/name`.
        revision: commit, branch or tag; None for the main branch.
        patterns: files that are needed; those without a wildcard must be there.
        local_files_only: never use the network.
        instead: what the user can do if the hub does not give them out.
        weights: how the name of the weights begins that are needed too, in one safetensors file or in shards.

    Raises:
        FilesMissingError: if the repository does not hold them.
        ModelError: if the files are neither in the cache nor to be had.
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
        # One request that is not repeated: downloads are, for half a minute, before they say that there is no network.
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
    """The folder of a snapshot if all of its needed files are on this machine; the network is never used."""
    from huggingface_hub import try_to_load_from_cache

    folder: Path | None = None
    for pattern in patterns:
        if "*" in pattern:
            continue
        found = try_to_load_from_cache(repository, pattern, revision=revision)
        if not isinstance(found, str) or not Path(found).is_file():
            return None
        # snapshots/<commit>/<pattern>: as many levels up as the pattern has parts
        folder = Path(found).parents[pattern.count("/")]
    return folder


def _cache_holds(repository: str, revision: str | None, patterns: Sequence[str], weights: str | None) -> str:
    """What of a repository the cache lacks, in words; empty if it holds nothing of the repository at all."""
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
    """The files of a folder whose names come close to those that are lacking: a file may have been renamed."""
    names = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]
    close = dict.fromkeys(match for name in lacking for match in difflib.get_close_matches(name, names, n=2))
    return f" (it holds {', '.join(close)})" if close else ""


def _lacking(folder: Path, patterns: Sequence[str], weights: str | None = None) -> list[str]:
    from steerlens.storage import read_json  # brings torch, which listing models does without

    index = folder / f"{weights}.safetensors.index.json"
    if weights is not None and not (folder / f"{weights}.safetensors").is_file():
        shards = read_json(index, weights).get("weight_map", {}).values() if index.is_file() else []
        patterns = [*patterns, *(sorted(set(shards)) or [f"{weights}.safetensors"])]
    return [pattern for pattern in patterns if "*" not in pattern and not (folder / pattern).is_file()]


def _reason(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
