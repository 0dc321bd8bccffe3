"""Reading sparse autoencoders: SAELens' layouts, plain files, refusals."""

import io
import json
import os
import shutil
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from safetensors.torch import load, save, save_file
from torch import Tensor

import steerlens as sl
from steerlens.errors import ModelError, SteerlensError, UsageError
from steerlens.saes import Gated, JumpReLU, ReLU, TopK
from steerlens.saes.readers.saev import is_saev
from steerlens.sites import Site

D, F = 6, 20


def weights(*names: str) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = {"W_enc": (D, F), "W_dec": (F, D), "b_dec": (D,)}
    return {
        name: torch.randn(*shapes.get(name, (F,)), generator=generator)
        for name in ("W_enc", "W_dec", "b_dec", *(names or ("b_enc",)))
    }


def folder(path: Path, config: dict[str, Any], tensors: dict[str, Tensor] | None = None) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    (path / "cfg.json").write_text(json.dumps(config))
    save_file(tensors or weights(), path / "sae_weights.safetensors")
    return path


OLD = {
    "architecture": "standard",
    "d_in": D,
    "d_sae": F,
    "activation_fn_str": "relu",
    "hook_name": "blocks.2.hook_mlp_out",
}
NEW = {"architecture": "standard", "d_in": D, "d_sae": F, "metadata": {"hook_name": "blocks.2.hook_resid_post"}}


def test_both_layouts_of_sae_lens(tmp_path: Path) -> None:
    old = sl.load_sae(folder(tmp_path / "old", OLD))
    new = sl.load_sae(folder(tmp_path / "new", {**NEW, "apply_b_dec_to_input": False}))
    assert (old.site, new.site) == (Site("mlp_out", 2), Site("resid_post", 2))
    assert old.apply_b_dec_to_input and not new.apply_b_dec_to_input
    assert old.name == "old" and isinstance(new.activation, ReLU)
    oldest = {"d_in": D, "d_sae": F, "hook_point": "blocks.{layer}.attn.hook_z", "hook_layer": 1}
    values = sl.load_sae(folder(tmp_path / "z", {**oldest, "hook_point_head_index": 3}))
    assert values.site == Site("head", 1, 3) and values.space == "head_values"


def test_activations_of_sae_lens(tmp_path: Path) -> None:
    top = sl.load_sae(folder(tmp_path / "a", {**NEW, "architecture": "topk", "k": 4}))
    assert top.activation == TopK(4)
    old = {**OLD, "activation_fn_str": "topk", "activation_fn_kwargs": {"k": 3}}
    assert sl.load_sae(folder(tmp_path / "b", old)).activation == TopK(3)
    jump = sl.load_sae(folder(tmp_path / "c", {**NEW, "architecture": "jumprelu"}, weights("b_enc", "threshold")))
    assert isinstance(jump.activation, JumpReLU)
    named = weights("b_mag", "b_gate", "r_mag")
    gated = sl.load_sae(folder(tmp_path / "d", {**NEW, "architecture": "gated"}, named))
    assert isinstance(gated.activation, Gated)
    torch.testing.assert_close(gated.b_enc, named["b_mag"])


