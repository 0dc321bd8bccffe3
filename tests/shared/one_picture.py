"""Passes of many rows from the prefix of one picture, whose shortcuts must give what whole forward passes give."""

from itertools import pairwise

import torch

from steerlens.encoders.base import Inputs
from steerlens.encoders.native import NativeEncoder
from steerlens.encoders.prefix import record_prefix, resume
from steerlens.interventions import Scale
from steerlens.sites import Site

FACTORS = (-1.0, 0.5, 3.0)


def check_rows_of_one_picture(encoder: NativeEncoder, inputs: Inputs, tolerance: dict[str, float]) -> None:
    """Scales components alone and in pairs, at the first and at the last layer, each row by a factor of its own."""
    prefix = record_prefix(encoder, inputs)
    assert prefix.shortcuts is not encoder.packs_pictures
    for layer in (0, encoder.spec.n_layers - 1):
        head = Site("head", layer, encoder.spec.n_heads - 1)
        sites = [head, *(Site(kind, layer) for kind in ("attn_out", "resid_mid", "mlp_out", "resid_post", "resid_pre"))]
        for chosen in [*([site] for site in sites), *pairwise(sites)]:
            each = [Scale(site, factor=torch.tensor(FACTORS, device=encoder.device)) for site in chosen]
            got = resume(encoder, prefix, layer, [1] * len(FACTORS), each)
            for row, factor in zip(got, FACTORS, strict=True):
                wanted = encoder.embed(inputs, [Scale(site, factor=factor) for site in chosen])[1]
                torch.testing.assert_close(row, wanted, **tolerance)
