"""From collections to batches, in the order in which a sample passes:

mixture   opens the manifests: which shards each stream uses, sensors, normalisation
plan      which sample is taken when, by which lane (`order`, `turns`): pure, seekable, independent of the world size
reader    verified pixels of a sample, fetched a chunk at a time by ranges from `shard_index`
prepare   crop and flip (`augment`), normalise (`normalize`), hide cells (`masking`)
loader    threads that do so a few steps ahead; `batch` is what they deliver, `state` where a run stands
"""
