"""Saving: views as run directories that resume and export like any other, and the files that copied commands read."""

import hashlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from steerlens.app.answers import Answer
from steerlens.app.explorer import Explorer
from steerlens.app.inputs import InputPicture
from steerlens.app.policy import Policy
from steerlens.app.recipe import MASK_FILE, Recipe, as_command, as_python
from steerlens.app.view import View
from steerlens.errors import UsageError
from steerlens.images import png_bytes
from steerlens.progress import Progress
from steerlens.report import write_report
from steerlens.storage import OwnedFolder, safe_name
from steerlens.sweep import look_in

RUNS = Path("steerlens-runs")
"""Folder of saved runs, in the current folder."""

SAMPLE = "sample"
"""Name by which the command line knows the bundled picture."""


def recipes(explorer: Explorer, view: View, policy: Policy) -> dict[str, Any]:
    """The command and the Python code that reproduce a view.

    Where the server may write, the picture that a visitor sent and the mask of a painted region are put beside the
    runs, so that the command finds them; elsewhere the texts name files that the visitor has.
    """
    recipe = explorer.recipe(view)
    files = _files(explorer, recipe, writes=policy.writes)
    return {
        "command": as_command(recipe, **files),
        "python": as_python(recipe, **files),
        "note": "" if policy.writes or recipe.picture.example else f"Keep your picture as {files['picture']}.",
    }


def save(explorer: Explorer, views: Sequence[View]) -> Iterator[Progress | Answer]:
    """Writes each view as a run directory; a view that was saved before resumes its run.

    Yields:
        Progress of the sweeps, and an answer `saved` for each with its folder and command.

    Raises:
        UsageError: if a view makes no sense for its model.
        StoreError: if the folder cannot be written.
    """
    for view in dict.fromkeys(views):
        recipe = explorer.recipe(view)
        folder = RUNS / _folder_name(recipe)
        files = _files(explorer, recipe, writes=True)
        atlas = yield from look_in(recipe.model.pair, explorer.job_of(recipe), folder)
        write_report(atlas, folder, figures=False)
        command = as_command(recipe, **files, out=str(folder))
        yield Answer("saved", {"folder": str(folder), "command": command, "site": str(recipe.site)})


def _folder_name(recipe: Recipe) -> str:
    facts = (recipe.view.to_json(), dict(recipe.model.arguments), recipe.picture.picture.sha256)
    mark = hashlib.sha256(repr(facts).encode()).hexdigest()[:8]
    return f"explored-{safe_name(recipe.picture.picture.name)[:40]}-{safe_name(recipe.site.label)[:40]}-{mark}"


def _files(explorer: Explorer, recipe: Recipe, *, writes: bool) -> dict[str, str]:
    """Paths that a command reads: `picture`, `target` (empty unless it is a picture) and `mask`."""
    other = explorer.target_picture(recipe.view)
    mask = MASK_FILE
    if recipe.mask_file and writes:
        mark = hashlib.sha256(recipe.mask_file).hexdigest()[:12]
        mask = str(_written(recipe.mask_file, mark, MASK_FILE))
    return {
        "picture": _picture_path(recipe.picture, writes),
        "target": "" if other is None else _target_path(other, writes),
        "mask": mask,
    }


def _picture_path(entry: InputPicture, writes: bool) -> str:
    picture = entry.picture
    if picture.path is not None and entry.example:
        return SAMPLE if _is_sample(entry) else str(picture.path)
    name = f"{picture.name}.{entry.suffix}"
    if not writes:
        return name
    return str(_written(entry.file or png_bytes(picture.image), entry.id, name))


def _target_path(entry: InputPicture, writes: bool) -> str:
    # `--target sample` would be the text.
    return str(entry.picture.path) if entry.picture.path is not None else _picture_path(entry, writes)


def _is_sample(entry: InputPicture) -> bool:
    from steerlens.zoo import sample_picture

    return entry.picture.sha256 == sample_picture().sha256


def _written(data: bytes, mark: str, name: str) -> Path:
    """Writes a file under the folder of runs, unless it is there."""
    if not re.fullmatch(r"[0-9a-f]{12}", mark):
        raise UsageError("this picture has no id.")
    inputs = OwnedFolder(RUNS).inside("inputs", mark)
    place = inputs.path(name)
    return place if place.is_file() and place.read_bytes() == data else inputs.write(data, name)
