"""Reader of saev checkpoints: one line of JSON, then a PyTorch file of the weights.

The header is a bare config before there were schemas, `{schema, cls, cfg}` in schema 1 and `{schema, cfg}` in 2 to 5.
Without a stored threshold, batch-top-k was top-k of each token. The header names no layer: the caller names the site.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from torch import Tensor

from steerlens.errors import ModelError, UsageError
from steerlens.limits import limit, over_limit, read_file
from steerlens.saes.activations import Activation, BatchTopK, ReLU, TopK
from steerlens.saes.normalisation import Normalisation
from steerlens.saes.readers.shared import LIMIT, Given, field, refuse_left, state_dict, take, unknown
from steerlens.saes.sae import SparseAutoencoder
from steerlens.storage import parse_json, parse_pytorch

_SCHEMAS = range(1, 6)
_THRESHOLD = "activation.threshold"


def read_saev(path: Path, given: Given) -> SparseAutoencoder:
    """Reads a checkpoint of saev.

    Raises:
        ModelError: if it is damaged, or of a schema or activation that is not known.
        UsageError: if the caller names no site, or, for a file without a schema, no factor of the input.
    """
    what = given.what
    try:
        data = read_file(path, LIMIT)
    except UsageError as error:
        raise ModelError(f"{what}: {error}") from None
    line, _, weights = data.partition(b"\n")
    if words := over_limit("config_bytes", len(line)):
        raise ModelError(f"{what}: {path} has a header of {words}.")
    try:
        header = parse_json(line)
    except ValueError as error:
        raise ModelError(f"{what}: the first line of {path} is no JSON ({error}).") from None
    if not isinstance(header, dict):
        raise ModelError(f"{what}: the first line of {path} is no JSON object.")
    config, activation_name, schema = _config(cast(dict[str, Any], header), what)
    tensors = state_dict(parse_pytorch(weights, path, what, LIMIT), what)
    refuse_left(tensors, {"W_enc", "W_dec", "b_enc", "b_dec", _THRESHOLD}, what)
    if schema == 0 and given.norm_factor is None:
        raise UsageError(
            f"{what}: saev files without a schema do not record the mean and the scale that training applied to its "
            "inputs; give norm_factor and norm_mean (load_sae in Python), or norm_factor=1 if there were none."
        )
    return SparseAutoencoder(
        given.name,
        given.place(None, path.name),
        take(tensors, "W_enc", what),
        take(tensors, "W_dec", what),
        take(tensors, "b_enc", what),
        take(tensors, "b_dec", what),
        given.activation or _activation(activation_name, config, tensors, what),
        # The first versions subtracted the decoder's bias; those with a schema do not.
        schema == 0 if given.apply_b_dec_to_input is None else given.apply_b_dec_to_input,
        given.normalisation() or Normalisation(),
        given.trained_on or "unknown",
        given.space or "residual",
    )


def is_saev(path: Path) -> bool:
    """True for a file that begins with a JSON object and goes on with a PyTorch file."""
    with path.open("rb") as stream:
        if stream.read(1) != b"{":
            return False
        stream.readline(limit("config_bytes") + 1)  # a file without line ends would be read whole
        return stream.read(2) == b"PK"


def _config(header: Mapping[str, Any], what: str) -> tuple[dict[str, Any], str, int]:
    """Returns the settings of the activation, its name, and the schema; 0 without one."""
    if "schema" not in header:
        if "d_vit" not in header:
            raise ModelError(f"{what}: its header is none of saev.")
        return {}, "Relu", 0
    schema = header["schema"]
    if schema not in _SCHEMAS:
        raise unknown(what, "schema", schema, "1 to 5")
    config = field(header, "cfg", dict, None, what)
    if schema == 1 and header.get("cls") in ("Relu", "TopK", "BatchTopK"):
        return {"top_k": 32, **config}, str(header["cls"]), 1
    payload: dict[str, Any] = field(config, "activation", dict, {"cls": "Relu"} if schema == 1 else None, what)
    params: dict[str, Any] = field(payload, "params", dict, {}, what)
    return {"top_k": 32, **params}, str(payload.get("cls")), int(schema)


def _activation(name: str, config: Mapping[str, Any], tensors: Mapping[str, Tensor], what: str) -> Activation:
    if name == "Relu":
        return ReLU()
    if name not in ("TopK", "BatchTopK"):
        raise unknown(what, "activation", name, "Relu, TopK, BatchTopK")
    k = field(config, "top_k", int, None, what)
    if name == "BatchTopK" and _THRESHOLD in tensors:
        return BatchTopK(k, max(0.0, float(take(tensors, _THRESHOLD, what))))
    # saev keeps the k largest as they are, negative ones too.
    return TopK(k, rectify=False)
