"""Bitwise reproducible runs on GPUs."""

import os

FLAG = "--xla_gpu_deterministic_ops=true"


def make_deterministic() -> None:
    """Have XLA compile for GPUs without operations whose bits change from run to run.

    Atomic additions, and autotuning, which may select another program each time, are off. Call it
    before the first use of a device: XLA reads its flags once. CPU and TPU programs give the same
    bits anyway.
    """
    flags = os.environ.get("XLA_FLAGS", "").split()
    if FLAG not in flags:
        os.environ["XLA_FLAGS"] = " ".join([*flags, FLAG])
