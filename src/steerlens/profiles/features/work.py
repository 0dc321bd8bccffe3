"""Work, memory and size of feature dashboards, counted before anything is computed."""

from dataclasses import dataclass

from steerlens.encoders import EncoderSpec
from steerlens.lenses import trained_tokens
from steerlens.profiles.features.activations import BINS
from steerlens.profiles.features.effects import ablation_place, layers_of_heads
from steerlens.profiles.features.fit import FIT_BATCHES
from steerlens.profiles.features.options import FeatureOptions, reads_values
from steerlens.saes import SparseAutoencoder
from steerlens.sites import Site
from steerlens.studies.shared import Work

_COPIES = 3
"""Tensors as large as the activations of a batch that exist at once: projection, activations, and what is counted."""

_TEXT_BYTES = 2000
"""Approximate bytes of a feature on the disk besides its token heat maps: texts, histogram, heads, similar features."""

_THUMBNAIL_BYTES = 1500


@dataclass(frozen=True)
class FeatureWork:
    """Largest work of feature dashboards: features that no picture activates are not ablated.

    Attributes:
        work: pictures, passes and decoded pictures.
        features: number of features.
        memory_bytes: memory besides the weights of the models: the autoencoder, the meter, and activations of a batch.
        disk_bytes: size of the folder without decoded pictures.
    """

    work: Work
    features: int
    memory_bytes: int
    disk_bytes: int


def feature_work(spec: EncoderSpec, sae: SparseAutoencoder, pictures: int, options: FeatureOptions) -> FeatureWork:
    """Counts the work of feature dashboards over a number of pictures."""
    F, L = sae.n_features, spec.n_layers
    values = 1.0 if sae.space == "residual" else 2.0
    on_tokens = sae.trained_on in ("all", "patch") and not sae.reads_embedding
    passes = pictures * values + min(pictures, FIT_BATCHES * options.batch) * (1 + on_tokens)
    if reads_values(sae, options):
        passes += pictures * values
    if options.ablate:
        if isinstance(sae.site, Site):
            _, first = ablation_place(sae, L)
            # Each batch tries the last block with all its pictures, and the shortcuts with ten rows.
            recorded = pictures * (1 + 1 / L) + 10 * -(-pictures // options.batch) / L
            passes += 2 * (recorded + F * (L - first) / L)  # the feature, and its control
        else:
            passes += 2 * pictures * values
    passes += pictures * bool(len(layers_of_heads(sae)))
    decoded = {options.decode: 2 * min(options.n_decoded, F)} if options.n_decoded else {}
    T = 1 if sae.reads_embedding else len(trained_tokens(sae, spec))
    kept = options.n_top * T
    meter = F * (kept + 12 * options.n_top + 8 * BINS + 32)
    weights = 4 * (2 * sae.width * F + F)
    batch = 4 * _COPIES * min(options.batch, pictures) * T * F
    # The heat maps are stored in the meter's state, the table and the page.
    disk = F * (3 * kept + _TEXT_BYTES) + pictures * _THUMBNAIL_BYTES
    return FeatureWork(Work(pictures, 0, 0, passes, decoded), F, weights + 2 * meter + batch, disk)
