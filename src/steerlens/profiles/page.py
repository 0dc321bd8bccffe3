"""Page of head profiles: a single HTML file that opens offline, with a section per head."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from markupsafe import Markup

from steerlens._version import __version__
from steerlens.naming import TextDecomposition
from steerlens.printable import without_folders
from steerlens.profiles.measure import Order
from steerlens.profiles.names import WRITES
from steerlens.profiles.summary import Average, DecodedPicture, HeadProfile, Profile, TopPicture
from steerlens.profiles.texts import TextScore
from steerlens.report import SEQUENTIAL, colour, data_uri, script_json, short_name
from steerlens.report.cards import measured_words
from steerlens.report.html import page_environment, script_hash
from steerlens.storage import OwnedFolder

_THUMBNAIL = 96
"""Longest side of a top picture in pixels; the page contains each picture once, however many heads show it."""

_ENDS = (("high", "Along the axis: gains"), ("low", "Against it: loses"))
"""Rows of a head's card: what an embedding gains if it moves along the head's axis, and what it loses."""

_ORDERS: Mapping[Order, str] = {
    "high": "High end of the axis",
    "low": "Low end of the axis",
    "similarity": "Agrees best with the picture",
    "effect": "Raises similarity with the label most",
    "write": "Writes most",
}


_NAMED = {
    WRITES: "Texts that span its writes",
    "mean": "Mean write as a sum of texts",
    "high": "Axis, high, as a sum of texts",
    "low": "Axis, low, as a sum of texts",
}
"""Titles of a head's decompositions into texts."""


def write_profile_page(profile: Profile, folder: Path) -> Path:
    """Writes `profile.html` and returns its path.

    Raises:
        StoreError: if it cannot be written; an earlier file stays intact.
    """
    return OwnedFolder(folder).write(profile_page(profile).encode(), "profile.html")


def profile_page(profile: Profile) -> str:
    """Renders the profiles as HTML that refers to nothing outside itself."""
    environment = page_environment("steerlens.profiles")
    scale, script = _scale(profile), _asset("steerlens.profiles", "profile.js")
    return environment.get_template("profile.html.j2").render(
        version=__version__,
        profile=replace(profile, source=without_folders(profile.source)),
        encoder=short_name(profile.spec.name),
        strength=str(profile.strength).replace("rho=", "ρ = ").replace("s=", "s = "),
        orders=_ORDERS,
        heads=[_head(profile, head) for head in sorted(profile.heads, key=_measured, reverse=True)],
        measured=[measured.of for measured in profile.faithfulness],
        map=_map(profile, scale),
        scale=f"{scale:.2g}",
        measure=_measure_words(profile),
        gradient=Markup(", ".join(SEQUENTIAL)),
        base=[
            ("The neutral base", _picture_values(profile.neutral)),
            ("A random direction", _picture_values(profile.random)),
        ],
        chance={name: f"{value:.2f}" for name, value in profile.chance.items()},
        thumbnails=script_json(_thumbnails(profile)),
        css=Markup(_asset("steerlens.report", "report.css") + _asset("steerlens.profiles", "profile.css")),
        js=Markup(script),
        script_hash=script_hash(script),
    )


def _asset(package: str, name: str) -> str:
    return files(package).joinpath("assets", name).read_text(encoding="utf-8")


def _thumbnails(profile: Profile) -> dict[str, str]:
    shown = (tops for head in profile.heads for tops in (*head.tops.values(), *head.real.values()))
    used = {top.id for tops in shown for top in tops}
    return {picture.id: data_uri(picture.open(), side=_THUMBNAIL) for picture in profile.pictures if picture.id in used}


def _picture_values(decoded: DecodedPicture) -> dict[str, Any]:
    return {
        "uri": data_uri(decoded.picture),
        "pixels": max(decoded.picture.shape[:2]) <= _THUMBNAIL,
        "fidelity": two(decoded.fidelity),
    }


def two(value: float) -> str:
    """Formats a number with two decimals and a true minus sign, never as negative zero."""
    return f"{round(value, 2) + 0.0:.2f}".replace("-", "−")


def _signed(value: float) -> str:
    return f"{round(value, 3) + 0.0:.3f}".replace("-", "−")


