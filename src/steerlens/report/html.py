"""Pages: a run as a single HTML file that opens offline, and as a fragment for notebooks."""

import base64
import hashlib
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, cast

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from steerlens._version import __version__
from steerlens.atlas import Atlas, CellResult, LensName, Reading, SiteScore
from steerlens.printable import printable, without_folders
from steerlens.report.citing import bibtex, made_by
from steerlens.report.colours import SEQUENTIAL, colour
from steerlens.report.content import MAX_INPUTS, PICTURE_BYTES, manifest_rows, page_meta, picture_data
from steerlens.report.domain import advice, domain_warnings
from steerlens.report.embed import PIXEL_SIDE, data_uri
from steerlens.report.findings import head_counts, sentences
from steerlens.report.scales import similarity_scale
from steerlens.report.terms import LENSES, TOP_K, domain, lens_names, steered_lens, target_words, two, written_tokens
from steerlens.report.units import sae_lines
from steerlens.report.words import is_retrieved, words
from steerlens.storage import OwnedFolder

REPORT = "report.html"
"""Name of the page in a run or an exported folder."""


def write_report(atlas: Atlas, folder: str | Path, *, figures: bool = True) -> Path:
    """Writes `report.html` and, beside it, `figures/*.png` and `*.svg`; returns the page.

    For a run of many inputs, the page and the figures show the first and say so; `Atlas.only` selects others.

    Args:
        atlas: the run.
        folder: folder to write to; created if necessary.
        figures: True to draw the figures too, which takes a second or two per input.

    Raises:
        StoreError: if a file cannot be written; an earlier file of that name stays intact.
    """
    own = OwnedFolder(Path(folder))
    inputs = len(atlas.readings)
    if inputs > MAX_INPUTS:
        atlas = atlas.only([atlas.readings[index].id for index in range(MAX_INPUTS)])
    page = own.write(report_page(atlas, inputs=inputs).encode(), REPORT)
    if figures:
        from steerlens.report.figures import save_figures  # Matplotlib is imported when something is drawn

        save_figures(atlas, own.inside("figures").folder)
    return page


@dataclass(frozen=True)
class Linked:
    """Addresses of the files of a page that is served, in place of a page that holds everything.

    Attributes:
        styles: addresses of style sheets.
        scripts: addresses of scripts, which fetch the data.
        meta: data of the run for the script, if the page holds it.
        policy: Content-Security-Policy, for pages on servers that send none.
        preload: address of data that the script will fetch first.
        title: title of the page; by default the names of its inputs.
        description: what other sites show beside a link.
        image: address of the picture that they show, whole if it is to be found.
        image_size: its width and height.
        address: whole address of the page, if it is known.
        index: address of the page of all runs.
        live: whether the script itself says what concerns one input, since others can be added.
    """

    styles: tuple[str, ...]
    scripts: tuple[str, ...]
    meta: Mapping[str, Any] | None = None
    policy: str = ""
    preload: str = ""
    title: str = ""
    description: str = ""
    image: str = ""
    image_size: tuple[int, int] = (0, 0)
    address: str = ""
    index: str = ""
    live: bool = False


def report_page(
    atlas: Atlas, *, inputs: int | None = None, linked: Linked | None = None, budget: int = PICTURE_BYTES
) -> str:
    """Renders the report as HTML that refers to nothing outside itself, or to the files of a server.

    Args:
        atlas: the run, or some of its inputs.
        inputs: number of inputs of the whole run; by default of the atlas.
        linked: addresses of styles and scripts of a served page, which then holds no data.
        budget: most characters of decoded pictures on the page.
    """
    share = budget // max(1, len(atlas.readings))
    targets = sorted({target_words(reading) for reading in atlas.readings}) or ["the input"]
    readout = atlas.encoder.readout_tokens
    script = asset("report.js")
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            atlas=atlas,
            inputs=len(atlas.readings) if inputs is None else inputs,
            version=__version__,
            title=(linked.title if linked else "")
            or ", ".join(reading.picture.name for reading in atlas.readings[:3])
            or "an empty run",
            encoder=short_name(atlas.encoder.name),
            lenses={lens: LENSES[lens] for lens in lens_names(atlas)},
            controls=any(cell.lens == "control" for cell in atlas.finished),
            foils=any(cell.lens == "foil" for cell in atlas.finished),
            strength=str(atlas.plan.strength).replace("rho=", "ρ = ").replace("s=", "s = "),
            targets=" or ".join(targets),
            one_token=readout is not None and len(readout) == 1,
            written=written_tokens(atlas),
            domain=domain(atlas),
            retrieved=is_retrieved(atlas),
            words=words(atlas),
            outside=[] if linked and linked.live else list(domain_warnings(atlas)),
            saes=sae_lines(atlas),
            advice=advice(_model_of(atlas)),
            k=TOP_K,
            manifest=manifest_rows(atlas.manifest),
            made=made_by(atlas.manifest, short_name(atlas.encoder.name)),
            bibtex=bibtex(),
            meta=_meta(atlas, linked),
            blocks=[] if linked else [script_json(picture_data(atlas, reading, share)) for reading in atlas.readings],
            linked=linked,
            css=Markup(asset("report.css")),
            js=Markup(script),
            script_hash=script_hash(script),
        )
    )


def _meta(atlas: Atlas, linked: Linked | None) -> str:
    if linked is None:
        return script_json(page_meta(atlas))
    return "" if linked.meta is None else script_json(linked.meta)


