"""The memory limit of this process."""

import os
import resource
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup/memory.max")


def limit() -> int:
    """Return the memory limit in bytes: the machine's memory, or the limit of the container or process if lower."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA):
        soft, _ = resource.getrlimit(kind)
        if soft != resource.RLIM_INFINITY:
            limits.append(soft)
    if _CGROUP.exists() and (value := _CGROUP.read_text().strip()) != "max":
        limits.append(int(value))
    return min(limits)