def test_top_k_chosen_after_decoder_norms(tmp_path: Path) -> None:
    config = {**NEW, "architecture": "topk", "k": 4, "rescale_acts_by_decoder_norm": True}
    config["apply_b_dec_to_input"] = False
    tensors = weights()
    sae = sl.load_sae(folder(tmp_path / "a", config, tensors))
    x = torch.randn(5, D)
    norms = tensors["W_dec"].norm(dim=-1)
    before = (x @ tensors["W_enc"] + tensors["b_enc"]) * norms
    kept = torch.zeros(5, F).scatter_(-1, before.topk(4).indices, 1.0)
    f = before.relu() * kept
    torch.testing.assert_close(sae.encode(x), f)
    torch.testing.assert_close(sae.decode(f), (f / norms) @ tensors["W_dec"] + tensors["b_dec"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"architecture": "temporal"}, "architecture 'temporal' is not known; known are standard, topk"),
        ({"activation_fn": "tanh-relu"}, "activation_fn 'tanh-relu' is not known"),
        (
            {"normalize_activations": "covariance_whitening"},
            "'covariance_whitening' is not known",
        ),
        ({"normalize_activations": "expected_average_only_in"}, "give norm_factor"),
        ({"d_in": 7}, "its config says d_in 7, and W_enc has shape"),
        ({"architecture": "topk"}, "its config lacks k"),
        ({"architecture": "topk", "k": "4"}, "k of its config is '4', where a int is expected"),
    ],
)
def test_unknown_settings_are_refused_by_name(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    with pytest.raises(ModelError, match=words):
        sl.load_sae(folder(tmp_path / "a", {**NEW, **change}))


def test_bad_files_are_refused(tmp_path: Path) -> None:
    bare = folder(tmp_path / "a", NEW)
    (bare / "sae_weights.safetensors").unlink()
    with pytest.raises(ModelError, match=r"holds cfg.json, but no sae_weights.safetensors"):
        sl.load_sae(bare)
    (bare / "sae_weights.safetensors").write_bytes(b"not tensors")
    with pytest.raises(ModelError, match="is not a safetensors file"):
        sl.load_sae(bare)
    left = folder(tmp_path / "b", NEW, weights("b_enc", "skip"))
    with pytest.raises(ModelError, match="hold skip, which this reader does not know"):
        sl.load_sae(left)
    with pytest.raises(UsageError, match="does not say where it reads"):
        sl.load_sae(folder(tmp_path / "c", {"architecture": "standard"}))
    (tmp_path / "d").mkdir()
    with pytest.raises(ModelError, match=r"holds no config: neither cfg\.json \(SAELens\) nor config\.json"):
        sl.load_sae(tmp_path / "d")
    with pytest.raises(UsageError, match="there is no"):
        sl.load_sae(tmp_path / "e")


def test_tensors_that_an_activation_does_not_use_are_refused(tmp_path: Path) -> None:
    tensors = weights("b_enc", "threshold", "b_gate", "r_mag", "b_mag")
    with pytest.raises(ModelError, match="hold threshold, which this reader does not know or use"):
        sl.load_sae(tensors, site="resid_post.1")
    for unused in ("r_mag", "b_mag"):
        with pytest.raises(ModelError, match=f"hold {unused}, which"):
            sl.load_sae({**weights(), unused: tensors[unused]}, site="resid_post.1", activation="relu")


def test_hook_z_given_by_the_caller_means_head_values(tmp_path: Path) -> None:
    given = {"site": "blocks.2.attn.hook_z", "activation": "relu"}
    plain = sl.load_sae(weights(), **given)  # type: ignore[arg-type]
    assert (plain.site, plain.space) == (Site("attn_out", 2), "head_values")
    nameless = folder(tmp_path / "nameless", {"architecture": "standard"})
    assert sl.load_sae(nameless, site=given["site"]).space == "head_values"
    for site in ("attn_out.2", "blocks.2.hook_attn_out", Site("attn_out", 2)):
        assert sl.load_sae(weights(), site=site, activation="relu").space == "residual"


def test_a_factor_of_the_caller_overrides_any_normalisation_of_a_config(tmp_path: Path) -> None:
    for kind in ("layer_norm", "constant_norm_rescale", "none"):
        path = folder(tmp_path / kind, {**NEW, "normalize_activations": kind})
        own = sl.load_sae(path, norm_factor=0.5).normalisation
        assert (own.kind, own.factor) == ("constant", 0.5)
        assert sl.load_sae(path).normalisation.kind != "constant"


def test_a_plain_file_with_site_and_activation_given(tmp_path: Path) -> None:
    path = tmp_path / "my sae.safetensors"
    tensors = weights()
    save_file(tensors, path)
    sae = sl.load_sae(path, site="vision_model.encoder.layers.4", activation="top_k:3", trained_on="cls")
    assert sae.name == "my_sae" and sae.site == Site("resid_post", 4) and sae.activation == TopK(3)
    assert sl.load_sae(path, site="embedding", activation="relu").reads_embedding
    with pytest.raises(UsageError, match="does not say which activation"):
        sl.load_sae(path, site="resid_post.1")
    with pytest.raises(UsageError, match="is not an activation"):
        sl.load_sae(path, site="resid_post.1", activation="gelu")
    with pytest.raises(UsageError, match="does not say where it reads"):
        sl.load_sae(path, activation="relu")


def test_scaling_that_training_did_is_undone(tmp_path: Path) -> None:
    config = {**NEW, "normalize_activations": "expected_average_only_in"}
    sae = sl.load_sae(folder(tmp_path / "a", config), norm_factor=0.25)
    (tmp_path / "a" / "activation_scaler.json").write_text('{"scaling_factor": 0.25}')
    again = sl.load_sae(tmp_path / "a")
    x = torch.randn(3, D) * 4
    torch.testing.assert_close(sae.encode(x), again.encode(x))
    scaled = sl.load_sae(folder(tmp_path / "b", NEW)).encode(x * 0.25)
    torch.testing.assert_close(sae.encode(x), scaled)
    torch.testing.assert_close(sae.sum(sae.split(x)), x, atol=1e-5, rtol=0)


PRISMA = {"hook_point_layer": 2, "layer_subtype": "hook_resid_post", "activation_fn_str": "relu", "d_in": D}


def prisma(path: Path, config: dict[str, Any], content: Any = None) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(json.dumps(config))
    torch.save(weights() if content is None else content, path / "weights.pt")
    return path


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"layer_subtype": "ln2.hook_normalized"}, r"it reads 'blocks\.2\.ln2\.hook_normalized', which is not a point"),
        ({"activation_fn_str": "tanh-relu"}, "activation_fn_str 'tanh-relu' is not known; known are relu, topk"),
        ({"normalize_activations": "whitening"}, "normalize_activations 'whitening' is not known"),
        ({"is_transcoder": True}, "it is a transcoder"),
        ({"architecture": "jumprelu"}, "architecture 'jumprelu' is not known"),
    ],
)
def test_unknown_settings_of_vit_prisma_are_refused(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    with pytest.raises(ModelError, match=words):
        sl.load_sae(prisma(tmp_path / "a", {**PRISMA, **change}))


class Config:
    """Stands for a config object, which a pickle would build by running code."""


def test_pickles_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="A pickle that can run code is not read"):
        sl.load_sae(prisma(tmp_path / "a", PRISMA, {"cfg": Config(), "state_dict": weights()}))
    old = tmp_path / "b.pt"
    torch.save(weights(), old, _use_new_zipfile_serialization=False)
    with pytest.raises(ModelError, match=r"is not a file of PyTorch 1\.6 or later\. A pickle is not read"):
        sl.load_sae(old, site="resid_post.1", activation="relu")
    (tmp_path / "c.pkl").write_bytes(b"\x80\x04N.")
    with pytest.raises(ModelError, match="Pickles are not read"):
        sl.load_sae(tmp_path / "c.pkl")
    with pytest.raises(ModelError, match="not a table of tensors by name"):
        sl.load_sae(prisma(tmp_path / "d", PRISMA, [torch.zeros(2)]))


