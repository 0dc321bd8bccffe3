"""Second-order effects of neurons against their real ablation: which prediction of the embedding's change is right?

For some neurons of each layer and some scenes: the change of the embedding when the neuron is zeroed on every token in
a real forward pass, against the contribution of what it writes into the readout token itself (direct), through later
attention (second order), and both. Prints rank correlations of their lengths over neurons and pictures, the mean cosine
between predicted and real change, and the ratio of lengths.

    python benchmarks/second_order.py --data data
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor

import steerlens as sl
from steerlens.encoders import NativeEncoder
from steerlens.profiles import folder_pictures, scene_pictures
from steerlens.scores import cosine_similarity


def real_changes(encoder: NativeEncoder, inputs: dict[str, Tensor], neurons: list[sl.Site]) -> Tensor:
    """Clean embedding minus the embedding with each neuron zeroed on every token (B,N,E)."""
    clean = encoder.embed(inputs)
    return torch.stack([clean - encoder.embed(inputs, [sl.Zero(neuron)]) for neuron in neurons], dim=1)


def main() -> None:
    """Prints one row for each layer, and one for all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="emoji")
    parser.add_argument("--data", type=Path, help="folder with prepared pictures, of which scenes are drawn")
    parser.add_argument("--images", type=Path, help="folder of pictures, instead of --data")
    parser.add_argument("--pictures", type=int, default=8)
    parser.add_argument("--neurons", type=int, default=48, help="neurons of each layer, drawn at random")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    encoder = sl.load_encoder(options.model, dtype="float32")
    if not isinstance(encoder, NativeEncoder):
        raise SystemExit(f"{options.model}: its adapter cannot ablate neurons")
    draw = (folder_pictures, options.images) if options.images else (scene_pictures, options.data)
    pictures = draw[0](draw[1], options.pictures, options.seed).pictures
    inputs = dict(encoder.preprocess([picture.open() for picture in pictures]))
    second = sl.SecondOrder.of(encoder, inputs)
    generator = torch.Generator().manual_seed(options.seed)

    print(f"{options.model}, {len(pictures)} pictures, {options.neurons} neurons of each layer, zeroed on every token")
    print("rank correlation of lengths | Pearson | mean cosine | predicted / real length (median)")
    print(f"{'layer':>6}  {'direct':^29}  {'second order':^29}  {'both':^29}")
    gathered: dict[str, list[Tensor]] = {}
    for layer in range(encoder.spec.n_layers):
        count = second.trace.neurons.projections[layer].n_neurons
        units = torch.randperm(count, generator=generator)[: options.neurons].tolist()
        neurons = [sl.Site("neuron", layer, index=unit) for unit in units]
        direct = second.contributions(second.direct(neurons))
        through = second.contributions(second.writes(neurons))
        changes = {"real": real_changes(encoder, inputs, neurons), "direct": direct, "second": through}
        changes["both"] = direct + through
        for name, change in changes.items():
            gathered.setdefault(name, []).append(change.flatten(0, 1))
        print_row(str(layer), {name: parts[-1] for name, parts in gathered.items()})
    print_row("all", {name: torch.cat(parts) for name, parts in gathered.items()})


def ranks(values: Tensor) -> Tensor:
    """Rank of each value."""
    return values.argsort().argsort().double()


def correlation(first: Tensor, second: Tensor) -> float:
    """Pearson's correlation."""
    return float(torch.corrcoef(torch.stack([first.double(), second.double()]))[0, 1])


def print_row(label: str, changes: dict[str, Tensor]) -> None:
    """Prints how each prediction compares with the real change."""
    real = changes["real"].norm(dim=-1)
    cells: list[str] = []
    for name in ("direct", "second", "both"):
        size = changes[name].norm(dim=-1)
        if not bool(size.any()):
            cells.append(f"{'none':^29}")
            continue
        rank, linear = correlation(ranks(size), ranks(real)), correlation(size, real)
        cosine = float(cosine_similarity(changes[name], changes["real"]).mean())
        ratio = float((size / real.clamp_min(1e-12)).median())
        cells.append(f"{rank:6.2f} {linear:6.2f} {cosine:7.2f} {ratio:7.2f} ")
    print(f"{label:>6}  {'  '.join(cells)}", flush=True)


if __name__ == "__main__":
    main()
