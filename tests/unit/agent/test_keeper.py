"""What the calculation keeps is put aside from the garbage collector every so often."""

from __future__ import annotations

import gc

from tabinet.agent.keeper import Keeper


def test_what_exists_is_put_aside_after_so_much_work() -> None:
    keeper, before = Keeper(every=10), gc.get_freeze_count()
    try:
        keeper.on_work(9)
        assert gc.get_freeze_count() == before
        keeper.on_work(1)
        aside = gc.get_freeze_count()
        assert aside > before
        kept = [[number] for number in range(1_000)]
        keeper.on_work(9)
        assert gc.get_freeze_count() <= aside
        keeper.on_work(1)
        assert gc.get_freeze_count() >= aside + len(kept) // 2
    finally:
        gc.unfreeze()
