"""Options of decoding: complete ones, and those that replace a decoder's own. Imports nothing heavy."""

import math
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

from steerlens.errors import UsageError
from steerlens.limits import over_limit
from steerlens.option_types import convert_options

SchedulerName = Literal["ddpm", "ddim", "dpm++", "unipc", "pndm", "euler"]


@dataclass(frozen=True)
class DecodeOptions:
    """Options of decoding, complete.

    Attributes:
        steps: denoising steps; 1 for decoders that take one pass, which ignore it.
        guidance: classifier-free guidance scale; 1 or less for none.
        scheduler: the sampler; `none` for decoders that denoise nothing, which ignore it.
        size: height and width in pixels.
        batch_size: pictures decoded at once; None lets the decoder choose.
        guidance_interval: shares of the steps, from noise (0) to picture (1), between which there is guidance; the
            steps outside cost half.
        preview: skip the autoencoder and show only the latents' colours, if the decoder can (`previews`).
    """

    steps: int
    guidance: float
    scheduler: SchedulerName | Literal["none"]
    size: tuple[int, int]
    batch_size: int | None = None
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    preview: bool = False

    def __post_init__(self) -> None:
        convert_options(self)
        if self.steps < 1:
            raise UsageError(f"at least 1 denoising step is needed, not {self.steps}.")
        if words := over_limit("steps", self.steps):
            raise UsageError(f"a decoder was to take {words}.")
        if not math.isfinite(self.guidance):
            raise UsageError(f"guidance is a finite number, not {self.guidance}.")
        if min(self.size) < 1:
            raise UsageError(f"height and width are at least 1 pixel, not {self.size}.")
        if words := over_limit("decoded_pixels", self.size[0] * self.size[1]):
            raise UsageError(f"a picture was to be decoded of {words}.")
        if self.batch_size is not None and self.batch_size < 1:
            raise UsageError(f"a batch holds at least 1 picture, not {self.batch_size}.")
        start, stop = self.guidance_interval
        if not 0 <= start <= stop <= 1:
            raise UsageError(f"a guidance interval is two shares of the steps, such as 0 0.8, not {start:g} {stop:g}.")

    def guided(self, step: int) -> bool:
        """True if there is guidance in a step, counted from 0."""
        start, stop = self.guidance_interval
        return self.guidance > 1 and start <= step / self.steps < stop

    @property
    def passes(self) -> int:
        """Returns the passes of the network for one picture: one per step, two under guidance."""
        return self.steps + sum(self.guided(step) for step in range(self.steps))

    def decisive(self) -> dict[str, Any]:
        """Returns the options that decide the pictures, all but the batch size; they identify runs and studies."""
        # Options added later are left out at their defaults, so that runs of earlier versions resume.
        left_out = {"batch_size"} | ({"preview"} if not self.preview else set[str]())
        return {name: value for name, value in asdict(self).items() if name not in left_out}


@dataclass(frozen=True)
class DecodeOverrides:
    """Options that replace a decoder's own; None, or no preview, keeps the decoder's."""

    steps: int | None = None
    """Denoising steps. Default: what suits the model."""

    guidance: float | None = None
    """Classifier-free guidance scale; 1 for none. Default: what suits the model."""

    guidance_interval: tuple[float, float] | None = None
    """Shares of the steps, from noise (0) to picture (1), between which there is guidance; steps outside cost half.
    For example 0 0.6. Default: all steps."""

    scheduler: SchedulerName | None = None
    """The sampler. Default: what suits the model."""

    preview: bool = False
    """Show the colours of the latents and leave the autoencoder out, which at the paper's size costs as much as two
    passes of the network: blurred pictures, for a first look in a hurry. Rankings by them agree only in part with those
    by full pictures: docs/benchmarks.md has their rank correlation."""

    batch_size: int | None = None
    """Pictures decoded at once. Default: what suits the device."""

    def over(self, defaults: DecodeOptions) -> DecodeOptions:
        """Returns a decoder's own options, replaced by these.

        Raises:
            UsageError: if an option is out of range.
        """
        given = {field.name: getattr(self, field.name) for field in fields(DecodeOverrides)}
        if not self.preview:
            del given["preview"]
        return replace(defaults, **{name: value for name, value in given.items() if value is not None})
