"""Training: the optimizer, and what a run keeps."""
