"""What the similarities of a finished run refer to, as a view names it."""

from collections.abc import Mapping
from typing import Any, cast

from steerlens.app.inputs import InputStore
from steerlens.atlas import Atlas


def run_target(run: Atlas, inputs: InputStore) -> tuple[str, str] | None:
    """Returns text and input, one of them empty, that a run compares with; both are empty for each input itself.

    Args:
        run: the run.
        inputs: pictures at hand, one of which may be the run's target.

    Returns:
        None if the run compares with a picture that is not at hand.
    """
    recorded = cast(Mapping[str, Any], run.manifest.get("target") or {})
    source = str(recorded.get("source") or "")
    if not source:
        return "", ""
    if recorded.get("description") == f"the text “{source}”":
        return source, ""
    known = [entry.id for entry in inputs.all() if entry.picture.sha256 == source]
    return ("", known[0]) if known else None
