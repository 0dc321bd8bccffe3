"""Stage 1: a CLIP-style ViT whose embedding encodes concept, background, companion and appearance of a picture.

Five losses act on the embedding: contrast with composed text targets, the name among all names, the companion's name
with the main object excluded, the background, and a thumbnail that a small MLP paints from the embedding, which keeps
colour and layout for the decoder. For most of the training half of the patches are dropped.

References:
    Radford et al., Learning transferable visual models from natural language supervision, 2021, arXiv 2103.00020.
    Li et al., Scaling language-image pre-training via masking (FLIP), 2022, arXiv 2212.00794.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from steerlens.progress import Progress
from steerlens.scenes import STRONG, TRAIN, Augment, PictureSet, SceneMaker, Scenes
from steerlens.training.checkpoint import load_checkpoint, part, prefixed, save_checkpoint, start_from
from steerlens.training.metrics import Scores, scene_metrics
from steerlens.training.stage import Budget, Optimisation, autocast, run_stage, workers_of_group
from steerlens.training.text import TextTable

THUMBNAIL = 24
NAME_SMOOTHING = 0.1


@dataclass(frozen=True)
class EncoderSettings:
    """Size and training of the encoder.

    Attributes:
        width: width of the residual stream.
        layers: number of blocks.
        heads: attention heads per block.
        patch: side of a patch in pixels.
        batch: scenes per step, over all workers.
        companions: share of scenes with a companion.
        keep: share of patches kept while patches are dropped.
        drop_until: share of the budget after which all patches are kept.
        augment: augmentation of the training scenes.
        optimisation: settings of the optimizers.
    """

    width: int = 192
    layers: int = 12
    heads: int = 6
    patch: int = 8
    batch: int = 192
    companions: float = 0.6
    keep: float = 0.5
    drop_until: float = 0.7
    augment: Augment = STRONG
    optimisation: Optimisation = field(default_factory=Optimisation)


def make_encoder(settings: EncoderSettings, projection: int) -> nn.Module:
    """Builds a `CLIPVisionModelWithProjection` with random weights, exact GELU and eager attention."""
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    make: Any = CLIPVisionConfig  # accepts options of the base class, which its signature does not list
    config = make(
        hidden_size=settings.width,
        intermediate_size=4 * settings.width,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        image_size=64,
        patch_size=settings.patch,
        projection_dim=projection,
        hidden_act="gelu",
        attn_implementation="eager",  # the backward pass of the CPU's fused attention is half as fast in bfloat16
    )
    return CLIPVisionModelWithProjection(config)


def embed_tokens(encoder: Any, pixel_values: Tensor, kept: Tensor | None = None) -> Tensor:
    """Computes image embeddings, float (B,E), from all patches, or only from those in `kept` (B,K)."""
    if kept is None:
        return encoder(pixel_values=pixel_values).image_embeds
    vision = encoder.vision_model
    hidden = kept_tokens(vision.embeddings(pixel_values), kept)
    hidden = vision.encoder(inputs_embeds=vision.pre_layrnorm(hidden)).last_hidden_state
    return encoder.visual_projection(vision.post_layernorm(hidden[:, 0]))


def kept_tokens(hidden: Tensor, kept: Tensor) -> Tensor:
    """Selects the class token and the patches in `kept` (B,K) of all tokens (B,1+T,D); float (B,1+K,D)."""
    index = torch.cat([torch.zeros_like(kept[:, :1]), kept + 1], dim=1)
    return hidden.gather(1, index[..., None].expand(-1, -1, hidden.shape[-1]))


def draw_kept(settings: EncoderSettings, batch: int, share: float, generator: torch.Generator) -> Tensor | None:
    """Draws the patches that a step keeps, int64 (B,K), in order; None once all are kept."""
    if share >= settings.drop_until:
        return None
    patches = (64 // settings.patch) ** 2
    order = torch.rand(batch, patches, generator=generator).argsort(dim=1)
    return order[:, : round(settings.keep * patches)].sort(dim=1).values


class EncoderTraining(nn.Module):
    """Modules that are trained: the encoder, the thumbnail painter and the temperatures."""

    def __init__(self, encoder: nn.Module, projection: int) -> None:
        super().__init__()
        self.encoder = encoder
        last = nn.Linear(512, 3 * THUMBNAIL * THUMBNAIL)
        self.painter = nn.Sequential(nn.Linear(projection, 512), nn.GELU(), last)
        nn.init.constant_(last.bias, 0.65)  # the mean of a scene, since starting from zero wastes the first minutes
        self.temperatures = nn.Parameter(torch.tensor([2.7, 3.0, 2.7, 2.7]))

    def losses(self, embeds: Tensor, scenes: Scenes, texts: TextTable) -> dict[str, Tensor]:
        """Computes all losses of a batch.

        Args:
            embeds: float (B,E).
            scenes: contents of the pictures, and the pictures without augmentation.
            texts: centred tables.
        """
        unit = functional.normalize(embeds, dim=-1)
        contrast, name, companion, ground = self.temperatures.clamp(max=4.4).exp()
        rows = torch.arange(len(embeds), device=embeds.device)
        targets = texts.targets(scenes.main, scenes.companion, scenes.background)
        logits = contrast * unit @ targets.T
        same = scenes.main[:, None] == scenes.main[None]
        logits = logits.masked_fill(same & (rows[:, None] != rows[None]), -1e4)
        contrastive = (functional.cross_entropy(logits, rows) + functional.cross_entropy(logits.T, rows)) / 2

        similarity = unit @ texts.names.T
        has = scenes.companion >= 0
        # the companion's name is correct too, so neither name counts as wrong for the other
        other = torch.zeros_like(similarity, dtype=torch.bool)
        other[rows[has], scenes.companion[has]] = True
        main = functional.cross_entropy(
            (name * similarity).masked_fill(other, -1e2), scenes.main, label_smoothing=NAME_SMOOTHING
        )
        small = embeds.new_zeros(())
        if bool(has.any()):
            left = torch.zeros_like(similarity, dtype=torch.bool)
            left[rows, scenes.main] = True
            small = functional.cross_entropy(
                (companion * similarity).masked_fill(left, -1e2)[has], scenes.companion[has]
            )
        background = functional.cross_entropy(ground * unit @ texts.backgrounds.T, scenes.background)
        thumbnail = functional.adaptive_avg_pool2d(scenes.pictures, THUMBNAIL).flatten(1)
        painted = functional.mse_loss(self.painter(embeds), thumbnail)
        loss = contrastive + main + 2 * small + 0.3 * background + 20 * painted
        return {
            "loss": loss,
            "contrast": contrastive,
            "name": main,
            "companion": small,
            "ground": background,
            "thumb": painted,
        }


def to_pixel_values(pictures: Tensor) -> Tensor:
    """Maps [0,1] to [-1,1], since the image processor's mean and standard deviation are 0.5."""
    return pictures * 2 - 1


