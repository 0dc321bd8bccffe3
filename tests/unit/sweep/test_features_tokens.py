"""Features and neurons with decoders of image tokens, which are written to on every token."""

from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny_saes import tiny_sae

from steerlens.decoders import read_residuals
from steerlens.errors import UsageError
from steerlens.images import Picture
from steerlens.interventions import Add, Patch
from steerlens.lenses import TokenSteeringLens, read_tokens, source_of, trace_tokens
from steerlens.lenses.strength import Strength
from steerlens.loading import load
from steerlens.scores import cosine_distance
from steerlens.sites import Site
from steerlens.sweep.look import look
from steerlens.testing.tiny_decoders import save_tiny_decoder
from steerlens.zoo import Pair


@pytest.fixture(scope="module", params=["rae-dinov2", "ip-adapter-plus-sd15"])
def token_pair(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return load(
        save_tiny_decoder(request.param, tmp_path_factory.mktemp("pair") / "tiny"), dtype="float32", device="cpu"
    )


def picture() -> Picture:
    pixels = np.random.default_rng(3).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    return Picture.from_image(Image.fromarray(pixels), "noise")


def test_features_are_ranked_and_written_on_all_tokens(token_pair: Pair) -> None:
    encoder, (_, source) = token_pair.encoder, source_of(token_pair.decoder)
    sae = tiny_sae(encoder, "resid_post.0")
    steps = {} if token_pair.decoder.spec.defaults.scheduler == "none" else {"steps": 2}
    atlas = look(token_pair, picture(), saes=[sae], sites="features,neuron.0", strongest=2, strength="s=3", **steps)
    inputs = encoder.preprocess([picture().image])
    x = encoder.record(inputs, [sae.site])[sae.site]  # type: ignore[list-item, index]
    activations = sae.encode(x)
    best = activations[0].sum(dim=0).topk(2).indices.tolist()
    units = atlas.reading().units
    assert [unit.site.index for unit in units if unit.site.kind == "feature"] == best
    assert [unit.site.kind for unit in units] == ["feature", "feature", "neuron", "neuron", "error", "bias"]
    site = sae.feature(best[0])
    write = activations[..., site.index, None] * sae.W_dec[site.index]
    later = [
        Site(kind, layer)  # type: ignore[arg-type]
        for layer in range(1, source.last_layer(encoder.spec.n_layers) + 1)
        for kind in ("attn_out", "mlp_out")
    ]
    clean = encoder.record(inputs, later) if later else {}
    changes = [Add(Site("resid_post", 0), vector=2 * write), *(Patch(one, value=clean[one]) for one in later)]
    by_hooks = read_residuals(encoder, inputs, source, changes)
    trace = trace_tokens(encoder, token_pair.decoder, inputs, [site], {sae.name: sae})
    lens = TokenSteeringLens(encoder, token_pair.decoder, Strength("s", 3.0))
    closed = lens.tokens(trace, [site])[0, 0]
    expected = read_tokens(encoder, token_pair.decoder, by_hooks[:, None])[0, 0]
    assert cosine_distance(closed.flatten()[None], expected.flatten()[None]) <= 1e-6
    assert len(atlas.cells("steering", site)) == len(atlas.cells("control", site)) == 1


def test_what_a_decoder_of_tokens_cannot_show_is_refused(token_pair: Pair) -> None:
    with pytest.raises(UsageError, match="reads image tokens"):
        look(token_pair, picture(), saes=[tiny_sae(token_pair.encoder, "embedding")])
    with pytest.raises(UsageError, match="rank by activation"):
        look(token_pair, picture(), saes=[tiny_sae(token_pair.encoder, "resid_post.0")], rank="effect")
