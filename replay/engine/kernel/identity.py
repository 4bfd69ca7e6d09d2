"""Who is who: processes, VMs, containers."""

from __future__ import annotations

from typing import Any

from tracekit.compiled.kernels import jit

from .layout import *


@jit
def process_of(k: Any, thread: int) -> int:
    """The thread's process, following merges."""
    p = k.T[thread, T_PROC]
    if k.T[p, P_PARENT] != p:
        while k.T[p, P_PARENT] != p:
            p = k.T[p, P_PARENT]
        k.T[thread, T_PROC] = p
    return p


@jit
def merge_processes(k: Any, into: int, other: int) -> None:
    """``other`` turned out to be the same process: a shared kernel object shows it."""
    k.T[other, P_PARENT] = into
    a, b = k.T[into], k.T[other]
    a[P_OPEN] += b[P_OPEN]
    a[P_LAST_RETURN] = max(a[P_LAST_RETURN], b[P_LAST_RETURN])
    a[P_LAST_GAP] = max(a[P_LAST_GAP], b[P_LAST_GAP])
    a[P_BORN] = max(a[P_BORN], b[P_BORN])
    a[P_HAS_VM] = max(a[P_HAS_VM], b[P_HAS_VM])
    a[P_GMEM_ATTR] = max(a[P_GMEM_ATTR], b[P_GMEM_ATTR])
    a[P_LAST_UNMAP] = max(a[P_LAST_UNMAP], b[P_LAST_UNMAP])
    for s in range(k.g[G_SPACES]):
        if k.S[s, S_PROC] == other:
            k.S[s, S_PROC] = into
    for r in range(k.g[G_R]):
        if k.S[r, R_PROC] == other:
            k.S[r, R_PROC] = into
    for d in range(k.g[G_D]):
        if k.S[d, D_PROC] == other:
            k.S[d, D_PROC] = into
    for i in range(k.g[G_GMEM]):
        if k.S[i, GM_PROC] == other:
            k.S[i, GM_PROC] = into
    for i in range(k.g[G_ACTIVE]):
        if k.W[k.W[i, ACTIVE], W_PROC] == other:
            k.W[k.W[i, ACTIVE], W_PROC] = into


@jit
def same_object(k: Any, proc: int, fd: int, obj: int) -> int:
    """Merge with the process that used the kernel object before, if another one did.

    A process whose beginning was seen needs no merging, nor does one that made its container in the
    trace: the kernel gave it the address of an object that is gone.
    """
    if obj == NULL or obj == 0:
        return proc
    own = -1
    other = -1
    for s in range(k.g[G_SPACES]):
        row = k.S[s]
        if row[S_DEAD]:
            continue
        if row[S_PROC] == proc and row[S_KIND] == SPACE_CONTAINER and row[S_FD] == fd:
            own = s
        elif row[S_OBJECT] == obj and row[S_PROC] != proc:
            other = s
    if other < 0:
        return proc
    if k.T[proc, P_FRESH] or own >= 0:
        k.S[other, S_DEAD] = 1
        return proc
    into = k.S[other, S_PROC]
    merge_processes(k, into, proc)
    return into


