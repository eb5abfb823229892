"""A folder that stands in for an object store, for the paths of etils and for tensorstore."""

from pathlib import Path

import pytest
from etils.epath import backend as path_backend
from fsspec.implementations.dirfs import DirFileSystem
from fsspec.implementations.local import LocalFileSystem
from fsspec.registry import _registry
from orbax.checkpoint._src.path import gcs_utils
from tensorboardX import record_writer

GCS = "gs://"


class FolderStore(DirFileSystem):
    """The object ``gs://BUCKET/NAME`` is the file ``ROOT/BUCKET/NAME``; folders make themselves."""

    protocol = ("gs", "gcs")
    cachable = False
    root: Path

    def __init__(self, **options):
        super().__init__(str(self.root), LocalFileSystem(auto_mkdir=True))


class _LocalEvents:
    """Opens event files of tensorboardX in the folder."""

    def __init__(self, root):
        self.root = root

    def directory_check(self, path):
        (self.root / path.removeprefix(GCS)).mkdir(parents=True, exist_ok=True)

    def open(self, path):
        file = self.root / path.removeprefix(GCS)
        file.parent.mkdir(parents=True, exist_ok=True)
        return file.open("wb")


def stand_in(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Serve ``gs://`` paths from a folder while a test runs."""
    store = type("Store", (FolderStore,), {"root": root})
    monkeypatch.setitem(_registry, "gcs", store)
    path_backend.fsspec_backend._get_filesystem.cache_clear()
    monkeypatch.setattr(gcs_utils, "is_hierarchical_namespace_enabled", lambda path: False)
    monkeypatch.setitem(record_writer.REGISTERED_FACTORIES, "gs", _LocalEvents(root))
    monkeypatch.setattr(
        gcs_utils,
        "get_kvstore_for_gcs",
        lambda path: {"driver": "file", "path": str(root / path.removeprefix(GCS))},
    )
