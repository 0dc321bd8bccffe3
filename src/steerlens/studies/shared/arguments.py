"""Command-line options that all studies share. Light to import: the command line needs it at once."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal

from steerlens.errors import UsageError


@dataclass(frozen=True)
class StudySettings:
    """Models, pictures and precision of a study."""

    model: str = "emoji"
    """Which pair of encoder and decoder: emoji (bundled), kandinsky-2.2 (the paper's), bridge:FOLDER,
    or a folder that holds one."""

    encoder: str | None = None
    """Another encoder: a hub id, a folder, open_clip:NAME/TAG or timm:NAME. With ?shape=WIDTHxHEIGHT after it, a model
    of pictures of any shape (NaFlex) sees that shape."""

    local: Path | None = None
    """A folder with the model's files in the hub's layout, in place of a download."""

    images: Path | None = None
    """A folder of pictures: concept/picture.jpg, or concept 1.jpg, concept 2.jpg."""

    data: Path | None = None
    """For the bundled pair: a data folder with prepared pictures (steerlens train prepare). The study shows scenes of
    its held-out pictures."""

    seed: int = 0
    """Seed of the choice of pictures, and first seed of the decoder."""

    steps: int | None = None
    """Denoising steps. Default: the model's own."""

    guidance: float | None = None
    """Guidance scale. Default: the model's own."""

    device: str | None = None
    """cpu, cuda or mps. Default: the fastest available."""

    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """Precision of the decoder. Default: depends on the device."""

    json: bool = False
    """Print the summary as JSON, and nothing else."""


@dataclass(frozen=True)
class StudyArguments:
    """Base of the command-line options of a study."""

    out: Path
    """Folder of the study."""

    settings: StudySettings = field(default_factory=StudySettings)

    dry_run: bool = False
    """Check all options and inputs, print what would be computed with estimates of time and memory, and stop."""


@dataclass(frozen=True)
class ComponentArguments(StudyArguments):
    """Base of the options of a study whose components are heads, features of a sparse autoencoder, or neurons."""

    sae: Path | None = None
    """Study features of this sparse autoencoder in place of heads: a folder or file of SAELens, ViT-Prisma or saev,
    or plain safetensors. A feature is ablated in the real forward pass: encode, change, decode, add the error back."""

    sae_site: str | None = None
    """Where the --sae reads, if its files do not say: resid_post.8, blocks.8.hook_resid_post, head.8.3."""

    sae_activation: str | None = None
    """Activation of the --sae, if its files do not say: relu, top_k:32 or batch_top_k:THRESHOLD."""

    sae_apply_b_dec: bool = False
    """Subtract the decoder's bias from the input of the --sae, if its files do not say. Tensors alone never do; the fit
    tells whether training did."""

    features: int = 48
    """Number of features of the --sae that are studied: those with the largest mean write on reference pictures."""

    neurons: int = 0
    """Study so many neurons of the MLPs in place of heads: those with the largest mean write on reference pictures."""


def refuse_unused(arguments: StudyArguments, names: Sequence[str], why: str) -> None:
    """Refuses options that were given and cannot have an effect; options at their defaults are not complained about.

    Args:
        arguments: the options of the command.
        names: names of the options without an effect.
        why: the reason, for the message.

    Raises:
        UsageError: if one of them differs from its default, naming all that do.
    """
    defaults = {field.name: field.default for field in fields(arguments)}
    given = [
        f"--{'no-' if getattr(arguments, name) is False else ''}{name.replace('_', '-')}"
        for name in names
        if getattr(arguments, name) != defaults[name]
    ]
    if given:
        raise UsageError(f"{', '.join(given)}: no effect, because {why}. Leave out what has no effect.")


def refuse_more(arguments: StudyArguments, name: str, available: int, what: str) -> None:
    """Refuses a number above what there is; a default may be above it, and takes all.

    Args:
        arguments: the options of the command.
        name: name of the option.
        available: the number that there is.
        what: what it counts, in the plural and with its owner, such as `heads in this encoder`.

    Raises:
        UsageError: if the option was given, and is above it.
    """
    default = next(field.default for field in fields(arguments) if field.name == name)
    given = getattr(arguments, name)
    if given is not None and given != default and given > available:
        raise UsageError(
            f"--{name.replace('_', '-')} {given}: there are only {available} {what}; give at most {available}, or "
            "leave the option out."
        )
