"""Runs: results on disk, written once and read part by part."""

from typing import TYPE_CHECKING

from steerlens._lazy import lazy_names

if TYPE_CHECKING:
    from steerlens.runs.cards import StoredCards, write_cards, writing_cards
    from steerlens.runs.difference import first_difference
    from steerlens.runs.export import export_parquet, export_pictures, refuse_run
    from steerlens.runs.manifest import fingerprint, known_by, plan_to_json, spec_to_json
    from steerlens.runs.merge import merge_runs
    from steerlens.runs.store import RunWriter, load_run, open_run
    from steerlens.runs.summary import RunSummary, run_summary
    from steerlens.runs.tables import IMAGE, image_value, table_bytes
    from steerlens.runs.verify import Verification, verify_run

__all__ = [
    "IMAGE",
    "RunSummary",
    "RunWriter",
    "StoredCards",
    "Verification",
    "export_parquet",
    "export_pictures",
    "fingerprint",
    "first_difference",
    "image_value",
    "known_by",
    "load_run",
    "merge_runs",
    "open_run",
    "plan_to_json",
    "refuse_run",
    "run_summary",
    "spec_to_json",
    "table_bytes",
    "verify_run",
    "write_cards",
    "writing_cards",
]

__getattr__, __dir__ = lazy_names(__name__)
