"""Checks that an adapter must pass, for the authors of plug-ins: run them on a tiny random model in your own tests.

    report = check_encoder(MyEncoder(tiny_model, processor))
    report.require()

Every check measures an error and compares it with the largest allowed error; a check that raises has failed. The
oracles are slow and obvious: two forward passes, one with a head's slice zeroed by a raw hook, instead of a formula.
"""

from steerlens.testing.decoder_checks import check_decoder
from steerlens.testing.encoder_checks import check_encoder
from steerlens.testing.outcomes import Check, CheckReport

__all__ = ["Check", "CheckReport", "check_decoder", "check_encoder"]