def test_a_file_that_unpacks_to_more_than_the_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = prisma(tmp_path / "a", PRISMA)
    monkeypatch.setenv("STEERLENS_LIMIT_SAE_BYTES", "500")
    with pytest.raises(ModelError, match="STEERLENS_LIMIT_SAE_BYTES raises the limit"):
        sl.load_sae(path)


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ({"schema": 6, "cfg": {}}, "schema 6 is not known; known are 1 to 5"),
        ({"schema": 2, "cfg": {"activation": {"cls": "Softmax"}}}, "activation 'Softmax' is not known"),
        ({"schema": 2}, "its config lacks cfg"),
        ({"other": 1}, "its header is none of saev"),
    ],
)
def test_unknown_headers_of_saev_are_refused(tmp_path: Path, header: dict[str, Any], words: str) -> None:
    path = tmp_path / "sae.pt"
    with path.open("wb") as stream:
        stream.write(json.dumps(header).encode() + b"\n")
        torch.save(weights(), stream)
    with pytest.raises(ModelError, match=words):
        sl.load_sae(path, site="resid_post.2")


def test_the_first_batch_top_k_of_saev_was_top_k_of_each_token(tmp_path: Path) -> None:
    path = tmp_path / "sae.pt"
    header = {"schema": 1, "cls": "BatchTopK", "cfg": {"d_vit": D, "top_k": 3}}
    with path.open("wb") as stream:
        stream.write(json.dumps(header).encode() + b"\n")
        torch.save(weights(), stream)
    assert sl.load_sae(path, site="resid_post.2").activation == TopK(3, rectify=False)


