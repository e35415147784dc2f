"""One file for each way to load samples."""
