# SPDX-License-Identifier: Apache-2.0
"""Output files: refused where they would destroy an input, written beside their place, renamed when they are whole.

`check_outputs` is called before the work begins, `OutputFile` and `OutputFolder` do the writing: what was under the
name before stays until the new content is complete and on the disk.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
import tempfile
import time
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import combinations, islice
from pathlib import Path
from types import TracebackType
from typing import IO

_LONGEST_PART = 100
"""Of the output's name in a temporary name, in bytes: file systems take 255 bytes for a name."""
_LOOKED_AT = 20_000
READER_SECONDS = 10.0
"""How long the reader of a FIFO is waited for."""
_REMEDIES = {
    errno.ENOSPC: "free some space there, or write to another disk",
    errno.EDQUOT: "the quota is used up: free some space, or write to another disk",
    errno.EFBIG: "the file would be larger than is allowed here (ulimit -f); write less, or raise the limit",
    errno.EROFS: "the disk is read-only; write to another place",
    errno.EIO: "the disk reports an error; write to another one",
}

Named = tuple[str, "Path | None"]
"""An option or argument as the user knows it, and its path; None where it was not given."""


class WriteFailed(OSError):
    """An output could not be written; the text says why, what is there, and what to do."""


def check_outputs(
    outputs: Iterable[Named],
    inputs: Iterable[Named],
    *,
    folders: Iterable[Named] = (),
    new_folders: Iterable[Named] = (),
) -> None:
    """Refuse outputs that would overwrite an input or one another, or that cannot be written.

    Links, hard links, relative paths and differences in case are seen through. An output inside an input folder is
    refused as well, and a folder for outputs that holds a link or a hard link into an input.

    :param outputs: files that will be written. :param folders: folders that files are written into, or will be.
    :param new_folders: folders that must not be there yet. :param inputs: files and folders that are read.
    :raises ValueError: naming both options, the path, and what to do.
    """
    files = [(name, path) for name, path in outputs if path is not None]
    added = [(name, path) for name, path in folders if path is not None]
    new = [(name, path) for name, path in new_folders if path is not None]
    read = [(name, path) for name, path in inputs if path is not None and path.exists()]
    for name, path in files + added + new:
        for other, source in read:
            if _same(path, source):
                raise ValueError(f"{name} {path} would overwrite {other} {source}; give {name} another name")
            if source.is_dir() and _touches(path, source):
                raise ValueError(f"{name} {path} lies inside of {other} {source}; give {name} a place outside of it")
    for (name, path), (other, second) in combinations(files + added + new, 2):
        if _same(path, second) or _key(path) == _key(second):
            raise ValueError(f"{name} and {other} are both {second}; give each its own name")
    for name, path in files:
        if path.is_dir():
            raise ValueError(f"{name} {path} is a folder; give the name of a file")
    for name, path in new:
        if os.path.lexists(path):
            raise ValueError(f"{path} exists already; give {name} another name, nothing is overwritten")
    for name, path in files + new:
        if not path.absolute().parent.is_dir():
            raise ValueError(f"{name}: no folder {path.parent} to write {path.name} to")
        _check_writable(path)
    for name, path in added:
        if path.exists() and not path.is_dir():
            raise ValueError(f"{name} {path} is a file; give the name of a folder")
        links = list(_links(path, {_real(source) for _, source in read}))
        for other, source in read if links else []:
            contents = _identities(source)
            for link in links:
                if _real(link).is_relative_to(_real(source)) or _identity(link) in contents:
                    raise ValueError(
                        f"{link} leads into {other} {source}; remove that link, or give {name} another name"
                    )
        existing = next(one for one in (path, *path.absolute().parents) if one.exists())
        try:
            with tempfile.TemporaryFile(dir=existing):
                pass
        except OSError as error:
            raise write_error(path, error) from error


def _same(path: Path, other: Path) -> bool:
    try:
        return path.samefile(other)
    except OSError:
        return _real(path) == _real(other)


