"""Page of feature dashboards: a small file that searches and sorts all features, and loads dashboards chunk by chunk.

features.html             opens offline; scripts beside it hold the data, since a page from a disk may not read files
page/index.js             a line a feature, for searching and sorting
page/features-00000.js    dashboards of one chunk
page/pictures-00.webp     thumbnails of the pictures, a hundred a sheet

Everything is written chunk by chunk from parquet, so memory does not grow with the number of features.
"""

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from markupsafe import Markup
from PIL import Image

from steerlens._version import __version__
from steerlens.borders import reason
from steerlens.encoders import EncoderSpec
from steerlens.errors import StoreError
from steerlens.printable import without_folders
from steerlens.profiles.features.effects import FeatureReader
from steerlens.profiles.features.study import FeatureProfile
from steerlens.profiles.features.tables import FOLDER, chunk_name
from steerlens.profiles.pictures import ProfilePicture
from steerlens.report import script_json, short_name
from steerlens.report.html import page_environment
from steerlens.storage import OwnedFolder

PAGE, DATA = "features.html", "page"
"""The page, and the folder of its data."""

_SIDE = 72
"""Side of a thumbnail in pixels."""

_ROW = 10
"""Thumbnails in a row of a sheet, which is square."""


def write_feature_page(
    profile: FeatureProfile, reader: FeatureReader, pictures: Sequence[ProfilePicture], folder: Path
) -> Path:
    """Writes the page of finished dashboards and its data, and returns the page.

    Raises:
        StoreError: if a file cannot be written or read.
    """
    own, spec = OwnedFolder(folder), reader.encoder.spec
    for number, sheet in enumerate(_sheets(pictures, spec)):
        own.write(sheet, DATA, f"pictures-{number:02d}.webp")
    index: dict[str, list[Any]] = {name: [] for name in ("density", "pictures", "largest", "effect", "texts", "tops")}
    for number in range(profile.chunks):
        path = folder / FOLDER / chunk_name(number)
        try:
            rows = pq.read_table(path).to_pylist()
        except (pa.ArrowException, OSError) as error:
            raise StoreError(
                f"{path} is damaged ({reason(error)}). Remove it, and give the same command again: only that part is "
                "computed again."
            ) from error
        for row in rows:
            _index_row(index, row)
        own.write(_script("chunk", number, [_dashboard(row) for row in rows]), DATA, f"features-{number:05d}.js")
    concepts = [picture.concept for picture in pictures]
    meta = {"side": _SIDE, "row": _ROW, "concepts": concepts, "chunk": profile.chunk, **_grid(reader)}
    meta |= {"edges": profile.edges, "name": profile.sae, "chance": profile.chance}
    own.write(_script("index", meta, index), DATA, "index.js")
    return own.write(_page(profile, spec).encode(), PAGE)


def _grid(reader: FeatureReader) -> dict[str, Any]:
    """Where the tokens of a heat map lie: rows and columns of patches, and the place of the first patch."""
    spec, tokens = reader.encoder.spec, reader.tokens
    patches = [token for token in tokens if token >= spec.first_patch]
    whole = len(patches) == spec.patch_grid[0] * spec.patch_grid[1]
    return {"grid": list(spec.patch_grid) if whole else None, "first": tokens.index(patches[0]) if whole else 0}


def _sheets(pictures: Sequence[ProfilePicture], spec: EncoderSpec) -> Iterator[bytes]:
    """Sheets of thumbnails as WebP: each picture as the encoder sees it, so that heat maps lie on it."""
    for start in range(0, len(pictures), _ROW * _ROW):
        sheet = Image.new("RGB", (_ROW * _SIDE, _ROW * _SIDE))
        for place, picture in enumerate(pictures[start : start + _ROW * _ROW]):
            image = picture.open()
            visible = image.crop(spec.view(image.size).visible) if spec.geometry is not None else image
            sheet.paste(visible.convert("RGB").resize((_SIDE, _SIDE)), (place % _ROW * _SIDE, place // _ROW * _SIDE))
        buffer = io.BytesIO()
        sheet.save(buffer, "webp", quality=85)
        yield buffer.getvalue()


def _index_row(index: dict[str, list[Any]], row: Mapping[str, Any]) -> None:
    for name in ("density", "largest", "effect"):
        value = row[name]
        index[name].append(None if value is None else float(f"{value:.3g}"))
    index["pictures"].append(row["pictures"])
    index["texts"].append([text["text"] for text in row["texts"][:3]])
    index["tops"].append([top["picture"] for top in row["tops"][:5]])


def _dashboard(row: Mapping[str, Any]) -> dict[str, Any]:
    images = {name: row[f"{name}_image"] for name in ("alone", "added")}
    return {
        **{name: row[name] for name in ("density", "pictures", "mean", "largest", "effect", "histogram", "names")},
        "control": row.get("effect_control"),
        "tops": [[top["picture"], top["value"], base64.b64encode(top["heat"]).decode()] for top in row["tops"]],
        "texts": [[text["text"], text["excess"]] for text in row["texts"]],
        "similar": [[other["feature"], other["cosine"]] for other in row["similar"]],
        "weights": [[head["head"], head["value"]] for head in row["heads_by_weights"]],
        "measured": [[head["head"], head["value"]] for head in row["heads_measured"]],
        **{
            name: None
            if image is None or image["bytes"] is None
            else ["data:image/png;base64," + base64.b64encode(image["bytes"]).decode(), row[f"{name}_fidelity"]]
            for name, image in images.items()
        },
    }


def _script(name: str, first: Any, second: Any) -> bytes:
    """A script that gives data to the page, as a page from a disk may load scripts but no other files."""
    return f"steerlensFeatures.{name}({script_json(first)},{script_json(second)});\n".encode()


def _page(profile: FeatureProfile, spec: EncoderSpec) -> str:
    environment = page_environment("steerlens.profiles.features")
    package = files("steerlens.profiles.features").joinpath("assets")
    report = files("steerlens.report").joinpath("assets", "report.css").read_text(encoding="utf-8")
    return environment.get_template("features.html.j2").render(
        version=__version__,
        profile=profile,
        encoder=short_name(spec.name),
        source=without_folders(profile.source),
        alive=profile.n_features - profile.dead,
        fit=profile.fit.words,
        poor=profile.fit.is_poor,
        css=Markup(report + package.joinpath("features.css").read_text(encoding="utf-8")),
        js=Markup(package.joinpath("features.js").read_text(encoding="utf-8")),
        data=DATA,
    )
