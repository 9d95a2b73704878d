"""The seam between an attachment and the kernel: work on the host's side, and work inside the workload's network namespace.

``LinuxNetwork`` is the kernel, ``fakenetwork.FakeNetwork`` behaves like it in memory. Work is a plain function over the protocols of
``kernel``, called in a thread that is in the right namespace; nothing is kept open between calls.
"""

from __future__ import annotations

import contextlib
import errno
import os
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Protocol, TypeVar

from tabinet.errors import KernelError
from tabinet.kernel import netns
from tabinet.kernel.rtnetlink import DeleteLink, Rtnetlink
from tabinet.kernel.rtsocket import open_rtnetlink
from tabinet.kernel.sysctl import ProcSysctl, Sysctl

T = TypeVar("T")

FIRST_LOOK_S, LAST_LOOK_S = 0.0003, 0.01
"""Whether an interface that is being deleted is gone is looked at after the first of these, then after twice as long each time."""


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

    def remove_interface(self, name: str) -> None:
        """No interface of the host has this name, and neither routes nor packets go through what had it, or through its other end. The name
        is free, though the kernel may still have memory to free. Nothing happens when there is none.

        Raises:
            KernelError: the kernel refused.
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

    def remove_interface(self, name: str) -> None:
        # The kernel answers a deletion only when it has waited for every processor to forget the interface (some 20 ms), long after it has
        # closed it, dropped its routes and taken its name away (1 ms). So a thread waits for the answer, and we look whether it is gone.
        # It is deleted by its index: when the thread comes late, the name may be that of another one already.
        link = self.on_host(lambda rtnetlink: rtnetlink.link(name))
        if link is None:
            return
        index = link.index
        answers: queue.SimpleQueue[KernelError | None] = queue.SimpleQueue()
        threading.Thread(target=self._remove, args=(DeleteLink(name, index), answers), name="remove-interface", daemon=True).start()
        pause_s = FIRST_LOOK_S
        while True:
            try:
                outcome = answers.get(timeout=pause_s)
            except queue.Empty:
                pause_s = min(2 * pause_s, LAST_LOOK_S)
            else:
                if outcome is not None and outcome.errno != errno.ENODEV:
                    raise outcome
                return
            left = self.on_host(lambda rtnetlink: rtnetlink.link(name))
            if left is None or left.index != index:
                return

    def _remove(self, deletion: DeleteLink, answers: queue.SimpleQueue[KernelError | None]) -> None:
        try:
            (outcome,) = self.on_host(lambda rtnetlink: rtnetlink.execute([deletion]))
        except KernelError as error:
            outcome = error
        answers.put(outcome)
