"""Makes the goldens of the readers with each library's own code: its files, inputs, activations and reconstructions.

    python make_goldens.py --saev SAEV/src --first-saev SAEV-0.1.0 --vit-prisma VIT-PRISMA/src

needs sae-lens and overcomplete (with matplotlib before 3.9); the arguments are source trees of saev (schema 5), of saev
0.1.0 and of ViT-Prisma. Every case is a folder: what the library wrote, and `expected.safetensors` with `x`,
`activations` and `decoded`.
"""

import argparse
import importlib
import json
import shutil
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

HERE = Path(__file__).parent
D, F, N = 8, 24, 6


def randomise(module: nn.Module, seed: int = 0) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            drawn = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(drawn * 0.6 - (3 if name == "thresholds" else 0))


def inputs(seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(N, D, generator=generator) * 2 + 0.5


def fresh(name: str) -> Path:
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def keep(folder: Path, x: Tensor, activations: Tensor, decoded: Tensor) -> None:
    tensors = {"x": x, "activations": activations, "decoded": decoded}
    save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, folder / "expected.safetensors")


def sae_lens() -> None:
    from sae_lens import SAE, BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig
    from sae_lens.saes.gated_sae import GatedSAE, GatedSAEConfig
    from sae_lens.saes.jumprelu_sae import JumpReLUSAE, JumpReLUSAEConfig
    from sae_lens.saes.sae import SAEMetadata
    from sae_lens.saes.standard_sae import StandardSAE, StandardSAEConfig
    from sae_lens.saes.topk_sae import TopKSAE, TopKSAEConfig

    kinds: dict[str, tuple[Any, Any, dict[str, Any]]] = {
        "standard": (StandardSAE, StandardSAEConfig, {"apply_b_dec_to_input": False}),
        "standard-b-dec": (StandardSAE, StandardSAEConfig, {"apply_b_dec_to_input": True}),
        "layer-norm": (StandardSAE, StandardSAEConfig, {"normalize_activations": "layer_norm"}),
        "constant-norm": (StandardSAE, StandardSAEConfig, {"normalize_activations": "constant_norm_rescale"}),
        "topk": (TopKSAE, TopKSAEConfig, {"k": 5}),
        "topk-by-norm": (TopKSAE, TopKSAEConfig, {"k": 5, "rescale_acts_by_decoder_norm": True}),
        "jumprelu": (JumpReLUSAE, JumpReLUSAEConfig, {}),
        "gated": (GatedSAE, GatedSAEConfig, {"normalize_activations": "layer_norm"}),
    }
    for name, (kind, config, options) in kinds.items():
        metadata = SAEMetadata(model_name="clip", hook_name="blocks.2.hook_resid_post")
        sae = kind(config(d_in=D, d_sae=F, metadata=metadata, **options))
        randomise(sae)
        folder = fresh(f"sae_lens-{name}")
        sae.save_model(folder)
        x = inputs()
        f = sae.encode(x)
        keep(folder, x, f, sae.decode(f))

    config = BatchTopKTrainingSAEConfig(d_in=D, d_sae=F, k=4, rescale_acts_by_decoder_norm=True)
    config.metadata = SAEMetadata(hook_name="blocks.1.hook_mlp_out")
    training = BatchTopKTrainingSAE(config)
    randomise(training)
    training.topk_threshold = torch.tensor(0.7, dtype=torch.double)
    folder = fresh("sae_lens-batchtopk")
    training.save_inference_model(folder)
    sae, x = SAE.load_from_disk(folder), inputs()
    f = sae.encode(x)
    keep(folder, x, f, sae.decode(f))

    # The layout before version 6, read back by the library's own loader.
    old = {"architecture": "standard", "d_in": D, "d_sae": F, "dtype": "torch.float32", "device": "cpu"}
    old |= {"hook_name": "blocks.{layer}.hook_resid_pre", "hook_layer": 3, "normalize_activations": "layer_norm"}
    old |= {"apply_b_dec_to_input": True, "finetuning_scaling_factor": False}
    for name, change in {
        "old-relu": {"activation_fn_str": "relu"},
        "old-topk": {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": 5}},
    }.items():
        folder = fresh(f"sae_lens-{name}")
        shutil.copy(HERE / "sae_lens-standard" / "sae_weights.safetensors", folder)
        (folder / "cfg.json").write_text(json.dumps({**old, **change}))
        sae, x = SAE.load_from_disk(folder), inputs()
        f = sae.encode(x)
        keep(folder, x, f, sae.decode(f))


def overcomplete() -> None:
    from overcomplete.sae import BatchTopKSAE, JumpSAE, RATopKSAE, TopKSAE

    points = torch.randn(10, D, generator=torch.Generator().manual_seed(5))
    kinds: dict[str, Callable[[], Any]] = {
        "topk": lambda: TopKSAE(D, F, top_k=5),
        "batchtopk": lambda: BatchTopKSAE(D, F, top_k=30),
        "jump": lambda: JumpSAE(D, F),
        "ratopk": lambda: RATopKSAE(D, F, points=points, top_k=5),
        "topk-batch-norm": lambda: TopKSAE(D, F, top_k=5, encoder_module="mlp_bn_1"),
        "topk-tied": lambda: TopKSAE(D, F, top_k=5).tied(bias=True),
        "topk-l1": lambda: TopKSAE(D, F, top_k=5, dictionary_params={"normalization": "l1", "use_multiplier": True}),
    }
    for name, make in kinds.items():
        torch.manual_seed(0)
        sae = make()
        randomise(sae)
        x = inputs()
        for step in range(3):  # running statistics and thresholds
            sae(inputs(step))
        weights = {key: value.clone() for key, value in sae.state_dict().items()}
        sae.eval()
        _, f = sae.encode(x)
        folder = fresh(f"overcomplete-{name}")
        save_file({key: value.contiguous() for key, value in weights.items()}, folder / "state_dict.safetensors")
        threshold = getattr(sae, "running_threshold", None)
        settings = {"threshold": None if threshold is None else float(threshold), "top_k": getattr(sae, "top_k", None)}
        (folder / "settings.json").write_text(json.dumps(settings))
        keep(folder, x, f, sae.decode(f))


def saev(source: Path) -> None:
    sys.path.insert(0, str(source))
    modeling = importlib.import_module("saev.nn.modeling")
    for name, activation in {
        "relu": modeling.Relu(),
        "topk": modeling.TopK(top_k=5),
        "batchtopk": modeling.BatchTopK(top_k=5),
    }.items():
        sae = modeling.SparseAutoencoder(modeling.SparseAutoencoderConfig(d_model=D, d_sae=F, activation=activation))
        randomise(sae)
        if name == "topk":
            with torch.no_grad():
                sae.b_enc -= 3  # some of the k largest are negative
        if name == "batchtopk":
            sae.activation.threshold.fill_(0.6)
        sae.eval()
        folder, x = fresh(f"saev-{name}"), inputs()
        modeling.dump(folder / "sae.pt", sae)
        f = sae.encode(x).f_x
        keep(folder, x, f, sae.decode(f)[:, -1])
    sys.path.pop(0)
    for module in [name for name in sys.modules if name.split(".")[0] == "saev"]:
        del sys.modules[module]


def first_saev(source: Path) -> None:
    sys.path.insert(0, str(source))
    native, config = importlib.import_module("saev.nn"), importlib.import_module("saev.config")
    sae = native.SparseAutoencoder(config.SparseAutoencoder(d_vit=D, exp_factor=F // D))
    randomise(sae)
    folder, x = fresh("saev-first"), inputs()
    native.dump(str(folder / "sae.pt"), sae)
    decoded, f, _ = sae(x)
    keep(folder, x, f, decoded)


def vit_prisma(source: Path) -> None:
    # The packages import all of the library, so only the modules of the autoencoder are imported.
    for name in ("vit_prisma", "vit_prisma.sae", "vit_prisma.sae.training", "vit_prisma.prisma_tools"):
        package = types.ModuleType(name)
        package.__path__ = [str(source / name.replace(".", "/"))]
        sys.modules[name] = package
    native = importlib.import_module("vit_prisma.sae.sae")
    config = importlib.import_module("vit_prisma.sae.config")
    common = {"layer_subtype": "hook_resid_post", "activation_fn_str": "relu", "wandb_project": ""}
    common |= dict.fromkeys(("dataset_path", "dataset_train_path", "dataset_val_path", "checkpoint_path"), "data")
    for name, options in {
        "layer-norm": {"cls_token_only": True},
        "topk": {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": 5}, "normalize_activations": "none"},
        "gated": {"architecture": "gated", "use_ghost_grads": False, "use_patches_only": True},
        "constant-norm": {"normalize_activations": "constant_norm_rescale", "layer_subtype": "hook_mlp_out"},
    }.items():
        settings = config.VisionModelSAERunnerConfig(
            d_in=D, expansion_factor=F // D, hook_point_layer=2, _device="cpu", **{**common, **options}
        )
        gated = options.get("architecture") == "gated"
        sae = (native.GatedSparseAutoencoder if gated else native.StandardSparseAutoencoder)(settings)
        randomise(sae)
        folder, x = fresh(f"vit_prisma-{name}"), inputs()
        settings.save_config(str(folder / "config.json"))
        torch.save(sae.state_dict(), folder / "weights.pt")
        _, f = sae.encode(x)
        keep(folder, x, f, sae.decode(f))


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("saev", "first-saev", "vit-prisma"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    given = parser.parse_args()
    torch.manual_seed(0)
    sae_lens()
    overcomplete()
    saev(given.saev)
    first_saev(given.first_saev)
    vit_prisma(given.vit_prisma)


if __name__ == "__main__":
    main()
