"""Online half of the product: collections -> heterogeneous batches -> model -> DeepSpeed -> checkpoints."""

__version__ = "0.1.0"