def _model_of(atlas: Atlas) -> str:
    provenance = atlas.manifest.get("provenance")
    return str(provenance.get("name", "")) if isinstance(provenance, Mapping) else ""


def notebook_view(atlas: Atlas) -> str:
    """A static HTML fragment for a notebook: the first input, its layers, its best heads and the map of scores."""
    if not atlas.readings:
        return "<p>An empty run of steerlens.</p>"
    reading = atlas.readings[0]
    lenses = lens_names(atlas)
    layers = [site for site in atlas.sites("diffusion", reading.id) if site.kind == "resid_post"]
    # At most a dozen layers: 48 pictures in a row are too many for a notebook.
    shown = sorted(layers)[:: max(1, -(-len(layers) // 12))] if layers else []
    return (
        _environment()
        .get_template("notebook.html.j2")
        .render(
            uid=f"steerlens-{secrets.token_hex(6)}",
            atlas=atlas,
            encoder=short_name(atlas.encoder.name),
            reading=reading,
            target=target_words(reading),
            clean=atlas.clean(reading.id)[:1],
            two=two,
            said=sentences(atlas, reading),
            uri=lambda image: data_uri(image, side=224),
            strip=[(atlas.cells("diffusion", site, reading.id)[0], reading.top_labels(site)[:1]) for site in shown],
            tops=[
                (f"{LENSES[lens]}: {named} closest to {target_words(reading)}", _pictured(atlas, reading, scores))
                for kind, named in (("head", "heads"), ("feature", "features"), ("neuron", "neurons"))
                for lens in lenses
                if (scores := atlas.ranked(lens, reading.id, kind=kind, k=TOP_K))
            ],
            saes=sae_lines(atlas),
            map=_map_rows(atlas, reading.id),
            map_lens=LENSES[_map_lens(atlas)],
            scale=similarity_scale(atlas, lenses),
            ramp=SEQUENTIAL,
            words=words(atlas),
            small=max(atlas.decoder.defaults.size) <= PIXEL_SIDE,
            counts=head_counts(atlas, reading.id),
            outside=list(domain_warnings(atlas)),
            advice=advice(_model_of(atlas)),
        )
    )


def script_json(value: Any) -> Markup:
    """Encodes a value as JSON that is safe inside a script element, whatever texts it contains."""
    text = json.dumps(plain_json(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def script_hash(script: str) -> Markup:
    """The source expression by which a Content-Security-Policy allows an inline script, and no other.

    Args:
        script: the exact content of the script element.

    References:
        W3C, Content Security Policy Level 3, hash-source.
    """
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return Markup(f"'sha256-{digest}'")


def plain_json(value: Any) -> Any:
    """Copies JSON values with control characters escaped in every text."""
    if isinstance(value, str):
        return printable(value, lines=True)
    if isinstance(value, Mapping):
        return {plain_json(key): plain_json(inner) for key, inner in cast(Mapping[Any, Any], value).items()}
    if isinstance(value, list | tuple):
        return [plain_json(inner) for inner in cast(Sequence[Any], value)]
    return value


def short_name(name: str) -> str:
    """Last parts of a hub id or folder, enough to recognise a model."""
    parts = [part for part in name.replace("\\", "/").split("/") if part]
    if len(parts) < 4:  # the folder of a model may be somebody's home
        return without_folders(name)
    return "/".join(parts[-2:])


def _pictured(atlas: Atlas, reading: Reading, scores: Sequence[SiteScore]) -> list[tuple[SiteScore, CellResult]]:
    """Scores with their picture of the first seed."""
    return [(score, atlas.cells(score.lens, score.site, reading.id)[0]) for score in scores]


_MOST_TIPS = 160
"""Most heads whose pictures the map of a notebook shows when they are pointed at."""


def _map_lens(atlas: Atlas) -> LensName:
    steered = steered_lens(atlas)
    return steered if steered in lens_names(atlas) else "diffusion"


def _map_rows(atlas: Atlas, picture: str) -> list[list[dict[str, Any] | None]]:
    """Cells of the map, a row for each head and a column for each layer; empty if the run looked at no head."""
    lens, scale = _map_lens(atlas), similarity_scale(atlas, lens_names(atlas))
    scores = {score.site: score for score in atlas.ranked(lens, picture)}
    rows: list[list[dict[str, Any] | None]] = [[None] * atlas.encoder.n_layers for _ in range(atlas.encoder.n_heads)]
    for site, score in scores.items():
        control = "" if score.control is None else f", control {two(score.control)}"
        rows[site.head][site.layer] = {
            "x": site.layer,
            "fill": colour(score.similarity, *scale),
            "label": site.label,
            "text": f"similarity {two(score.similarity)}{control}",
            "mark": bool(score.beats_control),
            "image": data_uri(score.image, side=120) if len(scores) <= _MOST_TIPS else "",
        }
    return rows if scores else []


def asset(name: str) -> str:
    """Reads a file of the page, `report.css` or a bundle of its script."""
    return files("steerlens.report").joinpath("assets", name).read_text(encoding="utf-8")


def _environment() -> Environment:
    return page_environment()


def page_environment(package: str = "steerlens.report") -> Environment:
    """Templates of a package whose texts are escaped for HTML, and shown without control characters."""

    def shown(value: Any) -> Any:
        return printable(value, lines=True) if isinstance(value, str) and not isinstance(value, Markup) else value

    return Environment(
        loader=PackageLoader(package),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=False,
        finalize=shown,
    )
