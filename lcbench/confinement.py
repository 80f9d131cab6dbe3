"""What a child may reach: no network where that can be had, no secrets in its environment.

Both are taken from the fork server before it loads anything, so that every process it forks, and
whatever asks it for one, is without them. On Linux the server moves into a network namespace of its
own; a process of root keeps only the capabilities that reading and measuring need, any other gets a
user namespace with itself as the one user. Neither can look into or write to the memory of what
started it. Elsewhere, and where a namespace is refused, methods run with the network open, and it
is said so.
"""

import contextlib
import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

OPEN = "LCBENCH_ALLOW_NETWORK"
"""Environment variable that leaves the network open; what `lcbench run --allow-network` sets."""
CUT = "none"
NEW_USER, NEW_NETWORK = 0x10000000, 0x40000000  # CLONE_NEWUSER and CLONE_NEWNET
_NO_NEW_PRIVILEGES = 38  # PR_SET_NO_NEW_PRIVS
_CAPABILITIES_VERSION = 0x20080522
_KEPT_CAPABILITIES = (0, 1, 2, 3, 4, 5, 14, 23)
"""Of root: its way with files (CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER, FSETID), KILL,
IPC_LOCK for pinned memory, SYS_NICE. Not among them what sees into other processes (SYS_PTRACE),
changes namespaces and the network (SYS_ADMIN, NET_ADMIN) or sets the clock (SYS_TIME)."""

_KEPT_NAMES = frozenset((
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TMPDIR", "TMP", "TEMP",
    "LD_LIBRARY_PATH", "LD_PRELOAD", "LIBRARY_PATH", "CPATH", "C_INCLUDE_PATH",
    "CPLUS_INCLUDE_PATH", "CC", "CXX", "VIRTUAL_ENV", "CONDA_PREFIX", "XDG_CACHE_HOME", "HF_HOME",
    "GLIBC_TUNABLES", "SYSTEMROOT", "WINDIR", "COMSPEC", "PATHEXT", "USERPROFILE", "LOCALAPPDATA",
    "APPDATA", "NUMBER_OF_PROCESSORS", "PROCESSOR_ARCHITECTURE",
))  # fmt: skip
_KEPT_BEGINNINGS = (
    "LC_", "DYLD_", "PYTHON", "OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "BLIS_", "VECLIB_",
    "THP_", "MALLOC_", "ATEN_", "TORCH", "PYTORCH", "KINETO_", "TRITON", "CUDA", "CUBLAS",
    "CUDNN", "NVIDIA_", "NCCL_", "HIP_", "ROCR_", "ROCM_", "HSA_", "LCBENCH_",
)  # fmt: skip
_SECRET_WORDS = frozenset((
    "TOKEN", "SECRET", "PASSWORD", "PASSWD", "PASS", "KEY", "APIKEY", "CREDENTIAL", "CREDENTIALS",
    "AUTH", "COOKIE",
))  # fmt: skip

_network = "open: this system has no network namespaces"


def is_kept(name: str) -> bool:
    """Whether a child gets this variable: known to be needed, and not named like a secret."""
    upper = name.upper()
    known = upper in _KEPT_NAMES or upper.startswith(_KEPT_BEGINNINGS)
    return known and not _SECRET_WORDS & {*upper.split("_")}


def without_secrets(environment: Mapping[str, str]) -> dict[str, str]:
    """What of an environment a child gets."""
    return {name: value for name, value in environment.items() if is_kept(name)}


def drop_secrets() -> None:
    """Take from this process's environment what a child does not get."""
    for name in [name for name in os.environ if not is_kept(name)]:
        del os.environ[name]


def restart_without_secrets() -> None:
    """Replace this process by one of the same command whose environment has no secrets.

    Removing variables would not do: the system shows a process the environment it was started with.
    """
    kept = without_secrets(os.environ)
    if kept.keys() != os.environ.keys():
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], kept)


def network() -> str:
    """What network this process has: `none`, or `open` and why."""
    return _network


def cut_network() -> None:
    """Leave the network for good; where that cannot be done, `network` says why.

    To be called while the process has one thread: others would keep what they have.
    """
    global _network
    if os.environ.get(OPEN):
        _network = "open: as asked for"
    elif sys.platform.startswith("linux"):
        reason = _leave_network()
        _network = f"open: {reason}" if reason else CUT


def _leave_network() -> str | None:
    """Move into an empty network namespace; why not, if not."""
    _make_gpu_nodes()
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.getuid(), os.getgid()
    is_root = user == 0
    if libc.unshare(NEW_NETWORK if is_root else NEW_USER | NEW_NETWORK):
        return f"the system refused a network namespace ({os.strerror(ctypes.get_errno())})"
    if not is_root:
        with contextlib.suppress(OSError):
            Path("/proc/self/setgroups").write_text("deny")
            Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
            Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    _keep_capabilities(libc, _KEPT_CAPABILITIES if is_root else ())
    return None


def _make_gpu_nodes() -> None:
    """Have the GPU's device files made, which needs a program of root's that no child can run."""
    program = shutil.which("nvidia-modprobe")
    if program and Path("/proc/driver/nvidia").exists() and not Path("/dev/nvidia-uvm").exists():
        subprocess.run([program, "-u", "-c=0"], check=False, capture_output=True)


def _keep_capabilities(libc: ctypes.CDLL, kept: tuple[int, ...]) -> None:
    """Give up all other capabilities, and that any program gives them back."""
    libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    header = (ctypes.c_uint32 * 2)(_CAPABILITIES_VERSION, 0)
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; lower halves first
    if libc.capget(header, sets):
        return
    mask = sum(1 << number for number in kept)
    wanted = [value & mask if index < 3 else 0 for index, value in enumerate(sets)]
    libc.capset(header, (ctypes.c_uint32 * 6)(*wanted))
