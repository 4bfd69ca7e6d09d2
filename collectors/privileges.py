"""Giving root away for good, in a process that handles what others wrote."""

from __future__ import annotations

import codecs
import ctypes
import os
import pwd
import resource
from dataclasses import dataclass

from tracekit.errors import TracekitError

__all__ = ("User", "drop", "unprivileged_user")

NOBODY = 65534
_PR_SET_NO_NEW_PRIVS = 38


@dataclass(frozen=True)
class User:
    """Whom the files will belong to."""

    uid: int
    gid: int


def unprivileged_user() -> User | None:
    """Who called sudo, else nobody; ``None``: we are not root and have nothing to give away."""
    if os.geteuid() != 0:
        return None
    uid, gid = os.environ.get("SUDO_UID", ""), os.environ.get("SUDO_GID", "")
    if uid.isdigit() and gid.isdigit() and 0 < int(uid) < 1 << 31:
        return User(int(uid), int(gid))
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError:
        return User(NOBODY, NOBODY)
    return User(nobody.pw_uid, nobody.pw_gid)


def drop(user: User | None) -> None:
    """Become ``user``, keep no right, and never get one again (no_new_privs).

    What Python loads late is loaded before: the new user may not be able to read it.

    :raises TracekitError: the kernel refuses
    """
    for name in ("ascii", "utf-8", "latin-1"):
        codecs.lookup(name)
    try:
        _prctl(_PR_SET_NO_NEW_PRIVS, 1)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if user is not None:
            os.setgroups([])
            os.setresgid(user.gid, user.gid, user.gid)
            os.setresuid(user.uid, user.uid, user.uid)
            assert os.getresuid() == (user.uid,) * 3
    except OSError as why:
        raise TracekitError(f"cannot give up root: {why.strerror}") from None


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
