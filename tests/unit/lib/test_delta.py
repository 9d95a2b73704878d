"""The delta tracker: pending work is what differs."""

from tabinet.lib.delta import DeltaTracker


def test_what_differs_is_pending_oldest_first() -> None:
    tracker: DeltaTracker[str, int] = DeltaTracker()
    tracker.set_desired("new", 1)
    tracker.set_actual("old", 2)
    tracker.set_desired("both", 3)
    tracker.set_actual("both", 3)
    assert tracker.pending() == ["new", "old"]
    assert list(tracker.to_set()) == [("new", 1)]
    assert list(tracker.to_delete()) == [("old", 2)]


def test_doing_the_work_ends_it() -> None:
    tracker: DeltaTracker[str, int] = DeltaTracker()
    tracker.set_desired("a", 1)
    tracker.set_actual("b", 1)
    for key, value in tracker.to_set():
        tracker.set_actual(key, value)
    for key, _ in tracker.to_delete():
        tracker.drop_actual(key)
    assert tracker.in_sync


def test_a_change_of_value_is_pending_and_its_reversal_is_not() -> None:
    tracker: DeltaTracker[str, int] = DeltaTracker()
    tracker.set_actual("a", 1)
    tracker.set_desired("a", 2)
    assert not tracker.in_sync
    tracker.set_desired("a", 1)
    assert tracker.in_sync


def test_reading_everything_again_judges_everything_again() -> None:
    tracker: DeltaTracker[str, int] = DeltaTracker()
    tracker.set_desired("a", 1)
    tracker.set_actual("a", 1)
    tracker.set_actual("gone", 1)
    tracker.replace_actual({"stray": 5})
    assert dict(tracker.to_set()) == {"a": 1}
    assert dict(tracker.to_delete()) == {"stray": 5}
