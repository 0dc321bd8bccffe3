"""Encoders: native Vision Transformers, opened up for tracing, steering and intervening.

Authors of adapters subclass `NativeEncoder`, or `PretrainedEncoder` for a model of transformers; docs/adapters.md shows
one from nothing.
"""

from typing import TYPE_CHECKING

from steerlens._lazy import lazy_names

if TYPE_CHECKING:
    from steerlens.encoders.base import Encoder, EncoderSpec, Inputs, TokenReadout, joined_inputs
    from steerlens.encoders.folders import OPEN_CLIP_FILES, is_open_clip_folder, is_timm_folder
    from steerlens.encoders.frozen_attention import ValuePaths, norm_divisor, value_paths
    from steerlens.encoders.fused import recorded_by_hooks
    from steerlens.encoders.geometry import Geometry, View, geometry_from_json
    from steerlens.encoders.hooks import EXCLUSIVE, Hook, native_pass
    from steerlens.encoders.modules import LayerModules
    from steerlens.encoders.native import NativeEncoder
    from steerlens.encoders.prefix import (
        Prefix,
        head_values_from,
        record_from,
        record_prefix,
        resume,
        resume_to,
        trace_with_prefix,
    )
    from steerlens.encoders.pretrained import Loading, PretrainedEncoder
    from steerlens.encoders.recorded import Recorded, RecordedAttention
    from steerlens.encoders.structure import refuse_kind, refuse_unknown
    from steerlens.encoders.towers import TowerEncoder
    from steerlens.encoders.transforms import apply_transform, crops

__all__ = [
    "EXCLUSIVE",
    "OPEN_CLIP_FILES",
    "Encoder",
    "EncoderSpec",
    "Geometry",
    "Hook",
    "Inputs",
    "LayerModules",
    "Loading",
    "NativeEncoder",
    "Prefix",
    "PretrainedEncoder",
    "Recorded",
    "RecordedAttention",
    "TokenReadout",
    "TowerEncoder",
    "ValuePaths",
    "View",
    "apply_transform",
    "crops",
    "geometry_from_json",
    "head_values_from",
    "is_open_clip_folder",
    "is_timm_folder",
    "joined_inputs",
    "native_pass",
    "norm_divisor",
    "record_from",
    "record_prefix",
    "recorded_by_hooks",
    "refuse_kind",
    "refuse_unknown",
    "resume",
    "resume_to",
    "trace_with_prefix",
    "value_paths",
]

__getattr__, __dir__ = lazy_names(__name__)