def test_negative_activations_split_by_strength(tmp_path: Path) -> None:
    save_file({**weights(), "b_enc": torch.full((F,), -9.0)}, tmp_path / "a.safetensors")
    sae = sl.load_sae(tmp_path / "a.safetensors", site="resid_post.1", activation=TopK(3, rectify=False))
    x = torch.randn(4, D)
    split = sae.split(x)
    assert bool((split.activations < 0).any())
    dense = torch.zeros(4, F).scatter_add_(-1, split.indices, split.activations)
    torch.testing.assert_close(dense, sae.encode(x))
    assert bool((split.activations.abs().diff(dim=-1) <= 0).all())
    torch.testing.assert_close(sae.sum(split), x, atol=1e-5, rtol=0)


def test_the_bundled_autoencoder_is_read_by_its_name() -> None:
    sae = sl.load_sae("emoji-resid8")
    assert (sae.name, str(sae.site), sae.n_features, sae.trained_on) == ("emoji-resid8", "resid_post.8", 1536, "all")
    with pytest.raises(UsageError, match="bundled with the package: emoji-resid8"):
        sl.load_sae("emoji-resid9")


GOLDEN = Path(__file__).parents[2] / "golden" / "saes"
CASES = [path.parent for pattern in ("cfg.json", "config.json") for path in sorted(GOLDEN.glob(f"*/{pattern}"))]
CASES += sorted(path for path in GOLDEN.glob("saev-*"))
OTHERS: tuple[Any, ...] = (None, [], {}, "x", -1, 0, 3.5, True, [[2]], "blocks.2", 10**9)


def damaged_config(text: str, random: Random) -> str:
    config = json.loads(text)
    inner = config["cfg"] if isinstance(config.get("cfg"), dict) else config
    for _ in range(random.randint(1, 3)):
        if inner:
            inner[random.choice(sorted(inner))] = random.choice(OTHERS)
    return json.dumps(config)


def damaged_tensors(tensors: dict[str, Tensor], random: Random) -> dict[str, Tensor]:
    name = random.choice(sorted(tensors))
    tensor = tensors[name]
    turned = tensor.mT.contiguous() if tensor.ndim > 1 else tensor.flatten()
    changes = (turned, tensor.flatten()[:3].clone(), tensor[None].clone(), tensor * float("nan"), tensor.long())
    rest = {key: value for key, value in tensors.items() if key != name}
    return rest if random.random() < 0.2 else {**rest, name: random.choice(changes)}


