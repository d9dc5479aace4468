"""Files that only their owner may read, replaced whole and durably.

Every error of the operating system leaves here as a ``TokenStoreError`` that names the path and what was
tried.

Trusted are the user this process runs as, and root, who can do anything anyway. What belongs to anybody else was put
there by somebody who may read or replace it.
"""

import errno
import logging
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from ledger.one_line import one_line
from ledger.store_errors import TokenIOError, TokenPermissionDenied, TokenStoreError
from ledger.stores.links import LinkRefused, target_within

__all__ = [
    "make_private_folder",
    "names_in",
    "os_errors_as_store_errors",
    "read_private",
    "refuse_foreign_folder",
    "refuse_link",
    "remove",
    "replace_private",
    "sync_folder",
    "write_new_private",
]

_POSIX: Final = os.name == "posix"
# A planted link must not be followed, nor a planted pipe waited for.
_NO_SURPRISES: Final = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_READ: Final = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | _NO_SURPRISES
_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0) | _NO_SURPRISES

_log = logging.getLogger(__name__)


def _store_error(error: OSError, doing: str, path: str) -> TokenStoreError:
    if error.errno == errno.ELOOP and Path(path).is_symlink():
        return TokenPermissionDenied(
            f"cannot {doing} {one_line(path)}: it is a symbolic link, and those are not followed"
        )
    kind = TokenPermissionDenied if isinstance(error, PermissionError) else TokenIOError
    return kind(f"cannot {doing} {one_line(path)}: {error.strerror or type(error).__name__}")


@contextmanager
def os_errors_as_store_errors(doing: str, path: str) -> Iterator[None]:
    """Turn an ``OSError`` of the block into the ``TokenStoreError`` for it.

    Raises:
        TokenPermissionDenied: The operating system refused access.
        TokenIOError: Anything else went wrong.
    """
    try:
        yield
    except OSError as error:
        raise _store_error(error, doing, path) from error


def read_private(path: str, *, links_within: str | None = None) -> bytes | None:
    """Read a whole file; ``None`` when there is none, or no folder for it.

    Others may have been let in since it was written, by a copy or a careless ``chmod``. Then their access is
    taken away before anything is read, and a warning is logged: the secret may be known. What root lets a group
    of ours read, and nobody write, is read as it is.

    Args:
        path: The file.
        links_within: A folder inside of which symbolic links are followed, as :mod:`ledger.stores.links` says;
            elsewhere they never are.

    Raises:
        TokenPermissionDenied: It may not be read, is a symbolic link that is not followed, or is open to others and
            cannot be closed.
        TokenIOError: It is no regular file, or reading failed.
    """
    try:
        fd = _open(path, links_within)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _store_error(error, "read", path) from error
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise TokenIOError(f"cannot read {one_line(path)}: it is not a regular file")
        if found.st_mode & 0o077 and _POSIX and not _is_lent(found):
            _close_to_others(fd, path)
        data = os.read(fd, found.st_size + 1)
        if len(data) != found.st_size:
            while more := os.read(fd, 1 << 20):
                data += more
        return data
    except OSError as error:
        raise _store_error(error, "read", path) from error
    finally:
        os.close(fd)


def _open(path: str, links_within: str | None) -> int:
    try:
        return os.open(path, _READ)
    except OSError as error:
        if error.errno != errno.ELOOP or links_within is None:
            raise
    try:
        return os.open(target_within(path, links_within), _READ)
    except LinkRefused as refused:
        raise TokenPermissionDenied(f"cannot read {one_line(path)}: {refused}") from None
    except FileNotFoundError:
        raise TokenIOError(f"cannot read {one_line(path)}: it is a symbolic link that leads to nothing") from None


def _is_lent(found: os.stat_result) -> bool:
    return found.st_uid == 0 != os.geteuid() and not found.st_mode & 0o037


def refuse_link(path: str) -> None:
    """Make sure that replacing a file would not replace a symbolic link.

    Raises:
        TokenPermissionDenied: It is one; the message says the way on.
    """
    if Path(path).is_symlink():
        raise TokenPermissionDenied(
            f"cannot write {one_line(path)}: it is a symbolic link, which whoever made it would miss, and where it "
            "leads to would keep old tokens; put the file itself in its place (cp --remove-destination), or keep "
            "these tokens in another folder"
        )


