"""What the machine lends: cores, locks; and how it sounds when it can't."""

import errno
import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# Of a file system that has no locks: some network shares, some folders of containers.
NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP}


def cores() -> int:
    """How many cores this process may use, which may be few of those that are there.

    Its affinity says so, where the system has such a thing, and the quota of its container.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    allowed = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, min(allowed, *_quotas()))


def _quotas() -> Iterator[int]:
    """Cores by the quotas of the control groups that this process is in; at least infinity."""
    yield os.cpu_count() or 1
    with suppress(OSError, ValueError):
        for line in Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines():
            _, kind, place = line.split(":", 2)
            group = Path("/sys/fs/cgroup", *([kind] if kind else []), place.lstrip("/"))
            for folder in (group, *group.parents):
                with suppress(OSError, ValueError, ZeroDivisionError):
                    if kind:  # of the first version
                        quota, period = (
                            (folder / f"cpu.cfs_{name}_us").read_text(encoding="utf-8")
                            for name in ("quota", "period")
                        )
                    else:
                        quota, period = (folder / "cpu.max").read_text(encoding="utf-8").split()
                    if int(quota) > 0:
                        yield math.ceil(int(quota) / int(period))


@contextmanager
def locked(path: Path, timeout: float = -1) -> Iterator[None]:
    """Hold a lock on a file; on a file system without locks, the being there of one beside it.

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
        lock.release()


MEMORY = r"(can't|cannot|failed to|tried to) allocate|out of memory|bad.alloc|insufficient memory"
THREADS = r"can't start new thread|pthread_create|resource temporarily unavailable"
GPU = r"CUDA|cuDNN|CUBLAS|NVIDIA|\bHIP\b"


def trouble(problem: BaseException) -> tuple[str, str] | None:
    """What the machine lacks and what cures it, where a problem comes of that; else None.

    PyTorch, onnxruntime and OpenCV raise classes that say less than their words.
    """
    said = str(problem).strip().partition("\n")[0]
    short = isinstance(problem, MemoryError) or re.search(MEMORY, said, re.IGNORECASE)
    if re.search(GPU, said) and not isinstance(problem, ValueError | OSError):
        if short:
            return "the GPU is out of memory", "Take a smaller batch or network, or --device cpu"
        return f"the GPU fails ({said})", "Say --device cpu, or install a PyTorch for this GPU"
    if short:
        return "out of memory", "Give fewer or smaller slices at once, or take a larger machine"
    if re.search(THREADS, said, re.IGNORECASE):
        return f"no thread is to be had ({said})", "End other programs, or take fewer --threads"
    return None


def in_short(problem: BaseException) -> str:
    """A problem in its own words, the first line of them."""
    return f"{type(problem).__name__}: {str(problem).strip().partition(chr(10))[0][:200]}"
