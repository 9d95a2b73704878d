"""Names of projects: who waits for Keystone, how long, and what becomes of answers that come late."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from port_build import view

from tabinet.attach.openstack.names import Region
from tabinet.attach.openstack.neutron import Project
from tabinet.attach.openstack.planning import Identity, differs, plan_writes
from tabinet.attach.openstack.projects import Projects
from tabinet.attach.openstack.translate import translate_port
from tabinet.model.codec import encode_document
from tabinet.store.api import KeyValue

ONE = Project(id="one", name="Büro Ost", parent_id="default")
WITHIN_S = 30.0


@dataclass
class Keystone:
    """Knows project ``one``; says what it was asked."""

    asked: list[list[str]] = field(default_factory=list)
    now: float = 0.0
    away: bool = False

    def fetch(self, ids: Sequence[str]) -> dict[str, Project]:
        self.asked.append(list(ids))
        if self.away:
            raise OSError("nobody is there")
        return {each: ONE for each in ids if each == ONE.id}


def test_projects_are_asked_for_once_and_again_when_that_was_long_ago() -> None:
    keystone = Keystone()
    projects = Projects(keystone.fetch, wait_s=WITHIN_S, clock=lambda: keystone.now)
    for _ in range(2):
        assert projects.look_up(["one", "none", ""]) == {"one": ONE}
    assert keystone.asked == [["none", "one"]]
    keystone.now = 301.0
    assert projects.look_up(["one"]) == {"one": ONE}
    assert keystone.asked[1:] == [["one"]]
    projects.close()


def test_without_keystone_old_names_go_on_nobody_asks_for_a_while_and_it_is_told_once() -> None:
    keystone, told = Keystone(), list[str]()
    projects = Projects(keystone.fetch, tell=told.append, wait_s=WITHIN_S, clock=lambda: keystone.now)
    projects.look_up(["one"])
    keystone.away, keystone.now = True, 400.0
    assert projects.look_up(["one", "two"]) == {"one": ONE}
    assert projects.look_up(["two"]) == {}
    keystone.now = 431.0
    assert projects.look_up(["two"]) == {}
    assert len(keystone.asked) == 3
    assert told == ["OSError: nobody is there"]
    keystone.away, keystone.now = False, 500.0
    projects.look_up(["two"])
    assert keystone.asked[-1] == ["one", "two"], "what somebody did without is asked for as well"
    projects.close()


def test_an_answer_that_comes_late_is_told() -> None:
    answer, late = threading.Event(), list[list[str]]()
    told = threading.Event()

    def fetch(ids: Sequence[str]) -> dict[str, Project]:
        assert answer.wait(WITHIN_S)
        return {"one": ONE}

    def on_late(ids: list[str]) -> None:
        late.append(ids)
        told.set()

    projects = Projects(fetch, on_late, wait_s=0.01)
    assert projects.look_up(["one"]) == {}
    answer.set()
    assert told.wait(WITHIN_S)
    assert late == [["one"]]
    assert projects.look_up(["one"]) == {"one": ONE}
    projects.close()


def stored(project: Project | None) -> tuple[str, KeyValue]:
    [(path, document)] = translate_port(view(project=project), Region()).items()
    return path, KeyValue(path, encode_document(document), 5, 1)


def test_a_name_that_nobody_can_say_anew_stays() -> None:
    path, item = stored(ONE)
    [nameless] = translate_port(view(project=None), Region()).values()
    assert "projectcalico.org/openstack-project-name" not in nameless["metadata"]["labels"]
    assert not differs(item, nameless)
    identity = Identity(lambda: "uid", lambda: "now")
    assert plan_writes({path: item}, {path: nameless}, identity).operations == ()
    moved = {**nameless, "spec": {**nameless["spec"], "node": "elsewhere"}}
    [operation] = plan_writes({path: item}, {path: moved}, identity).operations
    assert b'"projectcalico.org/openstack-project-name":"B_ro_Ost"' in operation.value  # type: ignore[union-attr]  # a PutOp
    renamed = next(iter(translate_port(view(project=Project(id="one", name="West")), Region()).values()))
    assert differs(item, renamed)


@pytest.mark.parametrize("project", ["other", ""])
def test_the_name_of_another_project_does_not_stay(project: str) -> None:
    path, item = stored(ONE)
    [document] = translate_port(view(project=None), Region()).values()
    labels = {**document["metadata"]["labels"], "projectcalico.org/openstack-project-id": project}
    other = {**document, "metadata": {**document["metadata"], "labels": labels}}
    [operation] = plan_writes({path: item}, {path: other}, Identity(lambda: "uid", lambda: "now")).operations
    assert b"openstack-project-name" not in operation.value  # type: ignore[union-attr]  # a PutOp