def _three(average: Average | None) -> str | None:
    if average is None:
        return None
    error = "" if average.count < 2 else f" ± {average.error:.3f}"
    return f"{round(average.value, 3) + 0.0:.3f}{error}".replace("-", "−")


def _head(profile: Profile, head: HeadProfile) -> dict[str, Any]:
    numbers = (
        ("Mean write", two(head.constant), "norm, of the mean final residual’s"),
        ("Centred write", _three(head.write), "norm, of the final residual’s"),
        ("Agreement with the picture", _three(head.similarity), "cosine"),
        ("Ablation: embedding moves", _three(head.total_unsigned), "1 − cosine, with downstream layers reacting"),
        (
            "Ablation: similarity with the label lost",
            _three(head.total_effect),
            "cosine, with downstream layers reacting",
        ),
        ("… only in the final residual", _three(head.direct_effect), "cosine, direct"),
        (
            "Axis",
            two(head.axis_share),
            f"share of the variance; {two(head.chance_share)} along a random mixture",
        ),
    )
    measure = head.total_unsigned or head.write
    return {
        "id": head.site.label,
        "layer": head.site.layer,
        "index": head.site.head,
        "keys": {
            "place": head.site.layer * 10_000 + head.site.head,
            "write": -head.write.value,
            "effect": -measure.value,
            "similarity": -head.similarity.value,
        },
        "measure": f"{'effect' if head.total_unsigned else 'write'} {measure.value:.3f}",
        "numbers": [(name, value, unit) for name, value, unit in numbers if value is not None],
        "decoded": {name: _picture_values(decoded) for name, decoded in head.decoded.items()},
        "texts": {
            name: [(text.text, two(text.excess), two(text.score), text.stands_out) for text in texts]
            for name, texts in head.texts.items()
        },
        "named": [_named(_NAMED[name], named) for name, named in head.names.items()],
        "card": [_card_row(title, head.real.get(end, ()), head.texts.get(end, ())) for end, title in _ENDS],
        "faithful": [measured_words(measured, head.site.label) for measured in profile.faithfulness],
        "rows": [
            (title, [(top.id, top.concept, _signed(top.value)) for top in head.tops[order]])
            for order, title in _ORDERS.items()
            if head.tops[order]
        ],
    }


def _named(title: str, named: TextDecomposition) -> dict[str, Any]:
    """Texts of a decomposition, each with its share of variance (TextSpan) or its signed weight (OMP)."""

    def number(weight: float) -> str:
        return f"{weight:.0%}" if named.method == "textspan" else two(weight)

    return {
        "title": title,
        "texts": [(text.text, number(text.weight)) for text in named.texts],
        "explained": f"{named.explained:.0%}",
        "control": f"{named.control[-1] if named.control else 0:.0%}",
        "beats": named.beats_control,
    }


def _card_row(
    title: str, real: Sequence[TopPicture], texts: Sequence[TextScore]
) -> tuple[str, list[tuple[str, str, str]], list[tuple[str, bool]]]:
    pictures = [(top.id, top.concept, _signed(top.value)) for top in real]
    return title, pictures, [(text.text, text.stands_out) for text in texts]


def _measure_words(profile: Profile) -> str:
    if profile.heads[0].total_unsigned is None:
        return "norm of the head’s centred write, relative to the final residual"
    return "how far the embedding moves when the head is ablated (1 − cosine, with downstream layers reacting)"


def _measured(head: HeadProfile) -> float:
    return (head.total_unsigned or head.write).value


def _scale(profile: Profile) -> float:
    return max((_measured(head) for head in profile.heads), default=1.0) or 1.0


def _map(profile: Profile, scale: float) -> list[list[dict[str, Any] | None]]:
    """Rows of heads, columns of layers; None where a head was not profiled."""
    cells = {(head.site.head, head.site.layer): head for head in profile.heads}
    layers = range(profile.spec.n_layers)
    return [
        [
            None
            if (head := cells.get((row, layer))) is None
            else {
                "id": head.site.label,
                "fill": colour(_measured(head), 0, scale),
                "text": f"{head.site.label}: {_measured(head):.3f}",
            }
            for layer in layers
        ]
        for row in range(profile.spec.n_heads)
    ]
