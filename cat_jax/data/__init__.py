"""Records, their alignment to tokens, and batches of aligned examples."""
