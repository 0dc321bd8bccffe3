"""Testing of adapters: tiny random models of every family, and the checks that an adapter must pass.

In the tests of a plug-in:

    report = check_encoder(MyEncoder(tiny_model, processor))
    report.require()
"""

from typing import TYPE_CHECKING

from steerlens._lazy import lazy_names

if TYPE_CHECKING:
    from steerlens.testing.atlases import fake_atlas
    from steerlens.testing.conformance import Conformance, measure, read_measurements, write_measurements
    from steerlens.testing.decoder_checks import check_decoder
    from steerlens.testing.encoder_checks import check_encoder, noise_pictures
    from steerlens.testing.models_page import catalogue
    from steerlens.testing.optional import add_optional_libraries
    from steerlens.testing.outcomes import Check, CheckReport
    from steerlens.testing.tiny import (
        save_tiny_pair,
        tiny_encoder,
        tiny_movq,
        tiny_processor,
        tiny_unet,
        tiny_vision_model,
    )
    from steerlens.testing.tiny_decoders import save_tiny_decoder, tiny_pipeline
    from steerlens.testing.tiny_families import save_tiny_model, tiny_family_encoder, tiny_family_processor, tiny_model
    from steerlens.testing.tiny_vit import (
        randomise,
        tiny_open_clip_encoder,
        tiny_open_clip_model,
        tiny_timm_encoder,
        tiny_timm_model,
    )

__all__ = [
    "Check",
    "CheckReport",
    "Conformance",
    "add_optional_libraries",
    "catalogue",
    "check_decoder",
    "check_encoder",
    "fake_atlas",
    "measure",
    "noise_pictures",
    "randomise",
    "read_measurements",
    "save_tiny_decoder",
    "save_tiny_model",
    "save_tiny_pair",
    "tiny_encoder",
    "tiny_family_encoder",
    "tiny_family_processor",
    "tiny_model",
    "tiny_movq",
    "tiny_open_clip_encoder",
    "tiny_open_clip_model",
    "tiny_pipeline",
    "tiny_processor",
    "tiny_timm_encoder",
    "tiny_timm_model",
    "tiny_unet",
    "tiny_vision_model",
    "write_measurements",
]

__getattr__, __dir__ = lazy_names(__name__)
