"""Recipes: the options behind a view, and the command and the Python code that reproduce it.

The explorer, its saved runs, the copied command and the copied code all take these options, so they agree.
"""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from PIL import Image

from steerlens.app.inputs import InputPicture
from steerlens.app.models import OpenAutoencoder, OpenModel
from steerlens.app.view import View
from steerlens.atlas import Cell, LensName, Plan, clean_site
from steerlens.encoders import EncoderSpec
from steerlens.errors import UsageError
from steerlens.images import png_bytes
from steerlens.lenses import Area, Direction, Group, Mask, Patches, RegionPart
from steerlens.saes import SparseAutoencoder
from steerlens.sites import SAE_KINDS, UNIT_KINDS, Site
from steerlens.sweep import LookOptions

GROUP, ABLATED, REGION = "group", "ablated", "region"
"""Names of the components that a visitor makes."""

MASK_FILE = "region.png"
"""File of a painted region that is no rectangle."""


@dataclass(frozen=True, eq=False)
class Recipe:
    """A view resolved against a model: sites, components and options of a sweep.

    Attributes:
        view: the view.
        model: its model.
        picture: its input picture.
    """

    view: View
    model: OpenModel
    picture: InputPicture

    @property
    def spec(self) -> EncoderSpec:
        """Sizes of the encoder."""
        return self.model.pair.encoder.spec

    @property
    def is_clean(self) -> bool:
        """True if the view names no component: it then shows the clean reconstruction."""
        return not self.view.sites

    @cached_property
    def members(self) -> tuple[Site, ...]:
        """Sites of the component, checked against the encoder."""
        sites = tuple(dict.fromkeys(Site.parse(site) for site in self.view.sites))
        return tuple(site.check(self.spec.n_layers, self.spec.n_heads) for site in sites)

    @cached_property
    def autoencoder(self) -> OpenAutoencoder | None:
        """The autoencoder that the component is a part of, or None.

        Raises:
            UsageError: if it is not open, has no such feature, or the component mixes it with other parts.
        """
        named = [site for site in self.members if site.kind in (*UNIT_KINDS, *SAE_KINDS)]
        if not named:
            return None
        if len(self.members) > 1:
            raise UsageError(
                f"{named[0].label} cannot be steered or ablated together with other parts: features and neurons are "
                "taken one at a time. Leave it out of the group; to compare, look at each alone and pin both views."
            )
        site = named[0]
        if site.kind not in SAE_KINDS:
            return None
        known = self.model.autoencoders
        if site.name not in known:
            listed = f"open are {', '.join(known)}" if known else "start steerlens app with --sae FOLDER"
            raise UsageError(f"no sparse autoencoder called {site.name!r} is open; {listed}.")
        if site.kind == "feature":
            known[site.name].sae.check_site(site)
        return known[site.name]

    @property
    def saes(self) -> tuple[SparseAutoencoder, ...]:
        """The autoencoder of the component, for a sweep."""
        return () if self.autoencoder is None else (self.autoencoder.sae,)

    @property
    def is_unit(self) -> bool:
        """True if the component is a neuron or a part of an autoencoder."""
        return self.site.kind in ("neuron", *SAE_KINDS)

    @cached_property
    def site(self) -> Site:
        """The site of the cell: a site of the model, or the name of a group or region."""
        if self.is_clean:
            source = self.model.pair.decoder.spec.tokens
            return clean_site(self.spec.n_layers if source is None else source.last_layer(self.spec.n_layers) + 1)
        if self.view.patches:
            return Site("region", name=REGION)
        if len(self.members) == 1:
            return self.members[0]
        return Site("group", name=ABLATED if self.view.lens == "ablation" else GROUP)

    @cached_property
    def area(self) -> Area | None:
        """The painted region: rows and columns of patches if it is a rectangle, else a mask; None if there is none."""
        if not self.view.patches:
            return None
        rows, columns = self.spec.patch_grid
        painted = np.zeros((rows, columns), dtype=bool)
        for patch in self.view.patches:
            if patch >= rows * columns:
                raise UsageError(f"there is no patch {patch}: the encoder has {rows} x {columns} patches.")
            painted[patch // columns, patch % columns] = True
        down, across = np.flatnonzero(painted.any(axis=1)), np.flatnonzero(painted.any(axis=0))
        inside = painted[down[0] : down[-1] + 1, across[0] : across[-1] + 1]
        if inside.all():
            return Patches((int(down[0]), int(down[-1])), (int(across[0]), int(across[-1])))
        return Mask(self._mask(painted), REGION)

    def _mask(self, painted: np.ndarray) -> Image.Image:
        """A grey picture of the input's size, white in the painted patches."""
        size = self.picture.picture.image.size
        view = self.spec.view(size)
        down, across = (side // count for side, count in zip(view.window, self.spec.patch_grid, strict=True))
        mask = np.zeros((size[1], size[0]), dtype=np.uint8)
        for row, column in zip(*np.nonzero(painted), strict=True):
            left, top = view.to_picture(float(column * across), float(row * down))
            right, bottom = view.to_picture(float((column + 1) * across), float((row + 1) * down))
            edges = [max(round(edge), 0) for edge in (top, bottom, left, right)]
            mask[edges[0] : max(edges[1], edges[0] + 1), edges[2] : max(edges[3], edges[2] + 1)] = 255
        return Image.fromarray(mask)

    @cached_property
    def directions(self) -> Mapping[str, Direction]:
        """Directions, group or region behind a named site."""
        if self.site.kind == "vector":
            if self.site.name not in self.model.vectors:
                raise UsageError(f"no direction is called {self.site.name!r}.")
            return {self.site.name: self.model.vectors[self.site.name]}
        if self.site.kind == "region" and self.area is not None:
            return {REGION: RegionPart(self.members, self.area)}
        return {self.site.name: Group(self.members)} if self.site.kind == "group" else {}

    @cached_property
    def options(self) -> LookOptions:
        """Options of the sweep that contains the view's cell."""
        view, named = self.view, self.site.kind in ("vector", "group", "region")
        given = LookOptions(
            sites="" if named else str(self.site),
            seed=view.seed,
            steps=view.steps,
            guidance=view.guidance,
            n_labels=5,
        )
        if view.lens == "diffusion" or self.is_clean:
            return replace(given, lenses=("diffusion",))
        real = view.lens in ("total", "ablation")
        if real and named and self.site.kind == "vector":
            raise UsageError(
                "the total effect of a direction depends on where it is added: see steerlens lens --vector-at. The "
                "Steering Lens shows its direct effect, which is the same wherever it is added."
            )
        return replace(
            given,
            lenses=("steering",),
            strength=None if view.lens == "ablation" else view.strength,
            controls=view.draw + 1,
            effect="total" if real else "direct",
        )

    def cell(self, plan: Plan) -> Cell:
        """The view's cell among those of its plan.

        Raises:
            UsageError: if the lens does not show this component.
        """
        lens: LensName = "diffusion" if self.is_clean else self.view.lens
        for cell in plan.of(plan.pictures[0]):
            if cell.site == self.site and cell.lens == lens and (lens != "control" or cell.draw == self.view.draw):
                return cell
        raise UsageError(f"the {lens} lens does not show {self.site.label}.")

    @property
    def mask_file(self) -> bytes:
        """Bytes of the mask that the copied command reads; empty if the region is a rectangle or there is none."""
        return png_bytes(self.area.image) if isinstance(self.area, Mask) else b""

    def component_options(self, mask: str) -> Mapping[str, str]:
        """Options `group` and `region` of the command line.

        Args:
            mask: path of the mask's file, if there is one.
        """
        listed = ",".join(map(str, self.members))
        if self.site.kind == "group":
            return {"group": f"{self.site.name}={listed}"}
        if self.site.kind == "region":
            return {"region": f"{REGION}={listed}:{_area_text(self.area, mask)}"}
        return {}


def _area_text(area: Area | None, mask: str) -> str:
    if isinstance(area, Patches):
        return f"patches={_range(area.rows)},{_range(area.columns)}"
    return mask


def _range(ends: tuple[int, int]) -> str:
    return f"{ends[0]}-{ends[1]}" if ends[0] != ends[1] else str(ends[0])


def _autoencoder_words(opened: OpenAutoencoder) -> list[str]:
    given = {"--sae-site": opened.site, "--sae-activation": opened.activation}
    named = opened.source if opened.is_named_by_source else f"{opened.sae.name}={opened.source}"
    words = ["--sae", named]
    return words + [word for name, value in given.items() if value is not None for word in (name, value)]


def _autoencoder_code(opened: OpenAutoencoder) -> str:
    name = None if opened.is_named_by_source else opened.sae.name
    given = {"name": name, "site": opened.site, "activation": opened.activation}
    arguments = [repr(opened.source), *(f"{name}={value!r}" for name, value in given.items() if value is not None)]
    return f"sl.load_sae({', '.join(arguments)})"


def as_command(recipe: Recipe, picture: str, *, target: str = "", mask: str = MASK_FILE, out: str = "") -> str:
    """The command that reproduces a view, as a line for a shell.

    Args:
        recipe: the view.
        picture: path of the input picture, or `sample`.
        target: path of the target picture, if the target is a picture.
        mask: path of the mask of a painted region.
        out: run directory to write or resume; by default the command's own.
    """
    options, model = recipe.options, recipe.model
    words = ["steerlens", "lens", picture]
    for name, value in model.arguments.items():
        words += [f"--{name.replace('_', '-')}", value]
    words += ["--sites", options.sites, "--lens", *options.lenses]
    for name, value in recipe.component_options(mask).items():
        words += [f"--{name}", value]
    if recipe.site.kind == "vector" and model.vector_file is not None:
        words += ["--vector", str(model.vector_file)]
    if recipe.autoencoder is not None:
        words += _autoencoder_words(recipe.autoencoder)
    if options.strength is not None:
        words += ["--strength", options.strength]
    if options.effect != "direct":
        words += ["--effect", str(options.effect)]
    if "steering" in options.lenses and options.controls != 1:
        words += ["--controls", str(options.controls)]
    if target or recipe.view.target:
        words.append(f"--target={target or recipe.view.target}")
    if model.vocabulary_file is not None:
        words += ["--vocabulary", str(model.vocabulary_file)]
    for name in ("seed", "steps", "guidance"):
        value = getattr(options, name)
        if value not in (None, LookOptions.seed if name == "seed" else None):
            words += [f"--{name}", f"{value:g}" if isinstance(value, float) else str(value)]
    if out:
        words += ["--out", out]
    return " ".join(shlex.quote(word) if word else "''" for word in words)


def as_python(recipe: Recipe, picture: str, *, target: str = "", mask: str = MASK_FILE) -> str:
    """Python code that reproduces a view; arguments as in `as_command`."""
    options, model, view = recipe.options, recipe.model, recipe.view
    loading = {name: value for name, value in model.arguments.items() if name != "model"}
    arguments = [
        repr(model.arguments.get("model", model.name)),
        *(f"{key}={value!r}" for key, value in loading.items()),
    ]
    lines = ["from pathlib import Path", "", "import steerlens as sl"]
    components = recipe.component_options(mask)
    given = [f"sites={options.sites!r}", f"lenses={options.lenses!r}"]
    if components:
        lines.append("from steerlens.lenses import named_components")
    elif recipe.site.kind == "vector":
        lines.append("from steerlens.lenses import load_directions")
    lines += ["", f"pair = sl.load({', '.join(arguments)})"]
    lines.append(f"picture = {'sl.sample_picture()' if picture == 'sample' else f'sl.load_picture({picture!r})'}")
    if components:
        lists = ", ".join(repr([components[name]] if name in components else []) for name in ("group", "region"))
        lines.append("spec = pair.encoder.spec")
        lines.append(f"components = named_components({lists}, spec.n_layers, spec.n_heads)")
        given.append("directions=components")
    elif recipe.site.kind == "vector":
        lines.append(f"vectors = load_directions(Path({str(model.vector_file)!r}))")
        given.append(f"directions={{{recipe.site.name!r}: vectors[{recipe.site.name!r}]}}")
    if recipe.autoencoder is not None:
        given.append(f"saes=[{_autoencoder_code(recipe.autoencoder)}]")
    choices = {name: getattr(options, name) for name in ("strength", "steps", "guidance")}
    given += [f"{name}={value!r}" for name, value in choices.items() if value is not None]
    if options.effect != "direct":
        given.append(f"effect={options.effect!r}")
    if "steering" in options.lenses and options.controls != 1:
        given.append(f"controls={options.controls}")
    if options.seed:
        given.append(f"seed={options.seed}")
    if target:
        given.append(f"target=sl.load_picture({target!r})" if target != "sample" else "target=sl.sample_picture()")
    elif view.target:
        given.append(f"target={view.target!r}")
    if model.vocabulary_file is not None:
        given.append(f"vocabulary={str(model.vocabulary_file)!r}")
    lens = "diffusion" if recipe.is_clean else view.lens
    lines += [
        "atlas = sl.look(",
        "    pair,",
        "    picture,",
        *(f"    {argument}," for argument in given),
        ")",
        f"result = atlas.cells({lens!r}, {str(recipe.site)!r})[{view.draw if lens == 'control' else 0}]",
        "print(result.similarity, result.fidelity)",
        'Path("view.png").write_bytes(result.png)',
    ]
    return "\n".join(lines) + "\n"
