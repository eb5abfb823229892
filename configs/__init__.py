"""One file, one experiment: each module defines ``CONFIG`` and says what to expect of it."""
