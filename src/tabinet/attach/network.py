"""The seam between an attachment and the kernel: work on the host's side, and work inside the workload's network namespace.

``LinuxNetwork`` is the kernel, ``fakenetwork.FakeNetwork`` behaves like it in memory. Work is a plain function over the protocols of
``kernel``, called in a thread that is in the right namespace; nothing is kept open between calls.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Protocol, TypeVar

from tabinet.kernel import netns
from tabinet.kernel.rtnetlink import Rtnetlink
from tabinet.kernel.rtsocket import open_rtnetlink
from tabinet.kernel.sysctl import ProcSysctl, Sysctl

T = TypeVar("T")


class Network(Protocol):
    """One host's network namespace, and the way into those of its workloads."""

    def on_host(self, work: Callable[[Rtnetlink], T]) -> T:
        """What ``work`` returns, called in the host's namespace.

        Raises:
            KernelError: no socket can be opened; and what ``work`` raises.
        """
        ...

    def inside(self, namespace: str, work: Callable[[Rtnetlink, Sysctl], T]) -> T:
        """What ``work`` returns, called in the workload's namespace (a name, or a path).

        Raises:
            KernelError: ENOENT when there is no such namespace; and what ``work`` raises.
        """
        ...

    def opened(self, namespace: str) -> contextlib.AbstractContextManager[int]:
        """A file descriptor of the workload's namespace, to move interfaces into it.

        Raises:
            KernelError: ENOENT when there is no such namespace.
        """
        ...


class LinuxNetwork:
    """The kernel. The host's namespace is the calling process's own, or the one that is named."""

    def __init__(self, host_namespace: str = "") -> None:
        self._host_namespace = host_namespace

    def on_host(self, work: Callable[[Rtnetlink], T]) -> T:
        def with_socket() -> T:
            with contextlib.closing(open_rtnetlink()) as rtnetlink:
                return work(rtnetlink)

        return netns.run_in(self._host_namespace, with_socket) if self._host_namespace else with_socket()

    def inside(self, namespace: str, work: Callable[[Rtnetlink, Sysctl], T]) -> T:
        def with_socket() -> T:
            with contextlib.closing(open_rtnetlink()) as rtnetlink:
                return work(rtnetlink, ProcSysctl())

        return netns.run_in(namespace, with_socket)

    @contextlib.contextmanager
    def opened(self, namespace: str) -> Iterator[int]:
        descriptor = netns.open_namespace(namespace)
        try:
            yield descriptor
        finally:
            os.close(descriptor)
