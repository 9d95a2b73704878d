"""The fabric as it was: resources at a revision or a time, from what stands in the store and the history that undoes what came later.

In: a store, and words for moments. Out: resources, as ``fabric_reading`` gives them, and what is not known of them. Endpoints and Nodes
that agents and orchestrators write are not in the history: they are as they are now, and counted. O(store and history).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence

import msgspec

from tabinet.analysis.fabric import Resources
from tabinet.cli.fabric_reading import decoded
from tabinet.model.history import is_watched, name_of
from tabinet.model.kept_invariants import INVARIANTS
from tabinet.model.keys import AFFINITIES, RESOURCES, ResourceKey, parse_path
from tabinet.store.api import Datastore
from tabinet.store.history import Log, Past, parse_when, read_log, state_at

NOW = "now"
NAMED = 5


class Moment(msgspec.Struct, frozen=True):
    """What stood in the store."""

    revision: int
    past: Past
    resources: Resources


async def read_moments(store: Datastore, words: Sequence[str]) -> tuple[Log, list[Moment]]:
    """The moments that the words mean: revisions, times, how long ago, or ``now``.

    Raises:
        InputError: a word is none of these, or the history does not reach back so far.
    """
    log = await read_log(store, (INVARIANTS, RESOURCES, AFFINITIES))
    now = time.time()
    moments = []
    for word in words:
        revision = log.revision if word == NOW else parse_when(word, log.records, now)
        past = Past(log.items, ()) if word == NOW else state_at(log, revision)
        moments.append(Moment(revision, past, decoded(item for path, item in past.items.items() if not path.startswith(INVARIANTS))))
    return log, moments


def render_unsure(moment: Moment) -> Iterator[str]:
    """What is not known of a moment, in words."""
    named = [name_of(path) for path in moment.past.unsure if is_watched(path)]
    if named:
        more = f" and {len(named) - NAMED} more" if len(named) > NAMED else ""
        yield f"changed since revision {moment.revision} without a record, and taken as now: {', '.join(named[:NAMED])}{more}"
    others = [parse_path(path) for path in moment.past.unsure if not is_watched(path)]
    kinds = Counter(key.kind for key in others if isinstance(key, ResourceKey))
    for kind, count in sorted(kinds.items()):
        yield f"taken as now, because the history does not follow them: {count} {kind}{'' if count == 1 else 's'} changed since"
