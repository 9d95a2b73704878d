"""What could not be published, or needs not be at once, is published by one thread of the process until it is.

In: subjects. Out: the store agrees with Neutron about each of them, in time. While the store is away the thread waits and tries again,
and those who would publish themselves do not wait for it either: ``publish_or_repair`` asks a store that has just failed only every
``AWAY_S`` seconds. A subject that is added twice is published once. What is pending is lost with the process; the comparison finds it
again.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tabinet.attach.openstack.publisher import Outcome, Publisher, Subject
from tabinet.errors import StoreError
from tabinet.lib.backoff import Backoff

AWAY_S = 2.0
Places = tuple[tuple[str, str], ...]
Tell = Callable[[str, Subject, str], None]
"""Takes the name of an event, a subject, and why."""


@dataclass(slots=True)
class Repairs:
    """Start ``run`` in a thread of its own; ``stop`` ends it."""

    publisher: Publisher
    tell: Tell
    on_published: Callable[[Subject, Outcome], None] = lambda subject, outcome: None
    backoff: Backoff = field(default_factory=lambda: Backoff(first_s=0.2, limit_s=5.0))
    clock: Callable[[], float] = time.monotonic
    _pending: dict[Subject, Places] = field(default_factory=dict)
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _stopped: bool = False
    _busy: bool = False
    _away_until: float = 0.0

    def publish_or_repair(self, subject: Subject, places: Sequence[tuple[str, str]] = ()) -> bool:
        """True: the store agrees now; False: it will."""
        if self.clock() < self._away_until:
            self.add([subject], places)
            return False
        try:
            self.on_published(subject, self.publisher.publish(subject, places))
        except StoreError as error:
            self._away_until = self.clock() + AWAY_S
            reason = str(error)
        except Exception as error:  # noqa: BLE001  # see _failed: what was committed is not undone because it could not be read again
            reason = f"{type(error).__name__}: {error}"
        else:
            return True
        self.tell("not published yet", subject, reason)
        self.add([subject], places)
        return False

    def publish_unless_mentioned(self, subject: Subject, text: str) -> None:
        """As ``publish_or_repair``, unless what is stored mentions the text: then what was committed with it has been published. So that
        of a thousand rules made at once, each of which is told, the first publishes all."""
        try:
            if self.clock() >= self._away_until and self.publisher.mentions(subject, text):
                return
        except StoreError:
            pass
        self.publish_or_repair(subject)

    def add(self, subjects: Sequence[Subject], places: Sequence[tuple[str, str]] = ()) -> None:
        """The subjects will be published."""
        with self._changed:
            for subject in subjects:
                self._pending[subject] = tuple(dict.fromkeys((*self._pending.get(subject, ()), *places)))
            self._changed.notify_all()

    @property
    def pending(self) -> int:
        """How many subjects wait."""
        with self._changed:
            return len(self._pending) + self._busy

    def stop(self) -> None:
        """``run`` returns soon; what is pending stays pending."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def run(self) -> None:
        """Publishes until stopped. Waits without limit for something to do: there may never be anything."""
        failures = 0
        while True:
            with self._changed:
                while not self._pending and not self._stopped:
                    self._changed.wait()
                if self._stopped:
                    return
                subject = next(iter(self._pending))
                places = self._pending.pop(subject)
                self._busy = True
            failed = self._failed(subject, places)
            failures = failures + 1 if failed else 0
            with self._changed:
                self._busy = False
                if failed and not self._stopped:
                    self._changed.wait(self.backoff.delay_s(failures, random.random))

    def _failed(self, subject: Subject, places: Places) -> bool:
        """Published, or else to be published again, at the end of the queue."""
        try:
            outcome = self.publisher.publish(subject, places)
            self._away_until = 0.0
            self.on_published(subject, outcome)
        except StoreError as error:
            reason = str(error)
        except Exception as error:  # noqa: BLE001  # Neutron's database has errors of many kinds, and this thread outlives all of them
            reason = f"{type(error).__name__}: {error}"
        else:
            return False
        self.tell("not published yet", subject, reason)
        with self._changed:
            self._pending[subject] = tuple(dict.fromkeys((*self._pending.get(subject, ()), *places)))
        return True
