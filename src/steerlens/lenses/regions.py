"""Regions: writes of heads split by the tokens they were read from, steered like any component.

A head's write on a readout token r is a sum over the tokens t that it attends to, so a region, a share `w_t` of every
token, has an exact part of it:

    h = Σ_t A_rt v_t W_O           h[w] = Σ_t w_t A_rt v_t W_O           h[w] + h[1 - w] = h

The part says where the head read, not where the content came from: attention in earlier layers has mixed the tokens.

References: Y. Gandelsman et al., "Interpreting CLIP's Image Representation via Text-Based Decomposition",
arXiv 2310.05916 (the decomposition over tokens).
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from steerlens.encoders import EncoderSpec
from steerlens.errors import UsageError
from steerlens.images import load_picture
from steerlens.sites import Site, parse_sites
from steerlens.trace import Trace, read_from_tokens


class Area(Protocol):
    """A part of the picture, or of the tokens that are not patches."""

    def __str__(self) -> str:
        """Returns a short name of letters, digits, '.', '_' and '-', distinct between areas."""
        ...

    def weights(self, spec: EncoderSpec) -> Float[Tensor, "T"]:
        """Returns the share of every token that belongs to the area, in [0,1].

        Raises:
            UsageError: if the encoder's input has no such part.
        """
        ...


@dataclass(frozen=True)
class Box:
    """A box in pixels of the encoder's input, after scaling and cropping; right and bottom excluded.

    A patch that the box covers in part belongs to it by that share.
    """

    left: int
    top: int
    right: int
    bottom: int

    def __str__(self) -> str:
        return f"{self.left}-{self.top}-{self.right}-{self.bottom}"

    def weights(self, spec: EncoderSpec) -> Float[Tensor, "T"]:
        """Returns the share of each patch that lies in the box."""
        height, width = spec.image_size
        if not (0 <= self.left < self.right <= width and 0 <= self.top < self.bottom <= height):
            raise UsageError(
                f"the box {self.left},{self.top},{self.right},{self.bottom} is not in the picture: write "
                f"left,top,right,bottom in pixels of what the encoder sees, {width} x {height}."
            )
        mask = torch.zeros(height, width)
        mask[self.top : self.bottom, self.left : self.right] = 1
        return mask_weights(mask, spec)


@dataclass(frozen=True)
class Patches:
    """Rows and columns of image patches, counted from 0, last ones included."""

    rows: tuple[int, int]
    columns: tuple[int, int]

    def __str__(self) -> str:
        return "patches.{}-{}.{}-{}".format(*self.rows, *self.columns)

    def weights(self, spec: EncoderSpec) -> Float[Tensor, "T"]:
        """Returns 1 for the patches in these rows and columns, 0 elsewhere."""
        grid = torch.zeros(spec.patch_grid)
        for name, (first, last), count in zip(
            ("rows", "columns"), (self.rows, self.columns), spec.patch_grid, strict=True
        ):
            if not 0 <= first <= last < count:
                raise UsageError(f"there are no {name} {first} to {last} of patches: the encoder has 0 to {count - 1}.")
        grid[self.rows[0] : self.rows[1] + 1, self.columns[0] : self.columns[1] + 1] = 1
        return _on_tokens(grid, spec)


@dataclass(frozen=True, eq=False)
class Mask:
    """A share of every pixel, as a grey picture of the same shape as the input: white is inside, black outside.

    Attributes:
        image: the mask; preprocessing moves its pixels like those of its picture.
        name: name of the mask.
    """

    image: Image.Image
    name: str

    def __str__(self) -> str:
        digest = hashlib.sha256(f"{self.image.size}".encode() + self.image.convert("L").tobytes()).hexdigest()
        return f"{re.sub(r'[^0-9A-Za-z_-]+', '-', self.name)[:40]}-{digest[:8]}"

    def weights(self, spec: EncoderSpec) -> Float[Tensor, "T"]:
        """Returns the mean of the mask over each patch."""
        mask = torch.from_numpy(np.asarray(self.image.convert("L"), dtype=np.float32) / 255)
        shares = spec.view(self.image.size).patch_means(mask, spec.patch_grid)
        if not bool(shares.any()):
            raise UsageError(f"the mask {self.name} is black everywhere that the encoder sees: it marks nothing.")
        return _on_tokens(shares, spec)


@dataclass(frozen=True)
class Token:
    """One token by its number; the class token and registers, if any, come first."""

    number: int

    def __str__(self) -> str:
        return f"token.{self.number}"

    def weights(self, spec: EncoderSpec) -> Float[Tensor, "T"]:
        """Returns 1 for that token, 0 elsewhere.

        Raises:
            UsageError: if there is no token of that number.
        """
        if not 0 <= self.number < spec.n_tokens:
            raise UsageError(f"there is no token {self.number}: {spec.name} has tokens 0 to {spec.n_tokens - 1}.")
        return torch.nn.functional.one_hot(torch.tensor(self.number), spec.n_tokens).float()


@dataclass(frozen=True)
class SpecialTokens:
    """The tokens that are not patches: the class token and registers."""

    def __str__(self) -> str:
        return "cls"

    def weights(self, spec: EncoderSpec) -> Float[Tensor, "T"]:
        """Returns 1 for tokens that are not patches, 0 for patches."""
        weights = 1 - _on_tokens(torch.ones(spec.patch_grid), spec)
        if not bool(weights.any()):
            raise UsageError(f"{spec.name} has no token besides its image patches.")
        return weights


@dataclass(frozen=True)
class Outside:
    """The complement of another area, class token and registers included."""

    area: Area

    def __str__(self) -> str:
        return f"outside.{self.area}"

    def weights(self, spec: EncoderSpec) -> Float[Tensor, "T"]:
        """Returns one minus the other area's share."""
        return 1 - self.area.weights(spec)


