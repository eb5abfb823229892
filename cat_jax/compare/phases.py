"""Where the time of a comparison goes."""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import jax

COMPILING = (
    "/jax/core/compile/jaxpr_to_mlir_module_duration",
    "/jax/core/compile/backend_compile_duration",
)


class Phases:
    """Seconds by phase; a phase inside another counts for itself alone, and so does compilation.

    Attributes:
        seconds: Seconds by the name of the phase.
    """

    def __init__(self):
        self.seconds: dict[str, float] = defaultdict(float)
        self._open: list[str] = []
        self._since = 0.0

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count the time of the block, without that of phases inside it."""
        self._lap()
        self._open.append(name)
        try:
            yield
        finally:
            self._lap()
            self._open.pop()

    @contextmanager
    def compilation_apart(self) -> Iterator[None]:
        """Within the block, count what JAX lowers and compiles as ``compilation``."""

        def listen(event: str, duration_secs: float, **kwargs: str | int) -> None:
            if event in COMPILING and self._open:
                self.seconds[self._open[-1]] -= duration_secs
                self.seconds["compilation"] += duration_secs

        jax.monitoring.register_event_duration_secs_listener(listen)
        try:
            yield
        finally:
            jax.monitoring.unregister_event_duration_listener(listen)

    def __str__(self) -> str:
        return ", ".join(f"{name} {seconds:.0f} s" for name, seconds in self.seconds.items())

    def _lap(self) -> None:
        now = time.perf_counter()
        if self._open:
            self.seconds[self._open[-1]] += now - self._since
        self._since = now
