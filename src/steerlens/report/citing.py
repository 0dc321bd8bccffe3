"""Where a page or a figure comes from, and how to cite it."""

from collections.abc import Mapping
from typing import Any

from steerlens._version import __version__
from steerlens.printable import without_folders

BIBTEX = """@software{{steerlens,
  title   = {{steerlens: what each part of a Vision Transformer writes into its image embedding, as pictures}},
  author  = {{{{The steerlens authors}}}},
  version = {{{version}}},
  year    = {{2026}},
  license = {{Apache-2.0}}
}}

@article{{takatsuki2025decoding,
  title   = {{Decoding Vision Transformers: the Diffusion Steering Lens}},
  author  = {{Takatsuki, R. and Joseph, S. and Fujisawa, I. and Kanai, R.}},
  journal = {{arXiv:2504.13763}},
  year    = {{2025}}
}}
"""


def bibtex() -> str:
    """Entries for the software, in this version, and for the paper of the method."""
    return BIBTEX.format(version=__version__)


def model_name(manifest: Mapping[str, Any], default: str = "") -> str:
    """Name of the pair that a run states, without folders of the machine."""
    provenance = manifest.get("provenance")
    name = provenance.get("name") if isinstance(provenance, Mapping) else None
    return without_folders(str(name)) if name else default


def command_of(manifest: Mapping[str, Any]) -> str:
    """Command that made a run, without folders of the machine; empty if it does not state one."""
    command = manifest.get("command")
    return " ".join(without_folders(word) for word in command.split(" ")) if isinstance(command, str) else ""


def made_by(manifest: Mapping[str, Any], model: str) -> dict[str, str]:
    """Version, model and command, as the metadata of figures state them."""
    facts = {
        "version": f"steerlens {__version__}",
        "model": model_name(manifest, model),
        "command": command_of(manifest),
    }
    return {name: value for name, value in facts.items() if value}
