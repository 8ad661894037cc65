"""Cores and locks of this machine, and the meaning of its errors when resources run out."""

import errno
import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# Of a file system that has no locks: some network shares, some folders of containers.
NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP}
# Quota and period of a container's time, in the second and the first version of cgroups.
CPU = "/sys/fs/cgroup/cpu/cpu.cfs_"
QUOTAS = [("/sys/fs/cgroup/cpu.max",), (f"{CPU}quota_us", f"{CPU}period_us")]
TROUBLES = {  # as PyTorch, onnxruntime, OpenCV and Python say it: what it means. The cure
    "CUDA out of memory|CUBLAS_STATUS_ALLOC": "the GPU is out of memory. "
    "Take a smaller batch or network, or --device cpu",
    "CUDA|cuDNN|CUBLAS|NVIDIA": "the GPU fails. "
    "Say --device cpu, or install a PyTorch for this GPU",
    "MemoryError|(an't|annot|ailed to|ried to) allocate|bad.alloc": "out of memory. "
    "Give fewer or smaller slices at once, or take a larger machine",
    "can't start new thread|pthread_create": "no more threads can be started. "
    "End other programs, or take fewer --threads",
}


def trouble(problem: BaseException) -> tuple[str, str] | None:
    """What the machine lacks and what cures it, where a problem comes of that; else None."""
    message = in_short(problem)
    if not getattr(problem, "filename", None):
        for words, meaning in TROUBLES.items():
            if re.search(words, message):
                lacks, _, cure = meaning.partition(". ")
                return f"{lacks} ({message})", cure
    return None


def in_short(problem: BaseException) -> str:
    """A problem in its own words, the first line of them."""
    return f"{type(problem).__name__}: {str(problem).strip().partition(chr(10))[0][:200]}"


def cores() -> int:
    """How many cores this process may use, by its affinity and the quota of its container."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS and Windows
    allowed = len(affinity(0)) if affinity else os.cpu_count() or 1
    for files in QUOTAS:
        with suppress(OSError, ValueError):  # none is set
            words = [word for file in files for word in Path(file).read_text("utf-8").split()]
            if (quota := int(words[0])) > 0:
                allowed = min(allowed, math.ceil(quota / int(words[1])))
    return allowed


@contextmanager
def locked(path: Path, timeout: float = -1, remove: bool = False) -> Iterator[None]:
    """Hold a lock on a file; on a file system without locks, the being there of one beside it.

    With ``remove`` the file goes in the end: before the release, so that nobody takes over a file
    that goes; but on Windows, which removes no open file, after it.

    Raises:
        filelock.Timeout: another process held it for ``timeout`` seconds (-1: wait for ever).
    """
    from filelock import FileLock, SoftFileLock

    lock = FileLock(path, timeout=timeout)
    try:
        lock.acquire()
    except OSError as problem:
        if problem.errno not in NO_LOCKS:
            raise
        lock = SoftFileLock(f"{path}.soft", timeout=timeout)
        lock.acquire()
    try:
        yield
    finally:
        with suppress(PermissionError):
            remove = remove and path.unlink(missing_ok=True)
        lock.release()
        if remove:
            path.unlink(missing_ok=True)
