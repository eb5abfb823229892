"""Data sets by name: on a hub, of tensorflow-datasets, or saved by ``datasets``."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from cat_jax.data.readers.tables import Cells
from cat_jax.errors import InputError
from cat_jax.files import one_line

HUB, TFDS = "hub:", "tfds:"


def hub_parts(name: str) -> tuple[str, str | None, str, str | None]:
    """Return repository, configuration, split and revision of a name ``hub:REPO:SPLIT``.

    The whole form is ``hub:REPO[@REVISION][:CONFIG]:SPLIT``.

    Raises:
        InputError: The name has another form.
    """
    parts = name.removeprefix(HUB).split(":")
    if len(parts) not in (2, 3) or not all(parts):
        raise InputError(
            f"{name!r} must be hub:REPO:SPLIT or hub:REPO:CONFIG:SPLIT, such as "
            "hub:openai/gsm8k:main:train; a revision is written REPO@REVISION"
        )
    repository, _, revision = parts[0].partition("@")
    return repository, parts[1] if len(parts) == 3 else None, parts[-1], revision or None


def read_hub(name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the rows of a data set on the Hugging Face hub with their places.

    Raises:
        InputError: The name is malformed, or the data set cannot be loaded.
    """
    import datasets

    repository, config, split, revision = hub_parts(name)
    try:
        found = datasets.load_dataset(repository, config, split=split, revision=revision)
    except Exception as error:  # of many kinds: no network, no such name, split or configuration
        raise InputError(
            f"{name} cannot be loaded ({one_line(error)}); check the name and the network, or give "
            "a file"
        ) from error
    yield from numbered(name, found)


def tfds_parts(name: str) -> tuple[str, str]:
    """Return name and split of ``tfds:NAME[/CONFIG]:SPLIT``.

    Raises:
        InputError: The name has another form.
    """
    builder, _, split = name.removeprefix(TFDS).partition(":")
    if not (builder and split):
        raise InputError(f"{name!r} must be tfds:NAME/CONFIG:SPLIT, such as tfds:squad/v1.1:train")
    return builder, split


def read_tfds(name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the rows of a prepared data set of tensorflow-datasets, without TensorFlow.

    Raises:
        InputError: The package is missing, the name is malformed, or the data set is not there.
    """
    builder, split = tfds_parts(name)
    try:
        import tensorflow_datasets as tfds  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise InputError(
            f"{name} needs tensorflow-datasets ({one_line(error)}); pip install 'cat-jax[tfds]'"
        ) from error
    try:
        found = tfds.data_source(builder, split=split)
    except Exception as error:  # of many kinds: no such builder, configuration, split or files
        raise InputError(
            f"{name} cannot be read ({one_line(error)}); check the name, or run tfds build"
        ) from error
    yield from numbered(name, (_cells(_plain(row)) for row in found))


def _cells(row: Any) -> Any:
    """Return the cells of a row of texts, which hold lists and objects as JSON."""
    texts = isinstance(row, dict) and all(isinstance(value, str) for value in row.values())
    return Cells(row) if texts else row


def _plain(value: Any) -> Any:
    """Return Python values for numpy's, text for bytes, dicts for a sequence of features."""
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, Mapping):
        return {name: _plain(part) for name, part in value.items()}
    if hasattr(value, "tolist"):
        value = value.tolist()
        return value if not isinstance(value, bytes | list) else _plain(value)
    return [_plain(part) for part in value] if isinstance(value, list | tuple) else value


def is_saved(folder: Path) -> bool:
    """Tell whether ``datasets`` saved a data set, or several, in a folder."""
    return any((folder / name).is_file() for name in ("state.json", "dataset_dict.json"))


def read_saved(folder: Path, split: str | None) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the rows of what ``save_to_disk`` left.

    Args:
        folder: Its folder.
        split: Split of a ``DatasetDict``; None for a ``Dataset``.

    Raises:
        InputError: It is damaged, or has splits of which none is named.
    """
    import datasets

    try:
        found = datasets.load_from_disk(str(folder))
    except Exception as error:  # pyarrow's, of files, of JSON
        raise InputError(
            f"{folder} cannot be read as a saved data set ({one_line(error)}); save it anew"
        ) from error
    if isinstance(found, datasets.DatasetDict):
        if split not in found:
            raise InputError(
                f"{folder} holds the splits {', '.join(map(str, found))}; name one as "
                f"{folder}:{next(iter(found), 'train')}"
            )
        found = found[split]
    elif split is not None:
        raise InputError(f"{folder} holds one data set without splits; leave out :{split}")
    yield from numbered(str(folder), found)


def numbered(name: str, rows: Iterable[Any]) -> Iterator[tuple[str, Any]]:
    """Yield rows with their places."""
    for number, row in enumerate(rows, 1):
        yield f"{name}, row {number}", row
