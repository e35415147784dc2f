"""Offline half of the product: raw satellite archives -> collections of paired WebDataset shards."""
