"""Upload of a site and its runs to the Hugging Face hub: a static Space, and a data set of parquet files."""

import json
import re
import shutil
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

from steerlens._version import __version__
from steerlens.atlas import Atlas
from steerlens.borders import reason
from steerlens.errors import StoreError, UsageError
from steerlens.progress import Progress
from steerlens.report.site import Site, site_files
from steerlens.runs.export import export_parquet
from steerlens.storage import distinct_names

if TYPE_CHECKING:
    from huggingface_hub import HfApi

Kind = Literal["space", "dataset"]

_TARGET = re.compile(r"hub:([\w][\w.-]*)/([\w][\w.-]*)", re.ASCII)


@dataclass(frozen=True)
class HubTarget:
    """A place on the hub.

    Attributes:
        user: name of a user or an organisation.
        repository: name of the Space and of the data set.
    """

    user: str
    repository: str

    @classmethod
    def parse(cls, text: str) -> "HubTarget":
        """Reads `hub:USER/NAME`.

        Raises:
            UsageError: if the text is none.
        """
        match = _TARGET.fullmatch(text)
        if match is None:
            raise UsageError(f"{text!r} is not a place to upload to; write hub:USER/NAME, for example hub:ada/atlas.")
        return cls(match[1], match[2])

    @property
    def name(self) -> str:
        """Name of both repositories."""
        return f"{self.user}/{self.repository}"

    @property
    def space_page(self) -> str:
        """Address of the Space."""
        return f"https://huggingface.co/spaces/{self.name}"

    @property
    def dataset_page(self) -> str:
        """Address of the data set."""
        return f"https://huggingface.co/datasets/{self.name}"

    @property
    def site_url(self) -> str:
        """Address under which the Space serves the site."""
        return f"https://{re.sub(r'[^a-z0-9]+', '-', self.name.lower())}.static.hf.space"


class Upload:
    """Files that are ready to be uploaded; a context manager, which removes its temporary files.

    Attributes:
        target: the place.
        folders: folder of each repository's files.
    """

    def __init__(self, target: HubTarget, folders: Mapping[Kind, Path], temporary: TemporaryDirectory[str]) -> None:
        self.target, self.folders, self._temporary = target, folders, temporary

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._temporary.cleanup()

    def listing(self) -> dict[Kind, dict[str, int]]:
        """Files of each repository and their sizes in bytes."""
        return {
            kind: {
                path.relative_to(folder).as_posix(): path.stat().st_size
                for path in sorted(folder.rglob("*"))
                if path.is_file()
            }
            for kind, folder in self.folders.items()
        }

    def send(self, *, private: bool = False, api: "HfApi | None" = None) -> Generator[Progress]:
        """Creates the repositories unless they exist, uploads the files, and yields progress.

        Args:
            private: True to create private repositories; those that exist stay as they are.
            api: client of the hub; by default that of the user's login.

        Raises:
            StoreError: if the hub cannot be reached or refuses, for example without a login.
        """
        from huggingface_hub import HfApi

        client = api or HfApi()
        settings: dict[Kind, dict[str, Any]] = {"dataset": {}, "space": {"space_sdk": "static"}}
        for done, (kind, extra) in enumerate(settings.items()):
            yield Progress("uploading", done, len(settings), "repositories")
            try:
                client.create_repo(self.target.name, repo_type=kind, private=private, exist_ok=True, **extra)
                client.upload_folder(
                    repo_id=self.target.name,
                    repo_type=kind,
                    folder_path=self.folders[kind],
                    commit_message=f"Published with steerlens {__version__}",
                )
            except Exception as error:
                raise StoreError(
                    f"the {kind} {self.target.name} was not uploaded: {reason(error)}. Check the connection and your "
                    "login (`hf auth login`, with a token that may write), then repeat the command with --force; what "
                    "is uploaded already stays."
                ) from error
        yield Progress("uploading", len(settings), len(settings), "repositories")


def prepared_upload(
    runs: Mapping[str, Atlas], site: Site, target: HubTarget, *, title: str = ""
) -> Generator[Progress, None, Upload]:
    """Puts together what would be uploaded, yields progress, and returns it; uploads nothing.

    Args:
        runs: the runs of the site.
        site: the site.
        target: the place.
        title: title of the Space.
    """
    temporary = TemporaryDirectory(prefix="steerlens-upload-", ignore_cleanup_errors=True)
    try:
        inside = Path(temporary.name)
        folders: dict[Kind, Path] = {"space": inside / "space", "dataset": inside / "dataset"}
        # A copy, since a Space has a card that the site on another server must not have.
        # Only what was published: the folder may hold other files, and links to anywhere.
        for name in site_files(site.folder):
            target_file = folders["space"] / name
            target_file.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(site.folder / name, target_file, follow_symlinks=False)
        (folders["space"] / "README.md").write_text(_space_card(target, title), encoding="utf-8")
        (folders["dataset"] / "data").mkdir(parents=True)
        files = distinct_names({name: (name, str(index)) for index, name in enumerate(runs)})
        for name, atlas in runs.items():
            yield from export_parquet(atlas, folders["dataset"] / "data" / f"{files[name]}.parquet")
        (folders["dataset"] / "README.md").write_text(_dataset_card(target, list(files.values())), encoding="utf-8")
    except BaseException:
        temporary.cleanup()
        raise
    return Upload(target, folders, temporary)


def _space_card(target: HubTarget, title: str) -> str:
    return f"""---
title: {json.dumps(title or target.repository, ensure_ascii=False)}
sdk: static
app_file: index.html
datasets:
- {target.name}
tags:
- interpretability
---

Pictures of what each part of a Vision Transformer writes, by steerlens {__version__}. The numbers are in the data set
[{target.name}]({target.dataset_page}).
"""


def _dataset_card(target: HubTarget, names: list[str]) -> str:
    entries = [f'- config_name: "{name}"\n  data_files: "data/{name}.parquet"' for name in names]
    configs = "\n".join([f"{entries[0]}\n  default: true", *entries[1:]])
    return f"""---
configs:
{configs}
tags:
- interpretability
---

Runs of steerlens {__version__}: every decoded picture with its input, site, lens and scores. To look at them as pages:
[{target.name}]({target.space_page}).
"""
