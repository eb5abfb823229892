"""Commands keep what XLA has compiled, so that the next one need not compile it again."""

import os
from pathlib import Path

SETTINGS = {
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.3",
    "JAX_COMPILATION_CACHE_MAX_SIZE": str(2 << 30),  # bytes; the least recently used go first
}


def default_folder() -> Path:
    """Return the folder of compiled programs: ``cat_jax/programs`` in the user's cache folder.

    Raises:
        RuntimeError: The user has no home folder.
    """
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "cat_jax" / "programs"


def keep_programs() -> None:
    """Turn on JAX's persistent compilation cache, where the environment does not say otherwise.

    To be called before JAX is imported. ``JAX_COMPILATION_CACHE_DIR`` names another folder, and
    ``JAX_ENABLE_COMPILATION_CACHE=false`` turns the cache off. Without a folder that can be written
    there is none: every command compiles.
    """
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    try:
        folder = default_folder()
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):
        return
    if os.access(folder, os.W_OK):
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder)
        for name, value in SETTINGS.items():
            os.environ.setdefault(name, value)