def _links(folder: Path, without: set[Path]) -> Iterator[Path]:
    """Yield the links, and the files with several hard links, among the first `_LOOKED_AT` files and folders below a
    folder, but not those in ``without``.
    """
    count = 0
    for parent, folders, files in os.walk(folder):
        folders[:] = [
            name for name in folders if _real(Path(parent, name)) not in without or Path(parent, name).is_symlink()
        ]
        for path in (Path(parent, name) for name in (*folders, *files)):
            count += 1
            if path.is_symlink() or (path.is_file() and path.stat().st_nlink > 1 and _real(path) not in without):
                yield path
        if count > _LOOKED_AT:
            return


def _identities(source: Path) -> set[tuple[int, int] | None]:
    """Return what tells a file, or the first `_LOOKED_AT` files below a folder, under any of their names."""
    below = (Path(parent, name) for parent, _, names in os.walk(source) for name in names)
    return {_identity(path) for path in (source, *islice(below, _LOOKED_AT))} - {None}


def _identity(path: Path) -> tuple[int, int] | None:
    """Return device and inode; None if there is no such file."""
    try:
        info = path.stat()
    except OSError:
        return None
    return info.st_dev, info.st_ino


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))


def _key(path: Path) -> str:
    """Return what two names have in common that some file systems take for one."""
    return unicodedata.normalize("NFC", str(_real(path))).casefold()


def _touches(path: Path, folder: Path) -> bool:
    """Tell whether a file lies in a folder, or is one of its files under another name: a link or a hard link."""
    if _real(path).is_relative_to(_real(folder)):
        return True
    with os.scandir(folder) as entries:
        return path.is_file() and any(
            (entry.is_symlink() or entry.inode() == path.stat().st_ino) and _same(path, Path(entry.path))
            for entry in entries
        )


def _shortened(name: str) -> str:
    return os.fsencode(name)[:_LONGEST_PART].decode(errors="ignore")


def _check_writable(path: Path) -> None:
    """Raise WriteFailed if a file could not be made or replaced: a protected file is not replaced by a rename."""
    real = _real(path)
    if real.exists() and not os.access(real, os.W_OK):
        raise WriteFailed(f"{path} is write-protected; give another name, or make it writable")
    if not is_stream(path) and not os.access(real.parent, os.W_OK | os.X_OK):
        raise WriteFailed(f"{path} cannot be written: its folder is not there or not writable; give another")


