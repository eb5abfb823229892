import os
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["HF_HUB_OFFLINE"] = "1"

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Reference data beside the checkout; absent for most people, required in CI."""
    if not SHARED.is_dir():
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI=true but the reference data is missing: {SHARED}")
        pytest.skip(f"no reference data at {SHARED}")
    return SHARED


@pytest.fixture(autouse=True, scope="module")
def _forget_programs():
    """A process may map 65,530 regions of memory, and every compiled program takes several."""
    yield
    jax.clear_caches()


def pytest_collection_modifyitems(items):
    """Fast tests first."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)
