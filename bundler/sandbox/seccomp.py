"""A seccomp deny list as classic BPF: kernel surface that training never needs.

Namespaces hide things; they do not shrink the kernel. Without this filter ``io_uring_setup`` and
``keyctl`` were open inside bubblewrap (docs/adr/0006). Newer system calls get ENOSYS, so that
libraries take the fallback they have for old kernels; the rest gets EPERM.
"""

from __future__ import annotations

import errno
import platform
import struct

# name: (number on x86_64, number on aarch64), from the kernel's asm/unistd_64.h and
# asm-generic/unistd.h; None where the architecture lacks the call.
NUMBERS: dict[str, tuple[int | None, int | None]] = {
    # Asynchronous I/O outside the view of other filters; a steady source of kernel exploits.
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    # The kernel's key store is not a namespace of its own.
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    # Looking into processes and the kernel.
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "pidfd_getfd": (438, 438),
    "kcmp": (312, 272),
    "lookup_dcookie": (212, 18),
    "syslog": (103, 116),
    "fanotify_init": (300, 262),
    "memfd_secret": (447, 447),
    # Changing what the file system looks like.
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "open_tree_attr": (467, 467),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "sysfs": (139, None),
    # Namespaces other than those we made (clone's flags are checked below).
    "setns": (308, 268),
    "clone3": (435, 435),  # its flags lie in memory, where BPF cannot look
    # The machine itself.
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "create_module": (174, None),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "iopl": (172, None),
    "ioperm": (173, None),
    "modify_ldt": (154, None),
    "acct": (163, 89),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "clock_adjtime": (305, 266),
    "adjtimex": (159, 171),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "vhangup": (153, 58),
    "nfsservctl": (180, 42),
    "uselib": (134, None),
    "_sysctl": (156, None),
}
_NOT_IMPLEMENTED = frozenset({
    "io_uring_setup", "io_uring_enter", "io_uring_register", "clone3", "memfd_secret",
    "open_tree", "move_mount", "fsopen", "fsconfig", "fsmount", "fspick", "mount_setattr",
    "open_tree_attr", "quotactl_fd",
})  # fmt: skip
_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
_CLONE, _UNSHARE, _SOCKET, _IOCTL = (56, 220), (272, 97), (41, 198), (16, 29)

# CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET; for unshare also NEWTIME.
_NEW_NAMESPACE = 0x7E020000
_NEW_TIME = 0x00000080
_AF_UNIX, _AF_INET, _AF_INET6, _AF_NETLINK = 1, 2, 10, 16
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C  # typing into a terminal
_X32 = 0x40000000

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NR, _ARCH, _ARG0, _ARG1, _ARG2 = 0, 4, 16, 24, 32  # offsets in struct seccomp_data, little endian
_ALLOW, _KILL = 0x7FFF0000, 0x80000000

Instruction = tuple[int, int, int, int]


def _fail(code: int) -> Instruction:
    return (_RETURN, 0, 0, 0x00050000 | code)


def supported(machine: str | None = None) -> bool:
    """Whether a filter can be built for ``machine`` (default: this one)."""
    return (machine or platform.machine()) in _ARCHITECTURES


def program(machine: str | None = None) -> bytes:
    """Return the filter as an array of ``struct sock_filter``, for ``bwrap --seccomp``.

    A process of another architecture (i386 on x86_64) is killed; x32 numbers do not exist. Raises
    KeyError for a machine that :func:`supported` denies.
    """
    column, audit = _ARCHITECTURES[machine or platform.machine()]
    code: list[Instruction] = [
        (_LOAD, 0, 0, _ARCH),
        (_EQUAL, 1, 0, audit),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NR),
        (_AT_LEAST, 0, 1, _X32),
        _fail(errno.ENOSYS),
    ]
    for name, numbers in NUMBERS.items():
        number = numbers[column]
        if number is not None:
            refusal = errno.ENOSYS if name in _NOT_IMPLEMENTED else errno.EPERM
            code += [(_EQUAL, 0, 1, number), _fail(refusal)]
    code += _conditions(column)
    code.append((_RETURN, 0, 0, _ALLOW))
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in code)


def _conditions(column: int) -> list[Instruction]:
    """Instructions for the system calls that are allowed with some arguments only."""
    code = _when(_CLONE[column], [(_LOAD, 0, 0, _ARG0), *_refuse_bits(_NEW_NAMESPACE)])
    code += _when(
        _UNSHARE[column], [(_LOAD, 0, 0, _ARG0), *_refuse_bits(_NEW_NAMESPACE | _NEW_TIME)]
    )
    code += _when(_IOCTL[column], [
        (_LOAD, 0, 0, _ARG1),
        (_EQUAL, 1, 0, _TIOCSTI),
        (_EQUAL, 0, 1, _TIOCLINUX),
        _fail(errno.EPERM),
    ])  # fmt: skip
    code += _when(_SOCKET[column], [
        (_LOAD, 0, 0, _ARG0),
        (_EQUAL, 6, 0, _AF_UNIX),
        (_EQUAL, 5, 0, _AF_INET),
        (_EQUAL, 4, 0, _AF_INET6),
        (_EQUAL, 0, 2, _AF_NETLINK),
        (_LOAD, 0, 0, _ARG2),
        (_EQUAL, 1, 0, 0),  # NETLINK_ROUTE, which getifaddrs (gloo) needs; no audit, no netfilter
        _fail(errno.EAFNOSUPPORT),  # AF_VSOCK among them: no network namespace holds it
    ])  # fmt: skip
    return code


def _refuse_bits(mask: int) -> list[Instruction]:
    return [(_ANY_BIT, 0, 1, mask), _fail(errno.EPERM)]


def _when(number: int, body: list[Instruction]) -> list[Instruction]:
    """Run ``body`` for one system call and allow what it lets through."""
    body = [*body, (_RETURN, 0, 0, _ALLOW)]
    return [(_EQUAL, 0, len(body), number), *body]
