"""One file, one sweep: each module defines ``CELLS`` and says what to expect of them."""
