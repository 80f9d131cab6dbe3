"""Locks between processes: the kernel releases them when their holder ends, however it ends.

On a system without `flock` every lock is granted, and on a file system without it too: runs there
are on their own.
"""

import errno
import os
import tempfile
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


class FileLock:
    """A lock on a file, which is made where it is not; held by one process, or shared by several.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    @property
    def held(self) -> bool:
        """Whether this object holds it."""
        return self._descriptor is not None

    def acquire(self, *, shared: bool = False, wait: bool = False) -> bool:
        """Take it; False if another process has it and this one does not `wait`.

        Raises:
            OSError: The file cannot be made.
        """
        assert self._descriptor is None, "a lock is taken once"
        while True:
            flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
            descriptor = os.open(self.path, flags, 0o644)
            if not _flock(descriptor, shared=shared, wait=wait):
                os.close(descriptor)
                return False
            if _is_at(descriptor, self.path):
                self._descriptor = descriptor
                return True
            os.close(descriptor)  # its holder removed it between our opening and locking it

    def write(self, text: str) -> None:
        """Leave a note in the file, for those who find it locked.

        Raises:
            OSError: The disk is full.
        """
        assert self._descriptor is not None, "a note is left by the holder"
        os.ftruncate(self._descriptor, 0)
        data = text.encode()
        if os.pwrite(self._descriptor, data, 0) < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def rename(self, path: Path) -> None:
        """Give the file its name, locked as it is.

        Raises:
            OSError: It cannot be renamed.
        """
        self.path.replace(path)
        self.path = path

    def release(self, *, remove: bool = False) -> None:
        """Give it back, if it is held; `remove` takes the file away first."""
        if self._descriptor is None:
            return
        if remove and _is_at(self._descriptor, self.path):
            self.path.unlink(missing_ok=True)
        os.close(self._descriptor)
        self._descriptor = None


def is_locked(path: Path) -> bool:
    """Whether some process holds a file's lock alone; False where there is no such file."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        return not _flock(descriptor, shared=True, wait=False)
    finally:
        os.close(descriptor)


class MachineLock:
    """This machine's clock: shared by quality cells of all runs, held alone by a cost cell.

    A cost cell that waits keeps new quality cells of other runs from starting, so its turn comes.

    Args:
        folder: Where its files lie; by default what `LCBENCH_LOCKS` names, else the temporary
            folder of this machine.
    """

    def __init__(self, folder: Path | None = None) -> None:
        owner = os.getuid() if hasattr(os, "getuid") else ""
        stem = f"lcbench-{owner}"
        folder = folder or Path(os.environ.get("LCBENCH_LOCKS") or tempfile.gettempdir())
        self._clock = FileLock(folder / f"{stem}.lock")
        self._turn = FileLock(folder / f"{stem}.turn")
        self._alone: bool | None = None

    def enter(self, *, alone: bool) -> bool:
        """Take the clock, alone or shared; False while another run has it. Again is no change."""
        if self._alone == alone:
            return True
        self.leave()
        try:
            if not self._turn.held and not self._turn.acquire():
                return False
            if not self._clock.acquire(shared=not alone):
                if not alone:
                    self._turn.release()
                return False
        except OSError:
            pass  # No folder for such files: nothing to share with anybody.
        self._turn.release()
        self._alone = alone
        return True

    def leave(self) -> None:
        """Give the clock back; a run that waits for it alone keeps its turn."""
        self._clock.release()
        self._alone = None

    def close(self) -> None:
        """Give back the clock and the turn."""
        self.leave()
        self._turn.release()


def _flock(descriptor: int, *, shared: bool, wait: bool) -> bool:
    if fcntl is None:
        return True
    how = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB)
    try:
        fcntl.flock(descriptor, how)
    except BlockingIOError:
        return False
    except OSError:
        return True  # a file system without locks
    return True


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        here, there = os.fstat(descriptor), path.stat()
    except FileNotFoundError:
        return False
    return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)