@jit
def space_of(k: Any, kind: int, proc: int, fd: int, ident: int, obj: int) -> int:
    """The process's VM or container behind a descriptor (and ioas id), made when first seen.

    Without a descriptor (no system call recorded) the kernel object stands for it.
    """
    found = -1
    for s in range(k.g[G_SPACES]):
        row = k.S[s]
        if row[S_KIND] == kind and row[S_PROC] == proc and not row[S_DEAD] and row[S_ID] == ident:
            known = obj != NULL and obj != 0
            if fd != NULL and row[S_FD] == fd:
                if known and row[S_OBJECT] != NULL and row[S_OBJECT] != obj:
                    row[S_DEAD] = 1  # the descriptor was closed unseen and is another file now
                    continue
                found = s
                break
            if known and row[S_OBJECT] == obj:
                found = s
                break
            if (fd == NULL or row[S_FD] == NULL) and (not known or row[S_OBJECT] == NULL):
                found = s
    if found < 0:
        found = k.g[G_SPACES]
        k.g[G_SPACES] += 1
        row = k.S[found]
        row[S_KIND] = kind
        row[S_PROC] = proc
        row[S_FD] = fd
        row[S_ID] = ident
        row[S_OBJECT] = NULL
        row[S_DOMAIN] = NULL
        row[S_KVM] = NULL
        row[S_DEAD] = 0
        row[S_MULTI] = 0
        row[S_DEFAULT] = 0
        row[S_VIOMMU] = k.g[C_VIOMMU]
        row[S_ENTRIES] = NULL
        row[S_PEAK] = 0
        if kind == SPACE_VM:
            k.T[proc, P_HAS_VM] = 1
        row[S_HIGH] = NULL
        if kind == SPACE_CONTAINER:
            if k.T[proc, P_BORN] or (ident != NULL and k.T[proc, P_IOAS_BORN]):
                row[S_DEFAULT] = M_KI | M_KE
                row[S_ENTRIES] = 0
            containers = 0
            for s in range(k.g[G_SPACES]):
                if k.S[s, S_KIND] == SPACE_CONTAINER and k.S[s, S_PROC] == proc:
                    containers += 1
            k.g[G_CONTAINERS] = max(k.g[G_CONTAINERS], containers)
    if obj != NULL and obj != 0 and k.S[found, S_OBJECT] == NULL:
        k.S[found, S_OBJECT] = obj
    return found


@jit
def has_ended(k: Any, proc: int) -> bool:
    """All threads that are known of the process have ended."""
    if k.T[proc, T_TID] != NULL and not k.T[proc, T_EXITED]:
        return False
    for t in range(k.g[G_THREADS]):
        if not k.T[t, T_EXITED] and k.T[t, T_TID] != NULL and process_of(k, t) == proc:
            return False
    return True


@jit
def only_container(k: Any, proc: int) -> int:
    """The process's container if it has exactly one, else -1."""
    found = -1
    for s in range(k.g[G_SPACES]):
        if k.S[s, S_KIND] == SPACE_CONTAINER and k.S[s, S_PROC] == proc and not k.S[s, S_DEAD]:
            if found >= 0:
                return -1
            found = s
    return found


@jit
def is_gmem(k: Any, proc: int, fd: int) -> bool:
    """True if the descriptor is a guest_memfd of the process."""
    for i in range(k.g[G_GMEM]):
        if k.S[i, GM_PROC] == proc and k.S[i, GM_FD] == fd:
            return True
    return False


@jit
def add_gmem(k: Any, proc: int, fd: int, size: int) -> None:
    """Remember a guest_memfd, and its size or NULL."""
    if not is_gmem(k, proc, fd) and k.g[G_GMEM] < k.S.shape[0]:
        k.S[k.g[G_GMEM], GM_PROC] = proc
        k.S[k.g[G_GMEM], GM_FD] = fd
        k.S[k.g[G_GMEM], GM_SIZE] = size
        k.g[G_GMEM] += 1


@jit
def descriptor_gone(k: Any, proc: int, fd: int) -> None:
    """The descriptor was closed, or shown to be another file now."""
    for r in range(k.g[G_R]):
        if k.S[r, R_PROC] == proc and k.S[r, R_FD] == fd:
            k.S[r, R_FD] = -1
    for d in range(k.g[G_D]):
        if k.S[d, D_PROC] == proc and k.S[d, D_KIND] == 1 and k.S[d, D_FD] == fd:
            k.S[d, D_FD] = -1
    for s in range(k.g[G_SPACES]):
        row = k.S[s]
        if row[S_PROC] == proc and row[S_FD] == fd and not row[S_DEAD]:
            row[S_DEAD] = 1
    for i in range(k.g[G_SLOTS]):
        if k.S[i, L_GMEM] == fd and k.S[k.S[i, L_VM], S_PROC] == proc:
            k.S[i, L_GMEM] = -1
    i = 0
    while i < k.g[G_GMEM]:
        if k.S[i, GM_PROC] == proc and k.S[i, GM_FD] == fd:
            k.g[G_GMEM] -= 1
            k.S[i, GM_PROC] = k.S[k.g[G_GMEM], GM_PROC]
            k.S[i, GM_FD] = k.S[k.g[G_GMEM], GM_FD]
            k.S[i, GM_SIZE] = k.S[k.g[G_GMEM], GM_SIZE]
        else:
            i += 1
