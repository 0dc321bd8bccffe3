"""Recording attention in transformers models, whose fast kernels give no patterns.

transformers looks up its attention function by name on every call. While recording, that name points to a function that
computes the requested rows of the pattern and then calls the library's own fused kernel; afterwards it is restored.
Queries and keys arrive as the model uses them, after any rotary embedding.
"""

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

from torch import Tensor, nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from steerlens.encoders.fused import attention_rows
from steerlens.encoders.recorded import Recorded, RecordedAttention
from steerlens.errors import ModelError


@contextmanager
def recorded_attention(modules: Mapping[nn.Module, int], tokens: Sequence[int]) -> Generator[Recorded]:
    """Records attention patterns and values of one forward pass, which runs while the context is open.

    Args:
        modules: the layer of each native attention module.
        tokens: the query tokens whose patterns are kept.

    Yields:
        By layer: patterns (B,H,R,T), whose rows sum to 1, and value vectors (B,H,T,d); filled by the forward pass.

    Raises:
        ModelError: if an attention module did not call its attention function exactly once, when the context closes.
    """
    recorded: Recorded = {}
    calls = dict.fromkeys(modules.values(), 0)

    def record_and_attend(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
    ) -> tuple[Tensor, None]:
        layer = modules.get(module)
        if layer is not None:
            calls[layer] += 1
            mask = attention_mask
            if mask is not None and mask.shape[-2] > 1:
                mask = mask[..., list(tokens), :]
            rows = attention_rows(query[:, :, list(tokens)], key, kwargs.get("scaling"), mask)
            recorded[layer] = RecordedAttention(rows.to(value.dtype), value.detach())
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)

    # Each context registers its own name, so that recordings of two models do not see each other's tensors.
    name = f"steerlens_{uuid4().hex}"
    configs: dict[int, Any] = {id(module.config): module.config for module in modules}
    before = {key: config._attn_implementation for key, config in configs.items()}
    ALL_ATTENTION_FUNCTIONS[name] = record_and_attend
    # A name without a mask function of its own would lose the mask.
    ALL_MASK_ATTENTION_FUNCTIONS[name] = sdpa_mask
    try:
        for config in configs.values():
            config._attn_implementation_internal = name
        yield recorded
    finally:
        for key, config in configs.items():
            config._attn_implementation_internal = before[key]
        del ALL_ATTENTION_FUNCTIONS[name], ALL_MASK_ATTENTION_FUNCTIONS[name]
    for layer, count in calls.items():
        if count != 1:
            raise ModelError(
                f"the attention of layer {layer} went through the recording function {count} times in one forward "
                "pass, where it must once; the model does not run its attention as its family does."
            )
