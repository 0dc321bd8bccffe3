"""Storage: atomic files, locks and checked weights on disk."""

from typing import TYPE_CHECKING

from steerlens._lazy import lazy_names

if TYPE_CHECKING:
    from steerlens.storage.files import atomic_file, atomic_write, files_under, make_folder, storing, write_json
    from steerlens.storage.folder import OwnedFolder, distinct_names, is_plain_name, safe_name
    from steerlens.storage.lock import LOCK_FILE, is_being_written, only_writer
    from steerlens.storage.weights import check_finite, file_hash, load_module, quiet_libraries, read_json, read_tensors

__all__ = [
    "LOCK_FILE",
    "OwnedFolder",
    "atomic_file",
    "atomic_write",
    "check_finite",
    "distinct_names",
    "file_hash",
    "files_under",
    "is_being_written",
    "is_plain_name",
    "load_module",
    "make_folder",
    "only_writer",
    "quiet_libraries",
    "read_json",
    "read_tensors",
    "safe_name",
    "storing",
    "write_json",
]

__getattr__, __dir__ = lazy_names(__name__)
