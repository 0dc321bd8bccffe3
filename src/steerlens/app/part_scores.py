"""Scores of all parts of a model on one input before anything is decoded: the colours of the explorer's map."""

from collections.abc import Mapping, Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor

from steerlens.app.answers import rounded
from steerlens.encoders import Encoder, EncoderSpec
from steerlens.lenses import DiffusionLens, SteeringLens, Strength
from steerlens.scores import cosine_similarity
from steerlens.sites import Site, all_heads, layer_sites
from steerlens.sweep import Job, TracedPicture, unfinished_cells
from steerlens.trace import Trace

TOKEN_SITES = "heads,mlp_out,attn_out,resid_post"
"""Sites of the job of `token_scores`."""


def embedding_scores(
    encoder: Encoder, trace: Trace, target: Float[Tensor, "E"], strength: Strength | None
) -> dict[str, Any]:
    """Cosine of the embedding of every head, MLP and attention output with a target.

    Args:
        encoder: the encoder.
        trace: the trace of one picture.
        target: the embedding to compare with.
        strength: strength of the Steering Lens; None for the Diffusion Lens of each write.

    Returns:
        Lists `heads` (L,H), `mlps` (L), `attention` (L) and `residual` (L), each value a cosine or None; and the
        similarity of the `input` itself.
    """
    L, H = encoder.spec.n_layers, encoder.spec.n_heads
    diffusion, residual = DiffusionLens(encoder), layer_sites("resid_post", L)
    writes = (*all_heads(L, H), *layer_sites("mlp_out", L), *layer_sites("attn_out", L))
    lens = diffusion if strength is None else SteeringLens(encoder, strength)
    known = dict(zip(writes, _cosines(lens.embeddings(trace, writes)[0], target), strict=True))
    known |= dict(zip(residual, _cosines(diffusion.embeddings(trace, residual)[0], target), strict=True))
    return _by_kind(encoder.spec, known, float(cosine_similarity(trace.embedding[0], target)))


def token_scores(job: Job, traced: TracedPicture, picture: str, lens: str = "steering") -> dict[str, Any]:
    """Cosine of the image tokens of every part with those of the target, as `embedding_scores` returns it.

    None for parts that lie after the tokens, and for all parts where the target is a text, which has no image tokens.

    Args:
        job: a job that reads image tokens, whose sites are `TOKEN_SITES`.
        traced: the traced picture.
        picture: its id.
        lens: lens of the parts; those of the residual stream have the Diffusion Lens.
    """
    cells = [cell for cell in job.plan.of(picture) if cell.lens == lens or cell.site.kind == "resid_post"]
    known = {steered.cell.site: steered.steered_similarity for steered in unfinished_cells(job, traced, cells)}
    # The clean tokens are those of the last point of the residual stream that reaches the decoder.
    clean = [value for site, value in known.items() if site.kind == "resid_post"][-1]
    return _by_kind(job.encoder.spec, known, clean)


def _cosines(embeddings: Float[Tensor, "N E"], target: Float[Tensor, "E"]) -> list[float]:
    return cosine_similarity(embeddings.float(), target).tolist()


def _by_kind(spec: EncoderSpec, known: Mapping[Site, float], whole: float) -> dict[str, Any]:
    L, H = spec.n_layers, spec.n_heads

    def row(sites: Sequence[Site]) -> list[float | None]:
        return rounded([known.get(site, float("nan")) for site in sites])

    return {
        "heads": [row(all_heads(L, H)[layer * H : (layer + 1) * H]) for layer in range(L)],
        "mlps": row(layer_sites("mlp_out", L)),
        "attention": row(layer_sites("attn_out", L)),
        "residual": row(layer_sites("resid_post", L)),
        "input": rounded([whole])[0],
    }