def is_stream(path: Path) -> bool:
    """Tell whether a path leads to a device or a FIFO, such as /dev/stdout, which is written to and never replaced."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


class OutputFile:
    """A file that appears under its name when it is complete; until then it is ``partial``, beside it.

    As a context manager it gives ``partial``, which exists and is empty, and commits at the end of the block; after an
    exception nothing of it is left. ``partial`` ends as the name does, and is hidden.

    :raises ValueError: for a folder or a device. :raises WriteFailed: if nothing can be written there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._real = _real(path)
        if path.is_dir() or is_stream(path):
            raise ValueError(f"{path} is no regular file; give the name of a file to write")
        _check_writable(path)
        self._mode = stat.S_IMODE(self._real.stat().st_mode) if self._real.exists() else None
        self._complete = False
        stem, suffix = _shortened(self._real.stem), _shortened(self._real.suffix)
        self.partial = self._real.with_name(f".{stem}.{secrets.token_hex(4)}.partial{suffix}")
        try:
            os.close(os.open(self.partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        except OSError as error:
            raise write_error(path, error) from error

    def __enter__(self) -> Path:
        return self.partial

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.commit()
            return
        self.discard()
        if isinstance(error, OSError) and error.errno in _REMEDIES:
            raise write_error(self.path, error) from error

    def commit(self) -> None:
        """Put the file under its name, once its content is on the disk.

        :raises WriteFailed: if that fails; nothing of it is left then, or its whole content under a name that it says.
        """
        try:
            sync_file(self.partial)
        except OSError as error:
            self.discard()
            raise write_error(self.path, error) from error
        try:
            if self._mode is not None:
                self.partial.chmod(self._mode)
            self.partial.replace(self._real)
        except OSError as error:  # such as a file of another user in /tmp, or a mounted one
            self._complete = True
            raise WriteFailed(
                f"{self.path} cannot be replaced ({error.strerror}); the whole output is kept as {self.partial}"
            ) from error
        _sync_folder(self._real.parent)

    def discard(self) -> None:
        """Remove what was written, unless it is whole; what was there before stays."""
        if self._complete:
            return
        self.partial.unlink(missing_ok=True)


class OutputFolder:
    """A new folder that appears under its name when it is complete; until then it is ``partial``, which is to be made.

    :raises ValueError: if the name is taken. :raises WriteFailed: if nothing can be written there.
    """

    def __init__(self, path: Path) -> None:
        if os.path.lexists(path):
            raise ValueError(f"{path} exists already; give another name, nothing is overwritten")
        self.path = path
        self._real = _real(path)
        _check_writable(path)
        try:
            prefix = f".{_shortened(self._real.name)}."
            self._around = Path(tempfile.mkdtemp(dir=self._real.parent, prefix=prefix, suffix=".partial"))
        except OSError as error:
            raise write_error(path, error) from error
        self.partial = self._around / self._real.name

    def commit(self) -> None:
        """Put the folder under its name, once its files are on the disk.

        :raises WriteFailed: if that fails; nothing of it is left then.
        """
        try:
            for file in self.partial.rglob("*"):
                if file.is_file():
                    sync_file(file)
            if os.path.lexists(self._real):
                raise FileExistsError(errno.EEXIST, "it has come to exist meanwhile", str(self.path))
            self.partial.rename(self._real)
        except OSError as error:
            raise write_error(self.path, error) from error
        finally:
            self.discard()
        _sync_folder(self._real.parent)

    def discard(self) -> None:
        """Remove what was written."""
        shutil.rmtree(self._around, ignore_errors=True)


@contextmanager
def in_place(path: Path, mode: str) -> Iterator[IO[bytes]]:
    """Open a file that is changed in place, as the only name of its content: another hard link keeps what it has now.

    :raises WriteFailed: if the disk is full, or fails.
    """
    try:
        if path.is_file() and path.stat().st_nlink > 1:
            with OutputFile(path) as partial:
                shutil.copyfile(path, partial)
        with path.open(mode) as file:
            yield file
    except OSError as error:
        if error.errno in _REMEDIES:
            raise write_error(path, error) from error
        raise


def append_line(path: Path, line: str) -> None:
    """Add a line to a file; one that ends within a line, as after a loss of power, gets the end of that before.

    :raises WriteFailed: if the disk is full, or fails.
    """
    with in_place(path, "a+b") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                line = "\n" + line
        file.write(line.encode() + b"\n")


def write_text(path: Path, text: str) -> None:
    """Write a text as UTF-8; a device or FIFO such as /dev/stdout is written to as it is, but one that nobody reads.

    :raises WriteFailed: if it cannot be written; a regular file is then as it was before.
    """
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file; see `write_text`."""
    if is_stream(path):
        try:
            with open(path, "wb", opener=_open_stream) as file:
                file.write(content)
        except OSError as error:
            raise WriteFailed(f"cannot write to {path}: {error.strerror}") from error
        return
    with OutputFile(path) as partial:
        partial.write_bytes(content)


def _open_stream(name: str, flags: int) -> int:
    """Open a device or FIFO; the system would wait for the reader of a FIFO for ever, whatever signals come.

    :raises OSError: if nobody reads a FIFO for `READER_SECONDS`.
    """
    end = time.monotonic() + READER_SECONDS
    while stat.S_ISFIFO(os.stat(name).st_mode):
        try:
            number = os.open(name, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            if time.monotonic() > end:
                raise OSError(errno.ENXIO, "nobody reads from it; start its reader first") from error
            time.sleep(0.05)
        else:
            os.set_blocking(number, True)
            return number
    return os.open(name, flags)


def write_error(path: Path, error: Exception | str) -> WriteFailed:
    """Return the error for an output that could not be written or finished."""
    number = error.errno if isinstance(error, OSError) else None
    why = (error.strerror if isinstance(error, OSError) else None) or str(error)
    remedy = _REMEDIES.get(number or 0, "see that its folder is there, writable, and has space left")
    kept = "what was there before is kept" if path.exists() else "nothing of it is left"
    return WriteFailed(f"{path} could not be written ({why}), {kept}; {remedy}")


def sync_file(path: Path) -> None:
    """Bring the content of a file to the disk, also what was written into it through a mapping.

    :raises OSError: if the disk is full, or fails.
    """
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Make a rename last through a loss of power, where the file system can."""
    try:
        number = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(number)
    except OSError:
        pass
    finally:
        os.close(number)
