"""Names that other libraries give to places in a Vision Transformer, mapped to ours.

    blocks.8.hook_resid_post                     TransformerLens, ViT-Prisma, SAELens
    blocks.8.attn.hook_z                         the heads before their output projection; at `attn_out.8` after it
    vision_model.encoder.layers.8[.mlp]          transformers
    blocks.8, visual.transformer.resblocks.8     timm, open_clip

A block alone is its output, `resid_post`.
"""

import re

_BLOCK = re.compile(r"(?:[A-Za-z_]\w*\.)*?(?:blocks|layers|layer|resblocks|h)\.(\d{1,9})(?:\.([\w.]+))?")

_PARTS = {
    "": "resid_post",
    "hook_resid_pre": "resid_pre",
    "hook_resid_mid": "resid_mid",
    "hook_resid_post": "resid_post",
    "hook_attn_out": "attn_out",
    "hook_mlp_out": "mlp_out",
    "attn.hook_z": "attn_out",
    "attn": "attn_out",
    "self_attn": "attn_out",
    "attention": "attn_out",
    "attention.output": "attn_out",
    "ls1": "attn_out",
    "ls_1": "attn_out",
    "layer_scale1": "attn_out",
    "mlp": "mlp_out",
    "ls2": "mlp_out",
    "ls_2": "mlp_out",
    "layer_scale2": "mlp_out",
}


def native_place(text: str) -> tuple[str, int] | None:
    """Returns the kind of site and the layer of another library's name; None if it names no site of ours."""
    match = _BLOCK.fullmatch(text)
    if match is None:
        return None
    kind = _PARTS.get(match[2] or "")
    return None if kind is None else (kind, int(match[1]))
