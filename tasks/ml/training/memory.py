"""How much memory this process may take."""

import os
import resource
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup/memory.max")


def limit() -> int:
    """Bytes: what the machine has, or less where a container or a limit on the process says so."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA):
        soft, _ = resource.getrlimit(kind)
        if soft != resource.RLIM_INFINITY:
            limits.append(soft)
    if _CGROUP.exists() and (said := _CGROUP.read_text().strip()) != "max":
        limits.append(int(said))
    return min(limits)
