"""`shard-builder bench`: what the builder costs, beside the plainest ways to put the same files into tars."""