def train_encoder(
    pictures: PictureSet,
    texts: TextTable,
    folder: Path,
    budget: Budget,
    settings: EncoderSettings | None = None,
    device: torch.device | str = "cpu",
    seed: int = 0,
    resume: bool = False,
    measure_seconds: float = 180.0,
    checkpoint_seconds: float = 45.0,
    init: Path | None = None,
) -> Iterator[Progress]:
    """Trains the encoder; its files are `encoder.*` in `folder`. See `run_stage`.

    With `init`, the folder of a pair, training starts from that pair's encoder.
    """
    settings = settings or EncoderSettings()
    device, (rank, workers) = torch.device(device), workers_of_group()
    torch.manual_seed(seed)
    batch = max(1, settings.batch // workers)
    projection = int(texts.names.shape[1])
    model = EncoderTraining(make_encoder(settings, projection), projection).to(device)
    if init is not None:
        start_from(model.encoder, init / "image_encoder" / "model.safetensors")
    maker = SceneMaker(pictures, pictures.rows(TRAIN), device, settings.augment)
    centred = texts.centred().to(device)

    def step(step: int, share: float, generator: torch.Generator) -> dict[str, Tensor]:
        scenes = maker.draw(batch, generator, companions=settings.companions)
        pixels = to_pixel_values(maker.spoil(scenes.pictures, generator))
        kept = draw_kept(settings, batch, share, generator)
        with autocast(device):
            embeds = embed_tokens(model.encoder, pixels, None if kept is None else kept.to(device))
        return model.losses(embeds.float(), scenes, centred)

    def measure() -> Mapping[str, float]:
        return encoder_metrics(model.encoder, pictures, centred, device)

    yield from run_stage(
        "encoder",
        model,
        step,
        folder,
        budget,
        settings.optimisation,
        seed=seed + rank,
        resume=resume,
        measure=measure,
        measure_seconds=measure_seconds,
        checkpoint_seconds=checkpoint_seconds,
    )


def keep_encoder(init: Path, folder: Path, projection: int, settings: EncoderSettings | None = None) -> None:
    """Copies the encoder of a pair unchanged."""
    encoder = make_encoder(settings or EncoderSettings(), projection)
    start_from(encoder, init / "image_encoder" / "model.safetensors")
    save_checkpoint(folder / "encoder.safetensors", prefixed("encoder", encoder.state_dict()), {"step": 0})


def load_encoder(folder: Path, projection: int, settings: EncoderSettings | None = None) -> nn.Module:
    """Loads the trained encoder of a run, in float32 and eval mode."""
    encoder = make_encoder(settings or EncoderSettings(), projection)
    tensors, _ = load_checkpoint(folder / "encoder.safetensors")
    encoder.load_state_dict(part("encoder", tensors))
    return encoder.eval().requires_grad_(False)


def embed_pictures(encoder: Any, pictures: Tensor) -> Tensor:
    """Embeds pictures (N,3,64,64) in [0,1]; float (N,E)."""
    device = next(encoder.parameters()).device
    return in_batches(lambda pixels: encoder(pixel_values=pixels).image_embeds, pictures, device)


def in_batches(forward: Callable[[Tensor], Tensor], pictures: Tensor, device: torch.device, batch: int = 256) -> Tensor:
    """Runs a forward pass on pictures (N,3,64,64) in [0,1], in batches and without gradients; float32 (N,...)."""
    with torch.inference_mode(), autocast(device):
        parts = [forward(to_pixel_values(chunk.to(device))).float() for chunk in pictures.split(batch)]
    return torch.cat(parts).clone()


def encoder_metrics(encoder: Any, pictures: PictureSet, centred: TextTable, device: torch.device) -> dict[str, float]:
    """Zero-shot accuracies; see `scene_metrics`."""

    def score(shown: Tensor) -> Scores:
        unit = functional.normalize(embed_pictures(encoder, shown), dim=-1)
        names = unit @ centred.names.T
        return Scores(names, names, unit @ centred.backgrounds.T)

    return scene_metrics(score, pictures, device)
