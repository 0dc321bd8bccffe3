"""Decoding at the sizes of `kandinsky-2.2` with random weights: pictures a second, share of peak, torch.compile.

    python benchmarks/gpu_decode.py --batch 16 --seconds 100

Every figure is printed as soon as it is measured. The networks are built on the device, so nothing is read from disk.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch

from steerlens.zoo.architecture import on_meta, package_configs
from steerlens.zoo.cards import card
from steerlens.zoo.cost import count

PEAK = {"H100": 989e12, "H200": 989e12}
"""Dense bfloat16 operations a second, as the maker states them."""


def random_model(component: str, device: torch.device) -> Any:
    """A model of full size with small random weights, in bfloat16."""
    model = on_meta(component, package_configs(card("kandinsky-2.2"))[component]).to(torch.bfloat16)
    model = model.to_empty(device=device)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.uniform_(-1, 1).mul_((3 / parameter[0].numel()) ** 0.5 if parameter.ndim > 1 else 0.1)
    return model.eval()


def seconds_of(run: Callable[[], Any], device: torch.device, repeats: int = 3) -> float:
    """Least seconds of a few runs, after a first."""

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    run()
    best = float("inf")
    for _ in range(repeats):
        wait()
        start = time.perf_counter()
        run()
        wait()
        best = min(best, time.perf_counter() - start)
    return best


@torch.inference_mode()
def main() -> None:
    """Measures one step of the UNet with guidance, and the MoVQ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--seconds", type=float, default=100, help="compile only if this much is left")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    given = parser.parse_args()
    start, device = time.monotonic(), torch.device(given.device)
    name = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
    peak = next((value for key, value in PEAK.items() if key in name), None)
    cost = count(package_configs(card("kandinsky-2.2")), (given.size, given.size), device, torch.bfloat16)
    print(f"device                {name}; batch {given.batch}, {given.size} pixels, bfloat16", flush=True)
    unet, movq = random_model("unet", device), random_model("movq", device)
    side = given.size // cost.scale
    latents = torch.randn(2 * given.batch, 4, side, side, device=device, dtype=torch.bfloat16)
    embeds = torch.randn(2 * given.batch, 1280, device=device, dtype=torch.bfloat16)
    step = torch.tensor(500, device=device)

    def pass_of(model: Any) -> Any:
        return model(latents, step, encoder_hidden_states=None, added_cond_kwargs={"image_embeds": embeds}).sample

    def say(label: str, each: float, decoding: float) -> None:
        share = "" if peak is None else f", {2 * given.batch * cost.unet_flops / each / peak:.1%} of peak"
        rate = given.batch / (given.steps * each + decoding)
        print(f"{label:21} {each:.4f} s a step{share}; {rate:.2f} pictures a second at {given.steps} steps", flush=True)

    decoding = seconds_of(
        lambda: movq.decode(latents[: given.batch], force_not_quantize=True).sample, device, given.repeats
    )
    print(f"MoVQ                  {decoding:.4f} s for {given.batch} pictures", flush=True)
    say("UNet with guidance", seconds_of(lambda: pass_of(unet), device, given.repeats), decoding)
    if time.monotonic() - start < given.seconds / 2:
        compiled = torch.compile(unet)
        say("UNet, torch.compile", seconds_of(lambda: pass_of(compiled), device, given.repeats), decoding)


if __name__ == "__main__":
    main()
