"""Lenses: they turn a trace and sites into labels, or into conditionings to decode."""

from typing import TYPE_CHECKING

from steerlens._lazy import lazy_names

if TYPE_CHECKING:
    from steerlens.lenses.attribution import LinearAttribution
    from steerlens.lenses.components import (
        Component,
        Direction,
        Group,
        direction_site,
        load_directions,
        named_components,
        parse_groups,
    )
    from steerlens.lenses.controls import control_direction, steer_controls, steer_directions
    from steerlens.lenses.diffusion import DiffusionLens
    from steerlens.lenses.image_tokens import TokenDiffusionLens, TokenSteeringLens, read_tokens
    from steerlens.lenses.logit import Label, LogitLens
    from steerlens.lenses.readout import read_out, writes
    from steerlens.lenses.real_pass import Change, ChangeKind, CleanPass, check_place, clean_pass, places_of
    from steerlens.lenses.regions import (
        Area,
        Box,
        Mask,
        Outside,
        Patches,
        RegionPart,
        SpecialTokens,
        Token,
        parse_area,
        parse_regions,
        parse_tokens,
        token_part,
    )
    from steerlens.lenses.sae_parts import (
        activations_on_tokens,
        by_sae,
        check_sae,
        check_sae_site,
        into_stream,
        parts_of,
        sae_of,
        sae_writes,
        trained_tokens,
        values_on_tokens,
        writes_on_tokens,
    )
    from steerlens.lenses.second_order import SecondOrder
    from steerlens.lenses.steering import SteeringLens, steer_and_patch
    from steerlens.lenses.strength import Strength, as_strength, visible_norm
    from steerlens.lenses.token_total import TokenTotalLens
    from steerlens.lenses.token_trace import TokenTrace, check_direction, reaching_sites, source_of, trace_tokens
    from steerlens.lenses.total import TotalLens

__all__ = [
    "Area",
    "Box",
    "Change",
    "ChangeKind",
    "CleanPass",
    "Component",
    "DiffusionLens",
    "Direction",
    "Group",
    "Label",
    "LinearAttribution",
    "LogitLens",
    "Mask",
    "Outside",
    "Patches",
    "RegionPart",
    "SecondOrder",
    "SpecialTokens",
    "SteeringLens",
    "Strength",
    "Token",
    "TokenDiffusionLens",
    "TokenSteeringLens",
    "TokenTotalLens",
    "TokenTrace",
    "TotalLens",
    "activations_on_tokens",
    "as_strength",
    "by_sae",
    "check_direction",
    "check_place",
    "check_sae",
    "check_sae_site",
    "clean_pass",
    "control_direction",
    "direction_site",
    "into_stream",
    "load_directions",
    "named_components",
    "parse_area",
    "parse_groups",
    "parse_regions",
    "parse_tokens",
    "parts_of",
    "places_of",
    "reaching_sites",
    "read_out",
    "read_tokens",
    "sae_of",
    "sae_writes",
    "source_of",
    "steer_and_patch",
    "steer_controls",
    "steer_directions",
    "token_part",
    "trace_tokens",
    "trained_tokens",
    "values_on_tokens",
    "visible_norm",
    "writes",
    "writes_on_tokens",
]

__getattr__, __dir__ = lazy_names(__name__)
