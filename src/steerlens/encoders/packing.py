"""Towers whose native blocks take all pictures as one sequence of patches, attended in windows.

Everything outside sees (B,T,D), patches row by row: hooks get values in that order, and give them back in it. Patterns
are 0 between windows.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from steerlens.encoders.fused import KernelCall, recorded_by_kernel
from steerlens.encoders.recorded import Recorded
from steerlens.encoders.vlm_tower import VLMTowerEncoder


class PackedTowerEncoder(VLMTowerEncoder):
    """A tower of pictures packed into one sequence; every picture has the same patches in the same windows."""

    @abstractmethod
    def native_order(self) -> Tensor:
        """The row-by-row index of each patch of a picture, (T,), in the order of the native blocks."""

    @property
    def packs_pictures(self) -> bool:
        """True: native blocks take one sequence for all pictures."""
        return True

    @property
    def first_patch(self) -> int:
        """Zero: all tokens are image patches."""
        return 0

    def arranged(self, hidden: Tensor) -> Float[Tensor, "B T D"]:
        """Arranges a native sequence by picture and patch, row by row."""
        return hidden.unflatten(0, (-1, self.spec.n_tokens))[:, self.native_order().argsort()]

    def packed(self, hidden: Float[Tensor, "B T D"]) -> Tensor:
        """The inverse of `arranged`."""
        return hidden[:, self.native_order()].flatten(0, 1)

    def call_block(
        self, block: nn.Module, hidden: Float[Tensor, "B T D"], args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Float[Tensor, "B T D"]:
        """Calls a native block with the windows and positions of one picture, once for each row."""
        T, N = self.spec.n_tokens, len(hidden)
        bounds: Tensor = kwargs["cu_seqlens"]
        own = bounds[bounds <= T]
        windows = torch.cat([own[:1], *(own[1:] + T * row for row in range(N))])
        positions = tuple(part[:T].repeat(N, 1) for part in kwargs["position_embeddings"])
        given = {**kwargs, "cu_seqlens": windows, "position_embeddings": positions}
        return self.arranged(block(self.packed(hidden), *args, **given))

    def recording_attention(self, tokens: Sequence[int]) -> AbstractContextManager[Recorded]:
        """Records patterns and values from the calls of the fused kernel, one for each window."""
        return recorded_by_kernel([block.attn for block in self.blocks], tokens, join=self._joined)

    def _joined(self, calls: Sequence[KernelCall]) -> KernelCall:
        lengths = torch.tensor([call.query.shape[2] for call in calls], device=calls[0].query.device)
        window = self.arranged(torch.arange(len(calls), device=lengths.device).repeat_interleave(lengths)[:, None])

        def together(parts: Sequence[Tensor]) -> Float[Tensor, "B H T d"]:
            sequence = torch.cat(list(parts), dim=2)[0].transpose(0, 1)
            return self.arranged(sequence.flatten(1)).unflatten(2, sequence.shape[1:]).transpose(1, 2)

        return KernelCall(
            query=together([call.query for call in calls]),
            key=together([call.key for call in calls]),
            value=together([call.value for call in calls]),
            attn_mask=(window == window.transpose(1, 2))[:, None],
            scale=calls[0].scale,
            output=together([call.output for call in calls]),
        )