@dataclass(frozen=True, eq=False)
class RegionPart:
    """The part of heads' writes that was read from an area, as one component.

    Attributes:
        heads: the heads, whose parts are added.
        area: the area that they read.
    """

    heads: tuple[Site, ...]
    area: Area

    def __post_init__(self) -> None:
        if not self.heads:
            raise UsageError("a region needs a head that reads from it.")
        for site in self.heads:
            if site.kind != "head":
                raise UsageError(f"{site}: only a head reads from other tokens; name heads, such as L3H4 or head.3.*.")

    @property
    def kind(self) -> Literal["region"]:
        """The kind of its named site."""
        return "region"

    @property
    def identity(self) -> str:
        """A text that is equal for equal parts of one encoder."""
        return f"{','.join(map(str, self.heads))}:{self.area}"

    def check(self, spec: EncoderSpec) -> None:
        """Checks that an encoder has such heads and such an area.

        Raises:
            UsageError: if it does not.
        """
        for site in self.heads:
            site.check(spec.n_layers, spec.n_heads)
        self.area.weights(spec)

    def write(self, spec: EncoderSpec, trace: Trace) -> Float[Tensor, "B R D"]:
        """Sums the parts of the heads' writes that were read from the area.

        Raises:
            UsageError: if there is no such head or area, or the trace was taken without attention.
        """
        self.check(spec)
        weights = self.area.weights(spec)
        return torch.stack([token_part(trace, site, weights) for site in self.heads]).sum(dim=0)


def token_part(trace: Trace, site: Site, weights: Float[Tensor, "T"]) -> Float[Tensor, "B R D"]:
    """Computes the part of a head's write read from some tokens: the weighted sum of `Trace.token_writes`.

    Raises:
        UsageError: if the site is no head, or the trace was taken without attention.
    """
    if site.kind != "head":
        raise UsageError(f"{site}: only a head's write can be split by the tokens it reads from.")
    site.check(trace.n_layers, trace.n_heads)
    if weights.shape != trace.attention.shape[-1:]:
        raise UsageError(f"{weights.numel()} weights do not fit the {trace.attention.shape[-1]} tokens of the trace.")
    pattern, values = (part[:, site.layer, site.head].float() for part in (trace.attention, trace.values))
    affine = (trace.value_scale, trace.value_shift)
    scale, shift = (None if part is None else part[:, site.layer, site.head].float() for part in affine)
    read = read_from_tokens(weights, pattern, values, scale, shift)
    return read @ trace.out_weights[site.layer][site.head].float()


