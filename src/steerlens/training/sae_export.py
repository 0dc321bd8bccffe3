"""Export of a trained autoencoder: a folder in SAELens' layout, with its figures on held-out pictures and a card."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import save as save_tensors
from torch import Tensor

from steerlens._version import __version__
from steerlens.encoders import Encoder
from steerlens.errors import UsageError
from steerlens.interventions import Patch
from steerlens.lenses import trained_tokens
from steerlens.printable import without_folders
from steerlens.saes import FidelityMeter, JumpReLU, SparseAutoencoder
from steerlens.scores import cosine_similarity
from steerlens.sites import Site
from steerlens.storage import OwnedFolder

_HOOKED = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out")
"""Kinds of sites that have a hook name in SAELens."""


@dataclass(frozen=True)
class SaeFigures:
    """Fidelity of an autoencoder on held-out pictures.

    Attributes:
        pictures: number of pictures.
        values: number of values, one a token.
        explained_variance: share of the values' variance explained, at most 1.
        l0: mean number of active features of a value.
        dead_share: share of features that no value activates, in [0,1].
        cosine: cosine, on average over pictures, between the embedding of the model and that of a real forward pass
            with every value replaced by its reconstruction.
    """

    pictures: int
    values: int
    explained_variance: float
    l0: float
    dead_share: float
    cosine: float

    def __str__(self) -> str:
        return (
            f"explained variance {self.explained_variance:.3f}, {self.l0:.1f} active features of a value, "
            f"{self.dead_share:.1%} of features never active, cosine of the embedding {self.cosine:.3f} "
            f"({self.values} values of {self.pictures} held-out pictures)"
        )


@torch.no_grad()
def measure_sae(
    encoder: Encoder, sae: SparseAutoencoder, pictures: Sequence[Callable[[], Image.Image]], *, batch: int = 16
) -> SaeFigures:
    """Measures fidelity on pictures that the autoencoder was not trained on.

    Args:
        encoder: the encoder.
        sae: the autoencoder, of a site or the image embedding.
        pictures: functions that open the pictures.
        batch: number of pictures in a forward pass.

    Raises:
        UsageError: if there are no pictures.
    """
    if not pictures:
        raise UsageError("the fidelity of an autoencoder is measured on held-out pictures, and there are none.")
    sae, cosines = sae.to(encoder.device), list[Tensor]()
    meter = FidelityMeter(sae)
    for start in range(0, len(pictures), batch):
        inputs = encoder.preprocess([opened() for opened in pictures[start : start + batch]])
        clean = encoder.embed(inputs)
        if isinstance(sae.site, Site):
            values = encoder.record(inputs, [sae.site])[sae.site].float()
            read = trained_tokens(sae, encoder.spec)
            rebuilt = sae.decode(sae.encode(values[:, read]), values[:, read])
            again = encoder.embed(inputs, [Patch(sae.site, tuple(read), value=rebuilt)])
            meter.add(values[:, read])
        else:
            again = sae.decode(sae.encode(clean.float()), clean.float())
            meter.add(clean.float())
        cosines.append(cosine_similarity(clean, again).cpu())
    result = meter.result()
    return SaeFigures(
        len(pictures),
        result.n_values,
        result.explained_variance,
        result.l0,
        result.dead_share,
        float(torch.cat(cosines).mean()),
    )


def write_sae(
    sae: SparseAutoencoder, folder: Path, *, model: str, figures: SaeFigures, training: Mapping[str, Any]
) -> int:
    """Writes `cfg.json`, `sae_weights.safetensors` and `README.md`, and returns their size in bytes.

    Args:
        sae: a jump-relu autoencoder, which is how SAELens stores batch-top-k.
        folder: the folder.
        model: name of the model.
        figures: fidelity on held-out pictures.
        training: facts of the training, as JSON values.

    Raises:
        UsageError: if the autoencoder has another activation.
        StoreError: if a file cannot be written.
    """
    if not isinstance(sae.activation, JumpReLU):
        raise UsageError(f"autoencoders with activation {sae.activation.name} are not written, only jump_relu.")
    own, model = OwnedFolder(folder), without_folders(model)
    weights = {name: getattr(sae, name) for name in ("W_enc", "W_dec", "b_enc", "b_dec")}
    weights["threshold"] = sae.activation.threshold
    data = save_tensors({name: tensor.detach().cpu().float().contiguous() for name, tensor in weights.items()})
    config = {
        "architecture": "jumprelu",
        "d_in": sae.width,
        "d_sae": sae.n_features,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": sae.apply_b_dec_to_input,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {
            "model_name": model,
            "hook_name": _hook_name(sae),
            "trained_on": sae.trained_on,
            "steerlens_version": __version__,
            "training": dict(training),
            "held_out": vars(figures),
        },
    }
    text = json.dumps(config, indent=1) + "\n"
    card = _card(sae, model, figures, training)
    files = {"sae_weights.safetensors": data, "cfg.json": text.encode(), "README.md": card}
    for name, content in files.items():
        own.write(content, name)
    return sum(map(len, files.values()))


def _hook_name(sae: SparseAutoencoder) -> str:
    if isinstance(sae.site, Site) and sae.site.kind in _HOOKED:
        return f"blocks.{sae.site.layer}.hook_{sae.site.kind}"
    return str(sae.site)


def _card(sae: SparseAutoencoder, model: str, figures: SaeFigures, training: Mapping[str, Any]) -> bytes:
    lines = [
        f"# {sae.name}: {sae.n_features} features of {sae.site} of {model}",
        "",
        "A sparse autoencoder trained by `steerlens train sae`: batch-top-k, stored as jump-relu in SAELens' layout.",
        "",
        "| measured on held-out pictures | |",
        "|---|---|",
        f"| pictures, values | {figures.pictures}, {figures.values} |",
        f"| explained variance | {figures.explained_variance:.3f} |",
        f"| active features of a value (L0) | {figures.l0:.1f} |",
        f"| features never active | {figures.dead_share:.1%} |",
        f"| cosine of the embedding, values replaced by their reconstruction | {figures.cosine:.3f} |",
        "",
        "Training: " + ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in training.items()) + ".",
        "",
        "```sh",
        f"steerlens lens picture.png --model {model} --sae {sae.name} --sites features",
        "```",
        "",
    ]
    return "\n".join(lines).encode()
