"""Where the store is: the order of the sources, and calicoctl's own."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from cli_world import Tabinet, resource

from tabinet.cli.place import Place, find_store
from tabinet.errors import InputError, SetupError

OURS = '[store]\nendpoints = ["http://own:2379"]\n'
CALICO = """\
apiVersion: projectcalico.org/v3
kind: CalicoAPIConfig
metadata:
spec:
  datastoreType: etcdv3
  etcdEndpoints: https://one:2379, https://two:2379
  etcdCACertFile: /ca.pem
  etcdCertFile: /cert.pem
  etcdKeyFile: /key.pem
  etcdUsername: who
  etcdPassword: secret
  kubeconfig: /ignored
"""
CALICO_VARIABLES = {"DATASTORE_TYPE": "etcdv3", "ETCD_ENDPOINTS": "http://env:2379"}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A machine without any configuration."""
    return Place(environment={}, own_config=tmp_path / "tabinet.toml", calico_config=tmp_path / "calicoctl.cfg", labs=tmp_path / "labs")


def make_lab(place: Place, name: str) -> None:
    directory = place.labs / name
    directory.mkdir(parents=True)
    (directory / "tabinet.toml").write_text(f'[store]\nendpoints = ["unix:///lab/{name}"]\n')


def endpoint(place: Place) -> str:
    return find_store(place).endpoints[0]


def test_each_source_goes_before_those_below(place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert endpoint(place) == "http://127.0.0.1:2379"
    make_lab(place, "red")
    assert endpoint(place) == "unix:///lab/red"
    assert "using the lab 'red'" in capsys.readouterr().err
    place.environment = CALICO_VARIABLES
    assert endpoint(place) == "http://env:2379"
    place.calico_config.write_text(CALICO)
    assert endpoint(place) == "https://one:2379"
    place.own_config.write_text(OURS)
    assert endpoint(place) == "http://own:2379"
    place.environment = {**CALICO_VARIABLES, "TABINET_STORE_ENDPOINTS": "http://variable:2379"}
    assert endpoint(place) == "http://variable:2379"
    (tmp_path / "other").write_text(CALICO.replace("one", "other"))
    place.environment = {"TABINET_CONFIG": str(tmp_path / "other")}
    assert endpoint(place) == "https://other:2379"
    place.environment = {"TABINET_LAB": "red"}
    assert endpoint(place) == "unix:///lab/red"
    make_lab(place, "blue")
    place.environment = {"TABINET_LAB": "red", "TABINET_CONFIG": str(tmp_path / "other")}
    place.lab = "blue"
    assert endpoint(place) == "unix:///lab/blue"
    place.lab, place.config = None, str(tmp_path / "other")
    assert endpoint(place) == "https://other:2379"
    assert capsys.readouterr().err == ""


def test_everything_that_calicoctl_cfg_says(place: Place) -> None:
    place.calico_config.write_text(CALICO)
    store = find_store(place)
    assert store.kind == "etcd"
    assert store.endpoints == ("https://one:2379", "https://two:2379")
    assert (store.ca_file, store.cert_file, store.key_file) == ("/ca.pem", "/cert.pem", "/key.pem")
    assert (store.username, store.password) == ("who", "secret")


def test_certificates_within_calicoctl_cfg(place: Place) -> None:
    place.calico_config.write_text(
        "apiVersion: projectcalico.org/v3\nkind: CalicoAPIConfig\nspec:\n  etcdEndpoints: a\n"
        "  etcdCACert: |\n    -----BEGIN\n    x\n  etcdKey: k\n  etcdCert: c\n"
    )
    store = find_store(place)
    assert Path(store.ca_file).read_text() == "-----BEGIN\nx\n"
    assert Path(store.key_file).read_text() + Path(store.cert_file).read_text() == "kc"


def test_calicos_variables(place: Place) -> None:
    place.environment = {
        "CALICO_ETCD_ENDPOINTS": "https://a:1,https://b:2",
        "ETCD_CA_CERT_FILE": "/ca",
        "ETCD_CERT_FILE": "/cert",
        "ETCD_KEY_FILE": "/key",
        "ETCD_USERNAME": "u",
        "ETCD_PASSWORD": "p",
    }
    store = find_store(place)
    assert store.endpoints == ("https://a:1", "https://b:2")
    assert (store.ca_file, store.cert_file, store.key_file, store.username, store.password) == ("/ca", "/cert", "/key", "u", "p")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("etcdv3", "kubernetes"), "Tabinet works with etcd"),
        (("  datastoreType: etcdv3\n  etcdEndpoints: https://one:2379, https://two:2379\n", ""), "names no etcdEndpoints"),
        (("https://one:2379, https://two:2379", '""'), "names no etcdEndpoints"),
        (("etcdUsername: who", "etcdDiscoverySrv: example.org"), "list the members in etcdEndpoints"),
    ],
)
def test_datastores_that_we_do_not_have(place: Place, change: tuple[str, str], message: str) -> None:
    place.calico_config.write_text(CALICO.replace(*change))
    with pytest.raises(SetupError, match=message):
        find_store(place)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("etcdUsername", "etcdUsrname"), "did you mean etcdUsername"),
        (("secret", "5"), "spec.etcdPassword: got 5; must be a text"),
        (("kind: CalicoAPIConfig", "kind: CalicoAPIConfigs"), "kind: got 'CalicoAPIConfigs'"),
        (("kind: CalicoAPIConfig", "kind: [CalicoAPIConfig"), "not YAML"),
        (("metadata:", "---"), "2 documents"),
    ],
)
def test_errors_in_calicoctl_cfg(place: Place, change: tuple[str, str], message: str) -> None:
    place.calico_config.write_text(CALICO.replace(*change))
    with pytest.raises(InputError) as caught:
        find_store(place)
    assert message in str(caught.value)


def test_what_cannot_be_decided(place: Place) -> None:
    make_lab(place, "red")
    make_lab(place, "blue")
    with pytest.raises(SetupError, match="several labs run \\(blue, red\\): choose one, as in --lab blue"):
        find_store(place)
    place.lab = "green"
    with pytest.raises(SetupError, match="there is no lab 'green' \\(there are: blue, red\\)"):
        find_store(place)
    place.lab = "../labs/red"
    with pytest.raises(SetupError, match="there is no lab"):
        find_store(place)
    place.config = "x"
    with pytest.raises(click.UsageError):
        find_store(place)
    place.lab = None
    with pytest.raises(SetupError, match="x: no such file"):
        find_store(place)


def test_the_options_stand_before_or_after_the_command(tabinet: Tabinet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KIND", "PATH"):
        monkeypatch.delenv(f"TABINET_STORE_{name}")
    config = tmp_path / "c.toml"
    config.write_text(f'[store]\nkind = "sqlite"\npath = "{tmp_path}/other.db"\n')
    assert tabinet("-c", str(config), "apply", "-f", "-", given=resource("Tier", "t", order=1)).code == 0
    for words in (("--config", str(config), "get", "tier"), ("get", "tier", "--config", str(config)), ("get", "-c", str(config), "tier")):
        assert tabinet(*words, "-o", "name").out == "tier/t\n"
    assert tabinet("get", "tier", "--config", "/nowhere.toml").code == 3
