"""Readers of sparse autoencoders against the libraries that wrote the files, with their own encode and decode.

`tests/golden/saes/make_goldens.py` made the files with SAELens 6.54, Overcomplete 0.3, saev (schema 5 and 0.1.0) and
ViT-Prisma.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import steerlens as sl
from steerlens.errors import ModelError, UsageError
from steerlens.saes import BatchTopK, SparseAutoencoder, TopK
from steerlens.sites import Site

FOLDER = Path(__file__).parent / "saes"
BAR = 1e-5


def expected(name: str) -> dict[str, Tensor]:
    return load_file(FOLDER / name / "expected.safetensors")


def cases(library: str) -> list[str]:
    return sorted(path.name for path in FOLDER.glob(f"{library}-*"))


def agrees(sae: SparseAutoencoder, name: str) -> None:
    wanted = expected(name)
    x = wanted["x"]
    assert 0.02 < float((wanted["activations"] != 0).float().mean()) < 0.98
    torch.testing.assert_close(sae.encode(x), wanted["activations"], atol=BAR, rtol=BAR)
    torch.testing.assert_close(sae.decode(sae.encode(x), x), wanted["decoded"], atol=BAR, rtol=BAR)
    split = sae.split(x)
    torch.testing.assert_close(sae.sum(split), x, atol=BAR, rtol=0)
    torch.testing.assert_close(x - split.error, wanted["decoded"], atol=BAR, rtol=BAR)


SITES = {"batchtopk": "mlp_out.1", "old-relu": "resid_pre.3", "old-topk": "resid_pre.3"}


@pytest.mark.parametrize("name", cases("sae_lens"))
def test_sae_lens(name: str) -> None:
    sae = sl.load_sae(FOLDER / name)
    agrees(sae, name)
    assert sae.site == Site.parse(SITES.get(name.removeprefix("sae_lens-"), "resid_post.2"))


@pytest.mark.parametrize("name", cases("vit_prisma"))
def test_vit_prisma(name: str) -> None:
    sae = sl.load_sae(FOLDER / name)
    agrees(sae, name)
    agrees(sl.load_sae(FOLDER / name / "weights.pt", name="same"), name)
    kind = name.removeprefix("vit_prisma-")
    assert sae.site == Site("mlp_out" if kind == "constant-norm" else "resid_post", 2)
    assert sae.trained_on == {"layer-norm": "cls", "gated": "patch"}.get(kind, "all")


@pytest.mark.parametrize("name", cases("saev"))
def test_saev(name: str) -> None:
    options: dict[str, Any] = {"norm_factor": 1.0} if name == "saev-first" else {}
    sae = sl.load_sae(FOLDER / name / "sae.pt", site="vision_model.encoder.layers.2", **options)
    agrees(sae, name)
    if name == "saev-topk":
        assert float(expected(name)["activations"].min()) < 0 and sae.activation == TopK(5, rectify=False)


def state_dict(name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    folder = FOLDER / name
    return load_file(folder / "state_dict.safetensors"), json.loads((folder / "settings.json").read_text())


def overcomplete_activation(name: str, settings: dict[str, Any]) -> str | None:
    if settings["threshold"] is not None:
        return f"batch_top_k:{settings['threshold']!r}"
    return None if "jump" in name else f"top_k:{settings['top_k']}"


@pytest.mark.parametrize("name", cases("overcomplete"))
def test_overcomplete_from_a_state_dict(name: str, tmp_path: Path) -> None:
    tensors, settings = state_dict(name)
    norm: Any = "l1" if name.endswith("l1") else "l2"
    options: dict[str, Any] = {
        "site": "blocks.2",
        "activation": overcomplete_activation(name, settings),
        "dictionary_norm": norm,
    }
    agrees(sl.load_sae(tensors, **options), name)
    save_file(tensors, tmp_path / "sae.safetensors")
    torch.save(tensors, tmp_path / "sae.pt")
    for file in ("sae.safetensors", "sae.pt"):
        agrees(sl.load_sae(tmp_path / file, **options), name)


class Native(nn.Module):
    """What the reader asks of a module of Overcomplete: its state dict, encoder, dictionary and settings."""

    def __init__(self, tensors: dict[str, Tensor], settings: dict[str, Any]) -> None:
        super().__init__()
        self.tensors, self.encoder, self.dictionary = tensors, nn.Module(), nn.Module()
        self.top_k, self.running_threshold = settings["top_k"], settings["threshold"]
        self.dictionary.normalization = lambda rows: rows / (rows.norm(dim=1, keepdim=True) + 1e-8)

    def state_dict(self, *_: Any, **__: Any) -> dict[str, Tensor]:  # type: ignore[override]
        return self.tensors


@pytest.mark.parametrize("kind", ["TopKSAE", "BatchTopKSAE", "RATopKSAE"])
def test_overcomplete_from_a_module(kind: str) -> None:
    name = {"TopKSAE": "overcomplete-topk", "BatchTopKSAE": "overcomplete-batchtopk"}.get(kind, "overcomplete-ratopk")
    tensors, settings = state_dict(name)
    module = type(kind, (Native,), {})(tensors, settings)
    if kind == "RATopKSAE":
        module.dictionary.Relax, module.dictionary.delta = tensors["dictionary.Relax"], 1.0
    agrees(sl.load_sae(module, site="blocks.2", name="native"), name)


@pytest.mark.parametrize("kind", ["TopKSAE", "BatchTopKSAE", "JumpSAE", "RATopKSAE"])
def test_overcomplete_from_its_own_modules(kind: str) -> None:
    # Un-skip: install overcomplete and its requirements beside steerlens.
    library: Any = pytest.importorskip("overcomplete.sae", reason="overcomplete is not installed")
    options: dict[str, Any] = {} if kind == "JumpSAE" else {"top_k": 5}
    if kind.startswith("RA"):
        options["points"] = torch.randn(9, 8)
    sae = getattr(library, kind)(8, 24, **options)
    for _ in range(3):
        sae(torch.randn(6, 8))
    x = torch.randn(6, 8)
    read = sl.load_sae(sae, site="blocks.2")
    sae.eval()
    _, f = sae.encode(x)
    torch.testing.assert_close(read.encode(x), f.detach(), atol=BAR, rtol=BAR)
    torch.testing.assert_close(read.decode(f.detach()), sae.decode(f).detach(), atol=BAR, rtol=BAR)


def test_what_a_state_dict_does_not_hold_is_asked_for() -> None:
    tensors, _ = state_dict("overcomplete-topk")
    with pytest.raises(UsageError, match="does not hold its activation"):
        sl.load_sae(tensors, site="blocks.2", dictionary_norm="l2")
    stale = {**tensors, "dictionary._weights": 2 * tensors["dictionary._weights"]}
    with pytest.raises(UsageError, match="give dictionary_norm"):
        sl.load_sae(stale, site="blocks.2", activation="top_k:5")
    with pytest.raises(UsageError, match="give norm_factor and norm_mean"):
        sl.load_sae(FOLDER / "saev-first" / "sae.pt", site="blocks.2")
    with pytest.raises(UsageError, match="does not say where it reads"):
        sl.load_sae(FOLDER / "saev-relu" / "sae.pt")


def test_encoders_that_are_not_linear_are_refused() -> None:
    tensors, _ = state_dict("overcomplete-topk")
    hidden = {**tensors, "encoder.mlp_blocks.0.0.weight": torch.zeros(2, 2)}
    with pytest.raises(ModelError, match="its encoder has hidden layers"):
        sl.load_sae(hidden, site="blocks.2", activation="top_k:5", dictionary_norm="l2")
    normed = {**tensors, "encoder.final_block.1.weight": torch.ones(24)}
    with pytest.raises(ModelError, match="ends in a norm of each token"):
        sl.load_sae(normed, site="blocks.2", activation="top_k:5", dictionary_norm="l2")
    with pytest.raises(ModelError, match="a module Linear is not known; known are SAE, TopKSAE"):
        sl.load_sae(nn.Linear(2, 2), site="blocks.2")


def test_the_threshold_of_a_batch_is_kept_where_an_activation_equals_it() -> None:
    tensors, settings = state_dict("overcomplete-batchtopk")
    options: dict[str, Any] = {"site": "blocks.2", "dictionary_norm": "l2"}
    sae = sl.load_sae(tensors, activation=overcomplete_activation("batchtopk", settings), **options)
    x = expected("overcomplete-batchtopk")["x"]
    strongest = float(sae.encode(x).max())
    equal = sl.load_sae(tensors, activation=BatchTopK(0, strongest), **options)
    assert int((equal.encode(x) > 0).sum()) == 1