def mask_weights(mask: Float[Tensor, "height width"], spec: EncoderSpec) -> Float[Tensor, "T"]:
    """Averages a mask over each patch; tokens that are not patches get 0.

    Args:
        mask: shares in [0,1], one per pixel of the encoder's input.
        spec: the encoder's sizes.

    Raises:
        UsageError: if the mask does not have the size of the encoder's input.
    """
    if tuple(mask.shape) != tuple(spec.image_size):
        raise UsageError(f"a mask of {tuple(mask.shape)} pixels does not fit the {spec.image_size} that are seen.")
    (rows, columns), (height, width) = spec.patch_grid, spec.image_size
    down, across = height // rows, width // columns
    # Patch embeddings are convolutions without padding, which ignore the remainder at the right and at the bottom.
    cut = mask[: rows * down, : columns * across].float()
    return _on_tokens(cut.reshape(rows, down, columns, across).mean(dim=(1, 3)), spec)


def _on_tokens(grid: Float[Tensor, "rows columns"], spec: EncoderSpec) -> Float[Tensor, "T"]:
    weights = torch.zeros(spec.n_tokens)
    weights[spec.first_patch : spec.first_patch + grid.numel()] = grid.flatten()
    return weights


_BOX = re.compile(r"(\d{1,6}),(\d{1,6}),(\d{1,6}),(\d{1,6})")
_PATCHES = re.compile(r"patches=(\d{1,6})(?:-(\d{1,6}))?,(\d{1,6})(?:-(\d{1,6}))?")


def parse_area(text: str) -> Area:
    """Reads an area: `8,8,40,40` (box), `patches=2-4,0-3` (rows, columns), `cls`, a mask's path, `outside=AREA`.

    Raises:
        UsageError: if the text is no area.
        PictureError: if it names a file that is no picture.
    """
    text = text.strip()
    if text.startswith("outside="):
        return Outside(parse_area(text.removeprefix("outside=")))
    if match := _BOX.fullmatch(text):
        left, top, right, bottom = map(int, match.groups())
        return Box(left, top, right, bottom)
    if match := _PATCHES.fullmatch(text):
        top, bottom, left, right = match.groups()
        return Patches((int(top), int(bottom or top)), (int(left), int(right or left)))
    if text == "cls":
        return SpecialTokens()
    if Path(text).suffix.lower() in Image.registered_extensions():
        return Mask(load_picture(text).image, Path(text).stem)
    raise UsageError(
        f"{text!r} is no region: write left,top,right,bottom in pixels, patches=ROWS,COLUMNS such as patches=2-4,0-3, "
        "cls for the class token and registers, a mask picture's file name, or outside= before one of these."
    )


def parse_tokens(text: str) -> Area | None:
    """Reads the tokens to steer: `all` (None), a number such as `17`, or an area for `parse_area` (`8,8,40,40`).

    Raises:
        UsageError: if the text is none of these.
        PictureError: if it names a file that is no picture.
    """
    text = text.strip()
    if text == "all":
        return None
    if text.isascii() and text.isdigit() and len(text) <= 9:
        return Token(int(text))
    try:
        return parse_area(text)
    except UsageError:
        raise UsageError(
            f"{text!r} names no tokens to write to: write all, the number of one token, left,top,right,bottom in "
            "pixels, patches=ROWS,COLUMNS such as patches=2-4,0-3, cls, a mask picture's file name, or outside= before "
            "one of these."
        ) from None


def parse_regions(texts: Sequence[str], n_layers: int, n_heads: int) -> dict[str, RegionPart]:
    """Reads `HEADS:AREA` or `NAME=HEADS:AREA`, for example `L7H3:8,8,40,40` or `beak=head.6-7.*:beak.png`.

    Raises:
        UsageError: if a text has another form, there is no such head, or two regions have one name.
        PictureError: if a mask cannot be read.
    """
    parts: dict[str, RegionPart] = {}
    for text in texts:
        heads, colon, place = text.partition(":")
        if not colon:
            raise UsageError(f"{text!r} names no region; write HEAD:REGION, such as L7H3:8,8,40,40.")
        name, equals, pattern = heads.rpartition("=")
        if equals and not name.strip():
            raise UsageError(f"{text!r} has no name before =; write NAME={pattern}:{place}, or leave out the =.")
        part = RegionPart(parse_sites(pattern, n_layers, n_heads), parse_area(place))
        name = name.strip() or f"{_short(pattern)}.{part.area}"
        if name in parts:
            raise UsageError(f"two regions are called {name!r}; name one of them: NAME={pattern}:{place}.")
        Site("region", name=name)  # refuses a name that cannot be one
        parts[name] = part
    return parts


def _short(pattern: str) -> str:
    return re.sub(r"[^0-9A-Za-z_.-]+", "_", pattern.strip().replace("*", "all"))
