"""A seccomp filter for a process that is about to start (x86-64 and arm64)."""

import ctypes
import platform
import struct

EPOLL_PWAIT2 = 441  # the same number everywhere
PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, SECCOMP_MODE_FILTER = 22, 38, 2
LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06
ERRNO, ALLOW = 0x00050000, 0x7FFF0000


class Program(ctypes.Structure):
    _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.c_char_p)]


def forbid_epoll_pwait2(error):
    """A preexec function after which epoll_pwait2 fails with this errno."""
    assert platform.machine() in ("x86_64", "aarch64")
    code = b"".join(
        struct.pack("HBBI", *line)
        for line in ((LOAD, 0, 0, 0), (EQUAL, 0, 1, EPOLL_PWAIT2), (RETURN, 0, 0, ERRNO | error), (RETURN, 0, 0, ALLOW))
    )
    program = Program(len(code) // 8, code)
    libc = ctypes.CDLL(None, use_errno=True)

    def before_exec():
        if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0):
            raise OSError(ctypes.get_errno(), "prctl")

    return before_exec
