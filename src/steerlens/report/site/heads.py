"""Small pages of an input's best heads, for links that show the head's own picture.

Chats and social sites drop the part of an address after `#`, so a link to a head shows the picture of its input. The
best heads of each input therefore have a page of their own, which says what it shows to those sites, and forwards
everybody else to the head on the page of its input.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from markupsafe import Markup

from steerlens._version import __version__
from steerlens.atlas import Atlas, LensName, Reading, SiteScore
from steerlens.report.citing import made_by
from steerlens.report.html import page_environment, short_name
from steerlens.report.site.social import SIZE, head_picture
from steerlens.report.terms import LENSES, TOP_K, target_words, two


@dataclass(frozen=True)
class HeadPage:
    """The page of a head.

    Attributes:
        site: text form of the head.
        stem: name of its files.
        html: the page.
        picture: what other sites show beside a link to it, as JPEG.
    """

    site: str
    stem: str
    html: str
    picture: bytes


def head_pages(
    atlas: Atlas, reading: Reading, *, page: str, style: str, script: str, url: str, k: int = TOP_K
) -> list[HeadPage]:
    """Writes the pages of an input's best heads.

    Args:
        atlas: the run.
        reading: the input.
        page: address of the page of the input, relative to these pages.
        style: address of the style sheet, likewise.
        script: address of the script that forwards, likewise.
        url: whole address of the folder of these pages; empty if it is not known.
        k: most heads.
    """
    lens = atlas.ranking_lens(reading.id)
    if lens is None:
        return []
    ranked = atlas.ranked(lens, reading.id)
    template = page_environment().get_template("head.html.j2")
    pages = list[HeadPage]()
    for place, score in enumerate(ranked[:k]):
        stem = score.site.label
        title = f"{stem} on {reading.picture.name}"
        picture_title = f"What {stem} of {short_name(atlas.encoder.name)} writes: {reading.picture.name}"
        sentence = _sentence(score, lens, place, len(ranked), reading)
        address = f"{page}#/head/{stem}?{atlas.plan.strength}&seed={atlas.plan.seeds[0]}"
        html = template.render(
            version=__version__,
            title=f"{title} · {short_name(atlas.encoder.name)}",
            heading=title,
            sentence=sentence,
            picture=Markup(quote(f"{stem}.jpg")),
            head=Markup(quote(address, safe="/.#?=&")),
            style=style,
            script=script,
            made=made_by(atlas.manifest, short_name(atlas.encoder.name)),
            linked=_shared(sentence, f"{stem}.jpg", f"{stem}.html", url),
        )
        pages.append(HeadPage(str(score.site), stem, html, head_picture(atlas, reading, score, picture_title)))
    return pages


def _shared(sentence: str, picture: str, page: str, url: str) -> Mapping[str, Any]:
    return {
        "description": sentence,
        "image": f"{url}{quote(picture)}",
        "image_size": SIZE,
        "image_alt": "The input, its reconstruction, the head's picture and its control",
        "address": f"{url}{quote(page)}" if url else "",
    }


def _sentence(score: SiteScore, lens: LensName, place: int, heads: int, reading: Reading) -> str:
    control = "" if score.control is None else f", its control {two(score.control)}"
    return (
        f"Number {place + 1} of {heads} heads under the {LENSES[lens]}: similarity {two(score.similarity)} with "
        f"{target_words(reading)}{control}."
    )
