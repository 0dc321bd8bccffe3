"""Names of sites in a sweep: the nearest texts, sums of texts (OMP), or texts that span heads' writes (TextSpan).

A sum of texts decomposes the same embedding that the Logit Lens reads. TextSpan explains how a head's writes vary over
all inputs, so its texts are the same for each of them; sites that are no heads keep the nearest texts.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import get_args

import torch
from torch import Tensor

from steerlens.encoders import Encoder, Inputs, NativeEncoder
from steerlens.errors import UsageError
from steerlens.images import Picture
from steerlens.lenses import DiffusionLens, Label, LinearAttribution, LogitLens
from steerlens.naming import NamesMethod, TextDecomposition, omp_rows, text_directions, text_span
from steerlens.sites import Site
from steerlens.sweep.job import Job
from steerlens.sweep.options import LookOptions
from steerlens.trace import Trace
from steerlens.vocabulary import Vocabulary

_CONTROLS = 8
"""Random vocabularies that decompositions of every site of every picture are compared with."""


def check_names_of(options: LookOptions, pictures: int) -> None:
    """Checks what can be known of `names` without a model.

    Args:
        options: options of the sweep.
        pictures: number of different inputs.

    Raises:
        UsageError: if there are no texts, or too few inputs for TextSpan.
    """
    if options.names != "nearest" and not options.n_labels:
        raise UsageError(f"names {options.names!r} needs texts: do not ask for 0 of them (--texts, --labels).")
    if options.names == "textspan" and pictures < 2:
        raise UsageError("names 'textspan' explains how writes vary over the inputs; give several pictures.")


def check_names(method: NamesMethod, encoder: Encoder, vocabulary: Vocabulary | None, n_texts: int) -> None:
    """Checks that sites, or heads of a profile, can be named by a method.

    Raises:
        UsageError: if there is no such method, there are no texts, they have no directions, or the readout is not
            linear (TextSpan).
    """
    if method not in get_args(NamesMethod):
        raise UsageError(f"names must be {', '.join(get_args(NamesMethod))}, not {method!r}.")
    if method == "nearest":
        return
    if vocabulary is None or not n_texts:
        advice = "give a vocabulary (--vocabulary)" if n_texts else "do not ask for 0 of them (--texts, --labels)"
        raise UsageError(f"names {method!r} needs texts: {advice}.")
    text_directions(vocabulary)
    if method == "textspan":
        _attribution(encoder)


def spans_of(
    encoder: Encoder, pictures: Iterable[Picture], heads: Sequence[Site], vocabulary: Vocabulary, n_labels: int
) -> dict[Site, TextDecomposition]:
    """Finds the texts that span heads' writes over all inputs (TextSpan); heads that write alike everywhere get none.

    Raises:
        UsageError: if there are no heads, or fewer than two inputs.
    """
    if not heads:
        raise UsageError("names 'textspan' is for heads, and the sites have none.")
    attribution, parts = _attribution(encoder), list[Tensor]()
    for picture in pictures:
        inputs: Inputs = encoder.preprocess([picture.image])
        parts.append(attribution.embeddings(encoder.trace(inputs), heads).float().cpu())
    if len(parts) < 2:
        raise UsageError("names 'textspan' explains how writes vary over the inputs; give several pictures.")
    writes = torch.cat(parts)
    varying = (writes != writes[:1]).any(dim=0).any(dim=-1)
    return {
        head: text_span(writes[:, place], vocabulary, n_labels, controls=_CONTROLS)
        for place, head in enumerate(heads)
        if bool(varying[place])
    }


def labels_of(job: Job, vocabulary: Vocabulary, trace: Trace, sites: Sequence[Site]) -> tuple[Label, ...]:
    """Names the sites of one traced picture."""
    if job.names == "omp":
        embeddings = DiffusionLens(job.encoder, job.directions).embeddings(trace, sites)[0]
        found = omp_rows(embeddings, vocabulary, job.n_labels, controls=_CONTROLS)
        return _labels(dict(zip(sites, found, strict=True)))
    nearest = [site for site in sites if site not in job.spans]
    own = {site: job.spans[site] for site in sites if site in job.spans}
    read = LogitLens(job.encoder, vocabulary, job.directions).read(trace, nearest, job.n_labels)[0] if nearest else ()
    return (*read, *_labels(own))


def _labels(found: Mapping[Site, TextDecomposition]) -> tuple[Label, ...]:
    return tuple(
        Label(site, rank + 1, text.text, text.weight, text.explained, control)
        for site, decomposition in found.items()
        for rank, (text, control) in enumerate(zip(decomposition.texts, decomposition.control, strict=True))
    )


def _attribution(encoder: Encoder) -> LinearAttribution:
    if not isinstance(encoder, NativeEncoder):
        raise UsageError(f"{encoder.spec.name}: names 'textspan' needs an encoder whose readout is known to be linear.")
    return LinearAttribution(encoder)
