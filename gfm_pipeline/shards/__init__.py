"""The shard contract: what a collection is on disk, shared by the builder that writes and the loader that reads.

manifest.json           written last; a folder without it is not a collection yet
shards/<name>-NNNNNN.tar    plain WebDataset tar; members <key>.<sensor>.<ext> and <key>.json
shards/<name>-NNNNNN.json   sidecar, the commit record of its tar: offsets, sizes, crc32, sha256, statistics
catalog.parquet         GeoParquet of all samples
failures.jsonl          every item that could not be packed, with the reason
"""

FORMAT_NAME = "gfm-collection"
FORMAT_VERSION = 1

MANIFEST_PATH = "manifest.json"
CATALOG_PATH = "catalog.parquet"
FAILURES_PATH = "failures.jsonl"
SHARDS_PREFIX = "shards"
