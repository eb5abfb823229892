"""Whether a job fits one device, such as a consumer GPU: in closed form, nothing is compiled."""

from collections.abc import Iterable

from cat_jax.markdown import markdown_table
from experiments.planning.costs import memory_parts
from experiments.planning.job import Job, Layout

GB = 10**9
TITLES = ("frozen", "trained", "working", "total")


def device_table(jobs: Iterable[Job], gigabytes: Iterable[float]) -> str:
    """Return a table with a row per job: its memory on one device, and on which it fits.

    Args:
        jobs: Jobs whose sequences are all on the device at once.
        gigabytes: Memory of the devices that are asked about, in 10^9 bytes.
    """
    sizes = list(gigabytes)
    rows = [
        [
            job.name,
            job.trained,
            f"{job.sequences} x {job.length}",
            *(f"{size / GB:.2f}" for size in (*parts.values(), total)),
            *("yes" if total <= size * GB else "no" for size in sizes),
        ]
        for job in jobs
        for parts in [memory_parts(job, Layout(1, 1, 1))]
        for total in [sum(parts.values())]
    ]
    fits = [f"fits {size:g} GB" for size in sizes]
    columns = ["model", "trained", "sequences x positions", *(f"{t}, GB" for t in TITLES), *fits]
    return markdown_table(columns, rows)
