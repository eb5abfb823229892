import os

import pytest


@pytest.fixture
def tpu_compiler():
    """Skip without libtpu; fail in CI."""
    try:
        import libtpu  # noqa: F401
    except ImportError:
        if os.environ.get("CI") == "true":
            pytest.fail("CI=true, but libtpu is not installed: make test EXTRAS=test,compilers")
        pytest.skip("libtpu is not installed: make test EXTRAS=test,compilers")
