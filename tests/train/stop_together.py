"""Run by ``test_stop_together.py`` as each of two processes with two devices."""

import sys
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from toy import CONFIG, Toy

from cat_jax.errors import Interrupted


def place(state):
    """Split over all devices of both processes."""
    mesh = Mesh(np.array(jax.devices()), "x")

    def put(leaf):
        spec = PartitionSpec(None, "x") if leaf.ndim else PartitionSpec()
        return jax.device_put(np.asarray(leaf), NamedSharding(mesh, spec))

    return jax.tree.map(put, state)


def main(number, port, folder):
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"localhost:{port}", num_processes=2, process_id=number)
    config = replace(CONFIG, steps=100_000, save_every=20)
    run = Toy(folder, config, place=place, log_folder=folder / str(number))
    try:
        run()
    except Interrupted as error:
        print(error, error.signum)


main(int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
