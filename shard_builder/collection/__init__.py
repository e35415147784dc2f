"""What one asks of a finished collection, wherever it lies: is it whole, what is in it, what does it look like.

Everything here reads through the storage protocol alone, a shard at a time, and changes nothing in the collection.
"""
