"""Where collections and checkpoints live: a narrow protocol, folders and object stores behind it, a cache in front.

Paths are strings relative to the store's root with "/" between parts, as in an object store, which is not a file
system: no directories, no append, no rename. A put is atomic: a reader sees the old object, the new one or none.
"""

from gfm_pipeline.storage.counters import Counts, StoreCounters
from gfm_pipeline.storage.local import LocalStore
from gfm_pipeline.storage.options import CacheConfig, StorageConfig, StoreOptions
from gfm_pipeline.storage.store import Store, open_store

__all__ = [
    "CacheConfig",
    "Counts",
    "LocalStore",
    "StorageConfig",
    "Store",
    "StoreCounters",
    "StoreOptions",
    "open_store",
]
