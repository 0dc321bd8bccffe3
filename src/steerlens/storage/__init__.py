"""Storage: atomic files, locks and checked weights on disk."""

from typing import TYPE_CHECKING

from steerlens._lazy import lazy_names

if TYPE_CHECKING:
    from steerlens.storage.building import check_before_building, no_larger_than
    from steerlens.storage.cache import cache_folder
    from steerlens.storage.configs import check_library_folder, is_inside, parse_json, read_json, read_yaml, too_large
    from steerlens.storage.files import atomic_file, atomic_write, files_under, make_folder, storing, write_json
    from steerlens.storage.folder import OwnedFolder, distinct_names, is_plain_name, safe_name
    from steerlens.storage.lock import LOCK_FILE, is_being_written, only_writer
    from steerlens.storage.sums import check_sum, write_with_sum
    from steerlens.storage.tensors import load_tensors, open_tensors, parse_pytorch, read_pytorch, read_safetensors
    from steerlens.storage.weights import check_finite, file_hash, load_module, quiet_libraries, read_tensors

__all__ = [
    "LOCK_FILE",
    "OwnedFolder",
    "atomic_file",
    "atomic_write",
    "cache_folder",
    "check_before_building",
    "check_finite",
    "check_library_folder",
    "check_sum",
    "distinct_names",
    "file_hash",
    "files_under",
    "is_being_written",
    "is_inside",
    "is_plain_name",
    "load_module",
    "load_tensors",
    "make_folder",
    "no_larger_than",
    "only_writer",
    "open_tensors",
    "parse_json",
    "parse_pytorch",
    "quiet_libraries",
    "read_json",
    "read_pytorch",
    "read_safetensors",
    "read_tensors",
    "read_yaml",
    "safe_name",
    "storing",
    "too_large",
    "write_json",
    "write_with_sum",
]

__getattr__, __dir__ = lazy_names(__name__)
