"""Text files, compressed or not, a part in memory at a time."""

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from cat_jax.errors import InputError
from cat_jax.files import one_line

CHUNK = 1 << 16


@contextmanager
def open_text(path: Path) -> Iterator[IO[str]]:
    r"""Open a UTF-8 file for reading, decompressed if its name ends in ``.gz`` or ``.zst``.

    Only ``\n`` ends a line. The mark with which editors on Windows begin a file is dropped.

    Raises:
        InputError: The file cannot be read, is no UTF-8, or its compression is damaged; errors of
            reading in the block too.
    """
    kind = path.suffix.removeprefix(".")
    try:
        with _open_binary(path) as binary, io.TextIOWrapper(binary, "utf-8-sig", newline="\n") as f:
            yield f
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text: {error}; save it as UTF-8") from error
    except (gzip.BadGzipFile, zlib.error, EOFError, _Damaged) as error:
        raise InputError(
            f"{path} is no {kind} file, or is cut short ({one_line(error)}); make it anew"
        ) from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; check the path") from error
    except ValueError as error:  # a name that holds NUL
        if isinstance(error, InputError):
            raise
        raise InputError(f"cannot read {str(path)!r}: {error}; check the path") from error


def _open_binary(path: Path) -> Any:
    if path.suffix == ".gz":
        return gzip.open(path)
    file = path.open("rb")
    return io.BufferedReader(_Zstandard(file)) if path.suffix == ".zst" else file


class _Damaged(Exception):
    """Compressed data that is none."""


class _Zstandard(io.RawIOBase):
    """Decompressed bytes of a file; zstandard's own reader takes a file cut short for a whole."""

    def __init__(self, file: IO[bytes]):
        self._file, self._chunks, self._rest = file, _decompressed(file), b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._rest = chunk
        size = min(len(buffer), len(self._rest))
        buffer[:size], self._rest = self._rest[:size], self._rest[size:]
        return size

    def close(self) -> None:
        self._file.close()
        super().close()


def _decompressed(file: IO[bytes]) -> Iterator[bytes]:
    import zstandard

    frame = None
    while chunk := file.read(CHUNK):
        while chunk:
            frame = frame or zstandard.ZstdDecompressor().decompressobj()
            try:
                yield frame.decompress(chunk)
            except zstandard.ZstdError as error:
                raise _Damaged(error) from error
            chunk = frame.unused_data if frame.eof else b""
            frame = None if frame.eof else frame
    if frame is not None:
        raise _Damaged("it ends within a frame")
