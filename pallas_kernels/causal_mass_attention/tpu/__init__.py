"""Kernel for TPUs (v5e, v5p, v6e), through Pallas Mosaic."""
