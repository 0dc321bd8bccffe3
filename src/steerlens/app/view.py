"""Views: what a visitor of the explorer looks at, as one value that a browser sends and a command reproduces.

A view names an input, a component (a site, a group of sites, or what heads read from a painted region), a lens with
its strength, the target of similarities, and the options of the decoder. Imports nothing heavy.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, cast, get_args

from steerlens.errors import UsageError

ViewLens = Literal["steering", "diffusion", "total", "ablation", "control"]
"""Lenses of the explorer. `control` steers along a random direction as hard as the component."""

MAX_TEXT = 300
"""Most characters of a text that a view holds: a target, a name, a site."""

MAX_MEMBERS = 4096
"""Most members of a group, and most painted patches."""

_SITE = re.compile(
    r"(?:head\.\d{1,4}\.\d{1,4}|(?:attn_out|mlp_out|resid_pre|resid_mid|resid_post)\.\d{1,4}|vector\..+"
    r"|neuron\.\d{1,4}\.\d{1,9}|feature\.[\w.-]+\.\d{1,9}|(?:error|bias)\.[\w.-]+)"
)
_STRENGTH = re.compile(r"(?:rho|s)=-?\d{1,6}(?:\.\d{1,12})?(?:e-?\d{1,2})?")
_MAX_SEED = 2**53 - 1  # the largest whole number that a browser holds exactly


@dataclass(frozen=True)
class View:
    """View on the page: input, site, lens, strength, seed and target.

    Attributes:
        input: id of the input picture.
        model: name of the model among those that are open; empty for the first.
        site: the component, as the text form of a site; empty if `members` are given instead.
        members: sites of a group that is steered as one, or the heads that are ablated together.
        patches: painted patches, counted row by row from 0; the heads of the view then show what they read there.
        lens: the lens.
        strength: steering strength, `rho=1` or `s=40`; unused by the Diffusion Lens and by ablations.
        seed: seed of the decoder.
        draw: number of the random direction of a control, from 0.
        steps: denoising steps; None for the model's own.
        guidance: guidance scale; None for the model's own.
        target: a text that similarities refer to; empty for none.
        target_input: id of the picture that similarities refer to; empty for the input itself.
    """

    input: str
    model: str = ""
    site: str = ""
    members: tuple[str, ...] = ()
    patches: tuple[int, ...] = ()
    lens: ViewLens = "steering"
    strength: str = "rho=1"
    seed: int = 0
    draw: int = 0
    steps: int | None = None
    guidance: float | None = None
    target: str = ""
    target_input: str = ""

    def __post_init__(self) -> None:
        for name in ("input", "model", "site", "strength", "target", "target_input"):
            _check_text(name, getattr(self, name))
        if self.lens not in get_args(ViewLens):
            raise UsageError(f"there is no lens {self.lens!r}; known are {', '.join(get_args(ViewLens))}.")
        for site in filter(None, (self.site, *self.members)):
            if not _SITE.fullmatch(site):
                raise UsageError(
                    f"{site!r} is no site that the explorer shows; write head.3.4, mlp_out.3, attn_out.3, "
                    "neuron.3.7 or feature.NAME.7."
                )
        if not _STRENGTH.fullmatch(self.strength):
            raise UsageError(f"{self.strength!r} is not a strength; write rho=1 or s=40.")
        if not 0 <= self.seed <= _MAX_SEED:
            raise UsageError(f"seeds are whole numbers from 0 to {_MAX_SEED}, not {self.seed}.")
        if not 0 <= self.draw < 100:
            raise UsageError(f"draws of random directions are counted from 0 to 99; {self.draw} is none of them.")
        if self.steps is not None and not 1 <= self.steps <= 1000:
            raise UsageError(f"the explorer takes 1 to 1000 denoising steps, not {self.steps}.")
        if self.guidance is not None and not 0 <= self.guidance <= 100:
            raise UsageError(f"the explorer takes a guidance scale from 0 to 100, not {self.guidance:g}.")
        if max(len(self.members), len(self.patches)) > MAX_MEMBERS:
            raise UsageError(f"a view holds at most {MAX_MEMBERS} members or patches.")
        if any(patch < 0 for patch in self.patches):
            raise UsageError("patches are counted from 0.")
        if self.target and self.target_input:
            raise UsageError("the target is a text or a picture, not both.")

    @property
    def sites(self) -> tuple[str, ...]:
        """Text forms of the sites that the component consists of."""
        return (self.site,) if self.site else self.members

    def clean(self) -> "View":
        """The view of the clean reconstruction, with the same input, target and decoder."""
        return replace(self, site="", members=(), patches=(), lens="diffusion")

    @classmethod
    def from_json(cls, value: object) -> "View":
        """Reads a view that a browser sent.

        Raises:
            UsageError: if a field is unknown, missing, or of another type.
        """
        content = json_object(value, "a view")
        known = {field.name: field for field in fields(cls)}
        if unknown := sorted(set(content) - set(known)):
            raise UsageError(f"a view has no field {unknown[0][:40]!r}; it has {', '.join(known)}.")
        if not isinstance(content.get("input"), str):
            raise UsageError("a view names its input picture.")
        return cls(**{name: _READERS[name](name, given) for name, given in content.items()})

    def to_json(self) -> dict[str, Any]:
        """The fields that differ from their defaults, as JSON values; `from_json` reads them back."""
        values = {entry.name: (getattr(self, entry.name), entry.default) for entry in fields(self)}
        return {
            name: list(cast(Sequence[Any], value)) if isinstance(value, tuple) else value
            for name, (value, default) in values.items()
            if name == "input" or value != default
        }


@dataclass(frozen=True)
class LookRequest:
    """Request of a tab for pictures of a view.

    Attributes:
        view: the view.
        refine: True to follow the quick preview by the picture at full quality; False while a slider is dragged.
        strengths: further strengths to show beside it, each as a preview.
    """

    view: View
    refine: bool = True
    strengths: tuple[str, ...] = field(default=())

    @classmethod
    def from_json(cls, value: object) -> "LookRequest":
        """Reads a request that a browser sent.

        Raises:
            UsageError: if a field is unknown, missing, or of another type.
        """
        content = json_object(value, "a request")
        if unknown := sorted(set(content) - {"view", "refine", "strengths"}):
            raise UsageError(f"a request has no field {unknown[0][:40]!r}.")
        refine = content.get("refine", True)
        if not isinstance(refine, bool):
            raise UsageError("refine is true or false.")
        strengths = _texts("strengths", content.get("strengths", []))
        if len(strengths) > 16:
            raise UsageError("a strip shows at most 16 strengths.")
        view = View.from_json(content.get("view"))
        for strength in strengths:
            replace(view, strength=strength)  # refuses what is no strength
        return cls(view, refine, strengths)


@dataclass(frozen=True)
class UnitListRequest:
    """Which features or neurons a tab asks for.

    Attributes:
        view: the view, whose input, target and strength count.
        units: the name of an autoencoder, for its strongest features, or `neurons.LAYER`.
    """

    view: View
    units: str

    @classmethod
    def from_json(cls, value: object) -> "UnitListRequest":
        """Reads a request that a browser sent.

        Raises:
            UsageError: if a field is unknown, missing, or of another type.
        """
        content = json_object(value, "a request")
        if unknown := sorted(set(content) - {"view", "units"}):
            raise UsageError(f"a request has no field {unknown[0][:40]!r}.")
        units = _text("units", content.get("units"))
        _check_text("units", units)
        return cls(View.from_json(content.get("view")), units)


def json_object(value: object, what: str) -> Mapping[str, object]:
    """Returns a JSON object.

    Raises:
        UsageError: if the value is none.
    """
    if not isinstance(value, dict):
        raise UsageError(f"{what} is a JSON object.")
    return cast(Mapping[str, object], value)


def _check_text(name: str, text: str) -> None:
    if len(text) > MAX_TEXT:
        raise UsageError(f"{name} is longer than {MAX_TEXT} characters.")
    if any(ord(character) < 32 or 0xD800 <= ord(character) < 0xE000 for character in text):
        raise UsageError(f"{name} holds characters that are no text.")


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise UsageError(f"{name} is a text.")
    return value


def _texts(name: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise UsageError(f"{name} is a list of texts.")
    return tuple(_text(name, entry) for entry in cast(list[object], value))


def _whole(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise UsageError(f"{name} is a whole number.")
    return value


def _wholes(name: str, value: object) -> tuple[int, ...]:
    if not isinstance(value, list):
        raise UsageError(f"{name} is a list of whole numbers.")
    return tuple(_whole(name, entry) for entry in cast(list[object], value))


def _some_steps(name: str, value: object) -> int | None:
    return None if value is None else _whole(name, value)


def _some_number(name: str, value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise UsageError(f"{name} is a number.")
    return float(value)


_READERS: Mapping[str, Any] = {
    **dict.fromkeys(("input", "model", "site", "lens", "strength", "target", "target_input"), _text),
    **dict.fromkeys(("seed", "draw"), _whole),
    "members": _texts,
    "patches": _wholes,
    "steps": _some_steps,
    "guidance": _some_number,
}
