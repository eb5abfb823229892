import json

import pytest

from cat_jax.data.sources import read_records


@pytest.fixture
def read(tmp_path):
    """Reads JSONL lines, given as text or as values."""

    def read(*lines):
        path = tmp_path / "rows.jsonl"
        texts = (line if isinstance(line, str) else json.dumps(line) for line in lines)
        path.write_text("\n".join(texts))
        return read_records(path)

    return read
