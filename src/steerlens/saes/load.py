"""`load_sae`: reads a sparse autoencoder, deciding by content which library wrote it."""

from pathlib import Path

import torch

from steerlens.errors import ModelError, UsageError
from steerlens.saes.activations import Activation, BatchTopK, ReLU, TopK
from steerlens.saes.readers.plain import read_plain
from steerlens.saes.readers.sae_lens import is_sae_lens, read_sae_lens
from steerlens.saes.readers.shared import Given, as_place, name_of
from steerlens.saes.sae import SparseAutoencoder, TrainedOn
from steerlens.sites import SiteLike


def load_sae(
    path: str | Path,
    *,
    name: str | None = None,
    site: SiteLike | None = None,
    activation: Activation | str | None = None,
    trained_on: TrainedOn | None = None,
    apply_b_dec_to_input: bool | None = None,
    norm_factor: float | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> SparseAutoencoder:
    """Reads a sparse autoencoder from a folder or a file of SAELens, or a plain safetensors file.

    What the caller gives goes before what the files say.

    Args:
        path: the folder or file.
        name: its name in sites, `feature.NAME.i`; by default the name of the folder or file.
        site: where it reads, such as `resid_post.8` or `blocks.8.hook_resid_post`, or `embedding`.
        activation: `relu`, `top_k:K`, `batch_top_k:THRESHOLD`, or the activation itself.
        trained_on: tokens that it was trained on.
        apply_b_dec_to_input: whether `b_dec` is subtracted from the input of the encoder.
        norm_factor: factor of the input, where training scaled inputs by their mean norm.
        device: device of its weights.
        dtype: precision of its weights.

    Raises:
        UsageError: if there is no such path, or nothing names its site or activation.
        ModelError: if its files are damaged, incomplete, pickled, or hold what no reader knows.
    """
    path = Path(path)
    if not path.exists():
        raise UsageError(f"there is no {path} to read a sparse autoencoder from.")
    given = Given(
        name or name_of(path),
        None if site is None else as_place(site),
        parse_activation(activation) if isinstance(activation, str) else activation,
        trained_on,
        apply_b_dec_to_input,
        norm_factor,
    )
    return _read(path, given).to(device, dtype)


def _read(path: Path, given: Given) -> SparseAutoencoder:
    if path.is_dir():
        if is_sae_lens(path):
            return read_sae_lens(path, given)
        files = sorted(path.glob("*.safetensors"))
        if len(files) == 1:
            return read_plain(files[0], given)
        raise ModelError(
            f"{given.what}: {path} holds neither cfg.json (SAELens) nor a single safetensors file; there is nothing "
            "to read."
        )
    if path.suffix == ".safetensors":
        return read_plain(path, given)
    raise ModelError(f"{given.what}: {path} is no file that a sparse autoencoder is read from; give safetensors.")


def parse_activation(text: str) -> Activation:
    """Reads an activation from its text form: `relu`, `top_k:32`, `batch_top_k:0.5` (the inference threshold).

    Raises:
        UsageError: if the text names none.
    """
    name, _, value = text.strip().lower().replace("-", "_").partition(":")
    try:
        if name == "relu" and not value:
            return ReLU()
        if name in ("top_k", "topk"):
            return TopK(int(value))
        if name in ("batch_top_k", "batchtopk"):
            return BatchTopK(0.0, float(value))
    except ValueError:
        pass
    raise UsageError(
        f"{text!r} is no activation; write relu, top_k:K or batch_top_k:THRESHOLD. Jump-relu and gated ones need "
        "tensors, and are read from files."
    )
