"""The SigLIP tower that `AutoencoderRAE` expects, whatever transformers is installed.

diffusers 0.42 reaches the tower's last norm as `model.vision_model.post_layernorm`, and published weights carry these
names. Since transformers 5, `SiglipVisionModel` is that tower itself. While an autoencoder is built, diffusers is given
a module with the tower inside; once diffusers builds it without help, nothing is replaced.
"""

from collections.abc import Generator
from contextlib import contextmanager
from threading import Lock
from typing import Any, cast

import torch
from diffusers.models.autoencoders import autoencoder_rae
from torch import nn
from transformers import SiglipVisionModel

_BUILDING = Lock()


class NestedTower(nn.Module):
    """A SigLIP tower under the name `vision_model`, as in transformers 4.

    Args:
        config: config of the tower.
    """

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.vision_model = SiglipVisionModel(config)

    def forward(self, *inputs: Any, **options: Any) -> Any:
        """Runs the tower."""
        return self.vision_model(*inputs, **options)


def builds_unaided() -> bool:
    """True if diffusers builds its SigLIP autoencoder by itself, found by building a small one without numbers."""
    build: Any = cast(Any, autoencoder_rae)._build_encoder
    try:
        with torch.device("meta"):
            build("siglip2", hidden_size=64, patch_size=16, num_hidden_layers=1)
    except AttributeError as error:
        if error.name != "vision_model" and "vision_model" not in str(error):
            raise
        return False
    return True


@contextmanager
def expected_tower() -> Generator[None]:
    """Lets diffusers build a SigLIP autoencoder while open, by one thread at a time."""
    namespace: Any = autoencoder_rae
    with _BUILDING:  # before the check, which another thread's replacement would mislead
        if builds_unaided():
            yield
            return
        own = namespace.SiglipVisionModel
        namespace.SiglipVisionModel = NestedTower
        try:
            yield
        finally:
            namespace.SiglipVisionModel = own
