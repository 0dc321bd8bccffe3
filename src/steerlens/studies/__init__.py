"""Studies: experiments that test, by intervention, whether the lenses' pictures tell the truth.

`STUDIES` lists them: the command line and the pages of results loop over it. A new study is a folder with a `Study`,
and a line here.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from steerlens.studies.decoder.study import DecoderStudy
from steerlens.studies.identification.study import IdentificationStudy
from steerlens.studies.importance.study import ImportanceStudy
from steerlens.studies.lenses.study import LensesStudy
from steerlens.studies.overlay.study import OverlayStudy
from steerlens.studies.shared.study import Study
from steerlens.studies.strength.study import StrengthStudy

__all__ = ["STUDIES", "Study"]

STUDIES: Mapping[str, Study[Any, Any]] = MappingProxyType(
    {
        study.name: study
        for study in (
            ImportanceStudy(),
            OverlayStudy(),
            StrengthStudy(),
            DecoderStudy(),
            IdentificationStudy(),
            LensesStudy(),
        )
    }
)
"""Every study by name, in the order of the verdict page."""