@pytest.mark.parametrize("seed", range(120))
def test_damaged_files_are_read_or_refused_with_one_message(seed: int, tmp_path: Path) -> None:
    random = Random(seed)
    source = random.choice(CASES)
    folder = tmp_path / "sae"
    shutil.copytree(source, folder)
    (folder / "expected.safetensors").unlink()
    weights_file = next(file for file in folder.iterdir() if file.suffix in (".pt", ".safetensors"))
    header, tensors = b"", dict[str, Tensor]()
    if source.name.startswith("saev"):
        header, _, data = weights_file.read_bytes().partition(b"\n")
        tensors = torch.load(io.BytesIO(data), weights_only=True)
        header = damaged_config(header.decode(), random).encode() + b"\n" if random.random() < 0.6 else header + b"\n"
    else:
        config = next(file for file in folder.iterdir() if file.suffix == ".json")
        if random.random() < 0.6:
            config.write_text(damaged_config(config.read_text(), random))
        safe = weights_file.suffix == ".safetensors"
        data = weights_file.read_bytes()  # not mapped: the file is written again below
        tensors = load(data) if safe else torch.load(io.BytesIO(data), weights_only=True)
    if random.random() < 0.6:
        tensors = damaged_tensors(dict(tensors), random)
    with weights_file.open("wb") as stream:
        stream.write(header)
        if weights_file.suffix == ".safetensors":
            stream.write(save(tensors))
        else:
            torch.save(tensors, stream)
    try:
        sae = sl.load_sae(folder, site="resid_post.1", norm_factor=1.0)
    except SteerlensError as error:
        assert "\n" not in str(error)
    else:
        x = torch.randn(3, sae.width)
        torch.testing.assert_close(sae.sum(sae.split(x)), x, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(
    ("tensor", "said"),
    [
        (torch.zeros(1).expand(D, 10**9), "larger than the file"),
        (torch.zeros(1, 1).expand(10**6, 10**6), "larger than the file"),
        (torch.eye(D).to_sparse(), "sparse tensor"),
        (torch.empty(D, F, device="meta"), "without values"),
    ],
)
def test_a_tensor_that_claims_more_than_its_file_holds_is_refused(
    tensor: torch.Tensor, said: str, tmp_path: Path
) -> None:
    path = tmp_path / "sae.pt"
    torch.save({**weights(), "W_enc": tensor}, path)
    with pytest.raises(ModelError, match=said):
        sl.load_sae(path, site="resid_post.1", activation="relu")


def test_tables_that_hold_one_another_end(tmp_path: Path) -> None:
    table: dict[str, object] = {}
    table["self"] = table
    torch.save({"state_dict": weights(), "more": table}, tmp_path / "sae.pt")
    with pytest.raises(ModelError, match="not a table of tensors"):
        sl.load_sae(tmp_path / "sae.pt", site="resid_post.1", activation="relu")


def test_the_first_line_of_a_file_without_line_ends_is_not_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "sae.pt"
    path.write_bytes(b"{")
    os.truncate(path, 10**11)  # takes no space on the disk
    assert not is_saev(path)


@pytest.mark.parametrize("name", ["cfg.json", "config.json"])
@pytest.mark.parametrize("put", [os.mkfifo, lambda path: path.symlink_to("nowhere"), Path.mkdir])
def test_a_config_that_cannot_be_read_is_not_passed_over(name: str, put: Any, tmp_path: Path) -> None:
    save_file(weights(), tmp_path / "sae_weights.safetensors")
    put(tmp_path / name)
    with pytest.raises(ModelError, match=name):
        sl.load_sae(tmp_path, site="resid_post.1", activation="relu")


@pytest.mark.parametrize("text", ["top_k:0", "top_k:-3", "batch_top_k:nan", "batch_top_k:inf", "batch_top_k:", "topk"])
def test_an_activation_that_keeps_nothing_is_refused(text: str, tmp_path: Path) -> None:
    save_file(weights(), tmp_path / "a.safetensors")
    with pytest.raises(UsageError, match="is not an activation"):
        sl.load_sae(tmp_path / "a.safetensors", site="resid_post.1", activation=text)