def refuse_foreign_folder(path: str) -> None:
    """Make sure that a folder belongs to nobody else. One that is not there belongs to nobody.

    Raises:
        TokenPermissionDenied: It belongs to another user, who can put other tokens in the place of these.
        TokenIOError: It cannot be looked at.
    """
    try:
        owner = os.stat(path).st_uid  # noqa: PTH116  # on the way of every reading
    except FileNotFoundError:
        return
    except OSError as error:
        raise _store_error(error, "use the folder", path) from error
    if _POSIX and owner not in (os.geteuid(), 0):
        raise TokenPermissionDenied(
            f"the folder {one_line(path)} belongs to another user (uid {owner}): use a folder of your own, or chown it"
        )


def _close_to_others(fd: int, path: str) -> None:
    try:
        os.fchmod(fd, 0o600)
    except OSError as error:
        raise TokenPermissionDenied(
            f"{one_line(path)} is open to other users, and its mode cannot be changed: run chmod 600 on it as its "
            "owner, or mount it with a mode such as 0400"
        ) from error
    _log.warning("%s was open to other users; its mode is 0600 now, but the tokens may be known", path)


def write_new_private(path: str, data: bytes) -> None:
    """Create a file that is 0600 from its first byte, whatever the umask, and bring it to the disk.

    A failure leaves no file. The name is on the disk only once its folder is synced too.

    Raises:
        OSError: It exists already, or could not be written.
    """
    fd = os.open(path, _CREATE, 0o600)
    try:
        try:
            if _POSIX:
                os.fchmod(fd, 0o600)
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(fd, rest) :]
            os.fsync(fd)
        finally:
            os.close(fd)
    except BaseException:
        with suppress(OSError):
            Path(path).unlink()
        raise


def replace_private(path: str, data: bytes, *, by_way_of: str) -> None:
    """Replace a file whole: a reader finds the old bytes or the new ones, and so does a power loss.

    The bytes go to ``by_way_of``, a name in the same folder that nobody uses, are synced, renamed over
    ``path``, and the folder is synced. A failure removes that other file again; only a kill can leave it.

    Raises:
        TokenPermissionDenied: The folder may not be written.
        TokenIOError: Writing failed. The old bytes are in place, unless syncing the folder was what failed:
            then the new ones are, and a power loss may bring the old ones back.
    """
    with os_errors_as_store_errors("write", path):
        write_new_private(by_way_of, data)
        try:
            Path(by_way_of).replace(path)
        except BaseException:
            with suppress(OSError):
                Path(by_way_of).unlink()
            raise
        sync_folder(str(Path(path).parent))


def sync_folder(path: str) -> None:
    """Bring the names in a folder to the disk. Does nothing on Windows, which has no such call.

    Raises:
        OSError: It failed.
    """
    if not _POSIX:
        return
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_private_folder(path: str) -> None:
    """Make sure the folder is there. One that must be created, parents included, is 0700 whatever the umask.

    A folder that was there keeps its mode, for it may serve others too. One that others may write to is
    refused, and so is one that belongs to somebody else: they could put their own tokens in the place of these.

    Raises:
        TokenPermissionDenied: Other users own it or may write to it, or it may not be created.
        TokenIOError: It could not be created, or is no folder.
    """
    with os_errors_as_store_errors("use the folder", path):
        folder = Path(path)
        try:
            mode = folder.stat().st_mode
        except FileNotFoundError:
            _create_private_folder(folder)
            return
        if not stat.S_ISDIR(mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
        if mode & 0o022 and _POSIX:
            raise TokenPermissionDenied(
                f"other users may write to {one_line(path)}: run chmod 700 on it, or use another folder"
            )
        refuse_foreign_folder(path)


def _create_private_folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700)
    except FileNotFoundError:
        _create_private_folder(folder.parent)
        _create_private_folder(folder)
        return
    except FileExistsError:
        # Another process was faster, and sets the mode.
        return
    folder.chmod(0o700)
    sync_folder(str(folder.parent))


def names_in(path: str) -> list[str]:
    """The names in a folder; none when it is not there.

    Raises:
        TokenPermissionDenied: It may not be read.
        TokenIOError: It is no folder, or reading failed.
    """
    with os_errors_as_store_errors("list", path):
        try:
            return [entry.name for entry in Path(path).iterdir()]
        except FileNotFoundError:
            return []


def remove(path: str) -> None:
    """Remove a file, or a link and not what it points to; one that is not there counts as removed.

    Raises:
        TokenPermissionDenied: It may not be removed.
        TokenIOError: Removing failed.
    """
    with os_errors_as_store_errors("remove", path):
        Path(path).unlink(missing_ok=True)
