"""Size of the logits that attention rounds, which says how exact its patterns can be."""

from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

USUAL_LOGIT = 20.0
"""Size of attention logits up to which rounding stays within the usual tolerance, 4 eps for each unit of logit."""


class LargestLogit(TorchFunctionMode):
    """Keeps the size of the largest finite input of every softmax that is called while it is open."""

    size = 0.0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Looks at the input of a softmax, and calls the function."""
        if getattr(func, "__name__", "") == "softmax" and args and isinstance(args[0], Tensor):
            size = args[0].detach().abs()
            self.size = max(self.size, float(torch.where(size.isfinite(), size, 0).max()))
        return func(*args, **(kwargs or {}))
