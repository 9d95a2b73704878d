"""Named network namespaces, laid out as ip-netns(8) does: a file in /run/netns that the namespace is mounted on.

What holds: what ``create`` makes, ``ip netns`` lists and deletes, and the other way round. Only the calling thread, or a thread made for
the purpose, ever changes its namespace; nobody else's does. A socket stays in the namespace that it was opened in, so ``run_in``
is what opens sockets elsewhere.

Linux only, needs CAP_SYS_ADMIN. Sources: namespaces(7), setns(2), mount_namespaces(7).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from tabinet.errors import KernelError

NETNS_DIRECTORY = Path("/run/netns")

_CLONE_NEWNET = 0x40000000
_MS_BIND = 0x1000
_MS_REC = 0x4000
_MS_SHARED = 1 << 20
_MNT_DETACH = 2
_OWN = "/proc/thread-self/ns/net"

T = TypeVar("T")


def _call(name: str, operation: str, *arguments: object) -> None:
    """libc's function succeeded.

    Raises:
        KernelError: with its errno.
    """
    function = getattr(ctypes.CDLL(None, use_errno=True), name)
    if function(*arguments) != 0:
        raise KernelError(ctypes.get_errno(), operation)


def _mount(source: str, target: str, flags: int, operation: str) -> None:
    _call("mount", operation, source.encode(), target.encode(), b"none", ctypes.c_ulong(flags), None)


def path_of(name: str) -> Path:
    """Where the namespace of this name is mounted.

    Raises:
        ValueError: not a name for a file in one directory.
    """
    if not name or "/" in name or name in (".", ".."):
        raise ValueError(f"{name!r} is not a name for a namespace")
    return NETNS_DIRECTORY / name


def names() -> list[str]:
    """The named namespaces, sorted."""
    try:
        return sorted(entry.name for entry in NETNS_DIRECTORY.iterdir())
    except FileNotFoundError:
        return []


def exists(name: str) -> bool:
    return path_of(name).exists()


def create(name: str) -> None:
    """The namespace exists, its loopback interface down, as the kernel makes it.

    Raises:
        KernelError: EEXIST when there is one of this name, EPERM without CAP_SYS_ADMIN.
    """
    path = path_of(name)
    _share_directory()
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL, 0o444))
    except OSError as error:
        raise KernelError(error.errno or errno.EIO, f"create namespace {name}") from error

    def enter_new_and_pin() -> None:
        _call("unshare", f"create namespace {name}", _CLONE_NEWNET)
        _mount(_OWN, str(path), _MS_BIND, f"mount namespace {name}")

    try:
        _in_thread(enter_new_and_pin)
    except KernelError:
        path.unlink()
        raise


def delete(name: str) -> None:
    """No namespace has this name; it ends when its last process and open file are gone.

    Raises:
        KernelError: ENOENT when there is none.
    """
    path = path_of(name)
    try:
        _call("umount2", f"unmount namespace {name}", str(path).encode(), _MNT_DETACH)
    except KernelError as error:
        if error.errno != errno.EINVAL:  # a plain file, left by a creation that was interrupted
            raise
    try:
        path.unlink()
    except OSError as error:
        raise KernelError(error.errno or errno.EIO, f"delete namespace {name}") from error


def open_namespace(name: str) -> int:
    """A file descriptor of the namespace; the caller closes it. A path (``/proc/1/ns/net``) serves as well as a name.

    Raises:
        KernelError: ENOENT when there is none.
    """
    path = Path(name) if name.startswith("/") else path_of(name)
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise KernelError(error.errno or errno.EIO, f"open namespace {name}") from error


def run_in(name: str, work: Callable[[], T]) -> T:
    """What ``work`` returns or raises, called in the namespace by a thread of its own. Waits for as long as ``work`` takes.

    Raises:
        KernelError: ENOENT when there is no such namespace.
    """
    namespace = open_namespace(name)

    def enter_and_work() -> T:
        _call("setns", f"enter namespace {name}", namespace, _CLONE_NEWNET)
        return work()

    try:
        return _in_thread(enter_and_work)
    finally:
        os.close(namespace)


def run_in_new(work: Callable[[], T]) -> T:
    """What ``work`` returns or raises, called in a new namespace without a name, which ends with the last socket opened in it.

    Raises:
        KernelError: EPERM without CAP_SYS_ADMIN, ENOSYS or EINVAL when the kernel has no network namespaces.
    """

    def leave_and_work() -> T:
        _call("unshare", "make a network namespace", _CLONE_NEWNET)
        return work()

    return _in_thread(leave_and_work)


@contextlib.contextmanager
def entered(name: str) -> Iterator[None]:
    """Within the context the calling thread is in the namespace, afterwards where it was. Not across an ``await``.

    Raises:
        KernelError: ENOENT when there is no such namespace.
    """
    with contextlib.ExitStack() as stack:
        before = open_namespace(_OWN)
        stack.callback(os.close, before)
        namespace = open_namespace(name)
        stack.callback(os.close, namespace)
        _call("setns", f"enter namespace {name}", namespace, _CLONE_NEWNET)
        stack.callback(_call, "setns", f"leave namespace {name}", before, _CLONE_NEWNET)
        yield


def identity(path: str = _OWN) -> tuple[int, int]:
    """(device, inode) of a namespace's file: equal for equal namespaces. The default is the calling thread's.

    Raises:
        KernelError: ENOENT when there is none.
    """
    try:
        status = os.stat(path)
    except OSError as error:
        raise KernelError(error.errno or errno.EIO, f"identify namespace {path}") from error
    return status.st_dev, status.st_ino


def pids(name: str) -> list[int]:
    """Processes that are in the namespace now, ascending. O(processes).

    Raises:
        KernelError: ENOENT when there is no such namespace.
    """
    wanted = identity(str(path_of(name)))
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(KernelError):  # it ended meanwhile
                if identity(f"/proc/{entry}/ns/net") == wanted:
                    found.append(int(entry))
    return sorted(found)


def _share_directory() -> None:
    """The directory exists and is a shared mount, so that other mount namespaces see namespaces come and go."""
    try:
        NETNS_DIRECTORY.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise KernelError(error.errno or errno.EIO, f"create {NETNS_DIRECTORY}") from error
    directory = str(NETNS_DIRECTORY)
    try:
        _mount("", directory, _MS_SHARED | _MS_REC, f"share {directory}")
    except KernelError as error:
        if error.errno != errno.EINVAL:  # EINVAL: not a mount point yet
            raise
        _mount(directory, directory, _MS_BIND | _MS_REC, f"mount {directory}")
        _mount("", directory, _MS_SHARED | _MS_REC, f"share {directory}")


def _in_thread(work: Callable[[], T]) -> T:
    """The result of ``work``, or its exception, from a thread that ends with it."""
    results: list[T] = []
    failures: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:  # noqa: BLE001  # handed to the caller, who raises it
            failures.append(error)

    thread = threading.Thread(target=run, name="netns", daemon=True)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    return results[0]
