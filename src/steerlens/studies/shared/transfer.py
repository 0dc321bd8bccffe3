"""Transfer: how well a decoder preserves a change of the embedding.

    transfer = cos(e'(e + d) - e'(e), d),    e' = encoder(decoder(e))

for a change d of an embedding e, with both pictures decoded from the same noise. A decoder may reproduce scenes but
ignore small changes, or answer them with changes of its own: then no lens can show them.
"""

from jaxtyping import Float
from torch import Tensor

from steerlens.scores import cosine_similarity

STEPS = (0.25, 0.5, 1.0)
"""Sizes of steps towards another scene, whose embedding is at 1."""


def transfer(
    before: Float[Tensor, "*#n E"],
    after: Float[Tensor, "*n E"],
    decoded_before: Float[Tensor, "*#n E"],
    decoded_after: Float[Tensor, "*n E"],
) -> Float[Tensor, "*n"]:
    """Cosine between the requested change and the change of decoded pictures embedded again, in [-1,1].

    Args:
        before: requested embeddings e.
        after: requested embeddings e + d.
        decoded_before: e'(e), from the same noise as the next.
        decoded_after: e'(e + d).
    """
    return cosine_similarity(decoded_after - decoded_before, after - before)
