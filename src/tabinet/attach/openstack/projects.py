"""Names of projects, which Neutron does not know and Keystone does: a cache that threads ask, and that never keeps them long.

In: identifiers of projects, and whoever can look them up. Out: ``Project`` records of those that are known. What is not known, or not
looked up for ``refresh_s``, is looked up while the caller waits, at most ``wait_s``; after a failure nobody waits for ``away_s``. What
arrives after the caller left is told to ``on_late``, so that what was made without it can be made again.

Costs: one look-up for each project and ``refresh_s``, of all that are due at once.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, field

from tabinet.attach.openstack.neutron import Project

Fetch = Callable[[Sequence[str]], dict[str, Project]]
"""Those of the projects that exist; whatever it raises means that nobody could be asked."""


def _executor() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="tabinet-projects")


@dataclass(slots=True)
class Projects:
    """Any number of threads may use one."""

    fetch: Fetch
    on_late: Callable[[list[str]], None] = lambda projects: None
    """Called in a thread of its own."""
    tell: Callable[[str], None] = lambda reason: None
    """Called once for each time that nobody can be asked, not once for each question."""
    wait_s: float = 1.0
    refresh_s: float = 300.0
    away_s: float = 30.0
    clock: Callable[[], float] = time.monotonic
    _known: dict[str, tuple[Project | None, float]] = field(default_factory=dict)
    """By identifier, with the time of the look-up. None: there is no such project."""
    _missed: set[str] = field(default_factory=set)
    """Asked for by somebody who got no answer in time."""
    _away_until: float = 0.0
    _told: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _executor: ThreadPoolExecutor = field(default_factory=_executor)

    def look_up(self, ids: Iterable[str]) -> dict[str, Project]:
        """Those of the projects that are known by the time the caller cannot wait any longer."""
        wanted = set(filter(None, ids))
        now = self.clock()
        with self._lock:
            due = {each for each in wanted if each not in self._known or self._known[each][1] + self.refresh_s <= now}
            asked = sorted(due | self._missed) if due and now >= self._away_until else []
        if asked:
            self._wait(self._executor.submit(self._load, asked), due)
        with self._lock:
            found = {each: self._known[each][0] for each in wanted if each in self._known}
        return {each: project for each, project in found.items() if project is not None}

    def close(self) -> None:
        """Nobody is asked any more."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _wait(self, answer: Future[None], due: set[str]) -> None:
        try:
            answer.result(self.wait_s)
        except FutureTimeout:
            reason = f"no answer within {self.wait_s:g} s"
        except Exception as error:  # noqa: BLE001  # Keystone's client has errors of many kinds; without a name everything goes on
            reason = f"{type(error).__name__}: {error}"
        else:
            return
        with self._lock:
            self._missed |= {each for each in due if each not in self._known or self._known[each][1] + self.refresh_s <= self.clock()}
            self._away_until = self.clock() + self.away_s
            told, self._told = self._told, True
        if not told:
            self.tell(reason)

    def _load(self, ids: Sequence[str]) -> None:
        """In the thread of look-ups: these are known."""
        found = self.fetch(ids)
        with self._lock:
            late = sorted(self._missed.intersection(ids))
            self._missed.difference_update(ids)
            self._known |= {each: (found.get(each), self.clock()) for each in ids}
            self._away_until, self._told = 0.0, False
        if late:
            self.on_late(late)
