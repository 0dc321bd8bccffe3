"""`load_sae`: reads a sparse autoencoder, deciding by content which library wrote it."""

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from steerlens.borders import native_errors
from steerlens.errors import ModelError, UsageError
from steerlens.limits import is_special
from steerlens.saes.activations import Activation, BatchTopK, ReLU, TopK
from steerlens.saes.readers.overcomplete import (
    DictionaryNorm,
    is_overcomplete,
    read_overcomplete_module,
    read_overcomplete_tensors,
)
from steerlens.saes.readers.plain import read_plain
from steerlens.saes.readers.sae_lens import is_sae_lens, read_sae_lens
from steerlens.saes.readers.saev import is_saev, read_saev
from steerlens.saes.readers.shared import LIMIT, Given, as_place, name_of, space_of, state_dict
from steerlens.saes.readers.vit_prisma import is_vit_prisma, read_vit_prisma
from steerlens.saes.sae import SparseAutoencoder, TrainedOn
from steerlens.sites import SiteLike
from steerlens.storage import read_pytorch, read_safetensors

_WEIGHTS = ("*.safetensors", "*.pt", "*.pth")


_BUNDLED = Path(__file__).parent / "bundled"
"""Folder of the autoencoders that come with the package."""


def load_sae(
    source: str | Path | nn.Module | Mapping[str, Tensor],
    *,
    name: str | None = None,
    site: SiteLike | None = None,
    activation: Activation | str | None = None,
    trained_on: TrainedOn | None = None,
    apply_b_dec_to_input: bool | None = None,
    norm_factor: float | None = None,
    norm_mean: Float[Tensor, "D"] | None = None,
    dictionary_norm: DictionaryNorm | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> SparseAutoencoder:
    """Reads a sparse autoencoder of SAELens, ViT-Prisma, saev or Overcomplete, or plain tensors.

    Settings of the caller override those of the files.

    Args:
        source: a folder, a file, the name of a bundled one (`emoji-resid8`), a module of Overcomplete, or a state dict.
        name: its name in sites, `feature.NAME.i`; by default the name of the folder or file.
        site: where it reads, such as `resid_post.8` or `blocks.8.hook_resid_post`, or `embedding`; one of head values
            reads `blocks.8.attn.hook_z`.
        activation: `relu`, `top_k:K`, `batch_top_k:THRESHOLD`, or the activation itself.
        trained_on: tokens that it was trained on.
        apply_b_dec_to_input: whether `b_dec` is subtracted from the input of the encoder.
        norm_factor: factor of the input, where training scaled inputs by their mean norm.
        norm_mean: mean that training subtracted from the input before.
        dictionary_norm: normalisation of a dictionary of Overcomplete in a state dict.
        device: device of its weights.
        dtype: precision of its weights.

    Raises:
        UsageError: if there is no such path, or nothing names its site or activation.
        ModelError: if its files are damaged, incomplete, pickled, or hold what no reader knows.
    """
    path = _located(source) if isinstance(source, str | Path) else None
    given = Given(
        name or ("sae" if path is None else name_of(path)),
        None if site is None else as_place(site),
        parse_activation(activation) if isinstance(activation, str) else activation,
        trained_on,
        apply_b_dec_to_input,
        norm_factor,
        norm_mean,
        "head_values" if isinstance(site, str) and space_of(site) == "head_values" else None,
    )
    # Tensors of shapes that do not fit one another fail in torch, with an error of its own.
    with native_errors(f"{given.what}: it cannot be read"):
        if isinstance(source, nn.Module):
            sae = read_overcomplete_module(source, given)
        elif path is None:
            sae = _read_tensors(state_dict(source, given.what), given, dictionary_norm)
        else:
            sae = _read(path, given, dictionary_norm)
    return sae.to(device, dtype)


def _located(source: str | Path) -> Path:
    """Path of an autoencoder: as given, or of the bundled one of that name."""
    path = Path(source)
    bundled = {folder.name: folder for folder in _BUNDLED.iterdir() if folder.is_dir()}
    if path.exists():
        return path
    if str(source) in bundled:
        return bundled[str(source)]
    raise UsageError(
        f"there is no {path} to read a sparse autoencoder from; bundled with the package: {', '.join(sorted(bundled))}."
    )


def _read(path: Path, given: Given, dictionary_norm: DictionaryNorm | None) -> SparseAutoencoder:
    if path.is_dir():
        if is_sae_lens(path):
            return read_sae_lens(path, given)
        if is_vit_prisma(path, given.what):
            return read_vit_prisma(path, given)
        files = sorted(file for pattern in _WEIGHTS for file in path.glob(pattern))
        if len(files) != 1:
            has = f"several weight files ({', '.join(file.name for file in files)}) and no" if files else "no"
            raise ModelError(
                f"{given.what}: {path} holds {has} config: neither cfg.json (SAELens) nor config.json (ViT-Prisma). "
                "Restore it, or give the path of one file of weights."
            )
        return _read(files[0], given, dictionary_norm)
    if is_special(path):
        raise ModelError(f"{given.what}: {path} is not a regular file.")
    if is_saev(path):
        return read_saev(path, given)
    if path.suffix == ".safetensors":
        return _read_tensors(read_safetensors(path, given.what, LIMIT), given, dictionary_norm)
    if path.suffix not in (".pt", ".pth"):
        raise ModelError(
            f"{given.what}: {path} is not a file of a sparse autoencoder; give .safetensors or .pt. "
            "Pickles are not read: they can run code."
        )
    if is_vit_prisma(path.parent, given.what):
        return read_vit_prisma(path, given)
    tensors = state_dict(read_pytorch(path, given.what, LIMIT), given.what)
    return _read_tensors(tensors, given, dictionary_norm)


def _read_tensors(
    tensors: Mapping[str, Tensor], given: Given, dictionary_norm: DictionaryNorm | None
) -> SparseAutoencoder:
    if is_overcomplete(tensors):
        return read_overcomplete_tensors(tensors, given, dictionary_norm)
    return read_plain(tensors, given)


def parse_activation(text: str) -> Activation:
    """Reads an activation from its text form: `relu`, `top_k:32`, `batch_top_k:0.5` (the inference threshold).

    Raises:
        UsageError: if the text names none.
    """
    name, _, value = text.strip().lower().replace("-", "_").partition(":")
    try:
        if name == "relu" and not value:
            return ReLU()
        if name in ("top_k", "topk") and int(value) > 0:
            return TopK(int(value))
        if name in ("batch_top_k", "batchtopk") and math.isfinite(float(value)):
            return BatchTopK(0.0, float(value))
    except ValueError:
        pass
    raise UsageError(
        f"{text!r} is not an activation; write relu, top_k:K (K from 1) or batch_top_k:THRESHOLD (a finite number). "
        "Jump-relu and gated activations need tensors, and are read from files."
    )
