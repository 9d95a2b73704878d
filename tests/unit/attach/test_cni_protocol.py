"""CNI's protocol: what is asked, results in every version, errors with the specification's codes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tabinet.attach.cni.protocol import (
    AddressConfig,
    Call,
    Code,
    Interface,
    Request,
    Result,
    RouteConfig,
    merge,
    parse_arguments,
    parse_call,
    parse_request,
    parse_result,
    render_error,
    render_result,
    request_length,
)
from tabinet.attach.cni.shim import VERSIONS, render_request, render_version
from tabinet.errors import CniError

ENVIRON = {"CNI_COMMAND": "ADD", "CNI_CONTAINERID": "c1", "CNI_NETNS": "/run/netns/c1", "CNI_IFNAME": "eth0"}
CONFIG = {"cniVersion": "1.0.0", "name": "net1", "type": "tabinet-cni"}
RESULT = Result(
    interfaces=(Interface(name="cali1", mac="ee:ee:ee:ee:ee:ee"), Interface(name="eth0", mtu=1450, sandbox="/run/netns/c1")),
    ips=(AddressConfig(address="10.0.0.1/32", gateway="169.254.1.1", interface=1), AddressConfig(address="fd00::1/128", interface=1)),
    routes=(RouteConfig(dst="0.0.0.0/0", gw="169.254.1.1"),),
)


def call(environ: dict[str, str] | None = None, **config: Any) -> Call:
    return parse_call(Request("tabinet-cni", ENVIRON | (environ or {}), json.dumps(CONFIG | config).encode()))


def refusal(environ: dict[str, str] | None = None, stdin: bytes | None = None, **config: Any) -> CniError:
    with pytest.raises(CniError) as caught:
        parse_call(Request("tabinet-cni", ENVIRON | (environ or {}), json.dumps(CONFIG | config).encode() if stdin is None else stdin))
    return caught.value


def test_a_request_arrives_as_it_was_sent_and_only_with_variables_of_cni() -> None:
    environ = {b"CNI_COMMAND": b"ADD", b"CNI_ARGS": b"A=b;C=d=e", b"SECRET": b"x"}
    data = render_request("tabinet-cni", environ, b'{"a": "\\n"}')
    assert request_length(data[:30]) == len(data)
    assert parse_request(data) == Request("tabinet-cni", {"CNI_COMMAND": "ADD", "CNI_ARGS": "A=b;C=d=e"}, b'{"a": "\\n"}')


def test_the_length_of_a_request_is_known_once_its_first_line_is_there() -> None:
    assert request_length(b"") is None
    assert request_length(b"tabinet-cni 3 ") is None
    assert request_length(b"tabinet-cni 3 4\n") == 16 + 7
    for wrong in (b"GET / HTTP/1.1\r\n", b"x" * 200):
        with pytest.raises(CniError):
            request_length(wrong)


def test_a_call() -> None:
    found = call({"CNI_ARGS": "IgnoreUnknown=1;IP=10.0.0.1;X=a=b", "CNI_PATH": "/a:/b"})
    assert (found.command, found.container, found.interface, found.network) == ("ADD", "c1", "eth0", "net1")
    assert found.arguments == {"IgnoreUnknown": "1", "IP": "10.0.0.1", "X": "a=b"}
    assert found.path == ("/a", "/b")


@pytest.mark.parametrize(
    ("environ", "code", "words"),
    [
        ({"CNI_COMMAND": "FLY"}, Code.ENVIRONMENT, "CNI_COMMAND: got 'FLY'"),
        ({"CNI_CONTAINERID": ""}, Code.ENVIRONMENT, "CNI_CONTAINERID: missing, and ADD needs it"),
        ({"CNI_CONTAINERID": "", "CNI_IFNAME": ""}, Code.ENVIRONMENT, "CNI_CONTAINERID, CNI_IFNAME: missing"),
        ({"CNI_COMMAND": "DEL", "CNI_IFNAME": ""}, Code.ENVIRONMENT, "CNI_IFNAME: missing, and DEL needs it"),
        ({"CNI_CONTAINERID": "../x"}, Code.ENVIRONMENT, "CNI_CONTAINERID: got '../x'"),
        ({"CNI_IFNAME": "a/b"}, Code.ENVIRONMENT, "CNI_IFNAME: got 'a/b'"),
        ({"CNI_IFNAME": ".."}, Code.ENVIRONMENT, "CNI_IFNAME"),
        ({"CNI_IFNAME": "x" * 16}, Code.ENVIRONMENT, "CNI_IFNAME"),
        ({"CNI_ARGS": "A=1;nothing"}, Code.ENVIRONMENT, "CNI_ARGS: got 'nothing'"),
    ],
)
def test_environments_that_are_refused(environ: dict[str, str], code: Code, words: str) -> None:
    error = refusal(environ)
    assert error.code == code
    assert words in str(error)


def test_configurations_that_are_refused() -> None:
    assert refusal(stdin=b"{").code == Code.DECODE
    assert refusal(stdin=b"[]").code == Code.DECODE
    assert refusal(stdin=b'{"name": "\xff"}').code == Code.DECODE
    assert refusal(cniVersion="0.2.0").code == Code.VERSION
    assert refusal(cniVersion=["1.0.0"]).code == Code.VERSION
    assert "name: got ''" in str(refusal(name=""))
    assert refusal(name="../x").code == Code.CONFIG


def test_commands_are_there_from_the_version_on_that_has_them() -> None:
    assert refusal({"CNI_COMMAND": "CHECK"}, cniVersion="0.3.1").code == Code.VERSION
    assert call({"CNI_COMMAND": "CHECK"}, cniVersion="0.4.0").command == "CHECK"
    for command in ("GC", "STATUS"):
        assert refusal({"CNI_COMMAND": command}).code == Code.VERSION
        assert call({"CNI_COMMAND": command}, cniVersion="1.1.0").command == command


def test_a_deletion_needs_no_namespace() -> None:
    assert call({"CNI_COMMAND": "DEL", "CNI_NETNS": ""}).netns == ""


@pytest.mark.parametrize("version", VERSIONS)
def test_results_in_every_version_are_read_back(version: str) -> None:
    document = json.loads(render_result(RESULT, version))
    assert document["cniVersion"] == version
    assert [entry.get("version") for entry in document["ips"]] == (["4", "6"] if version < "1" else [None, None])
    assert ("mtu" in document["interfaces"][1]) == (version == "1.1.0")
    read = parse_result(document)
    assert (read.ips, read.routes) == (RESULT.ips, RESULT.routes)


def test_what_plugins_before_us_have_made_stays_in_front() -> None:
    before = Result(interfaces=(Interface(name="dummy0"),), ips=(AddressConfig(address="192.0.2.1/24", interface=0),))
    both = merge(before, RESULT)
    assert [entry.name for entry in both.interfaces] == ["dummy0", "cali1", "eth0"]
    assert [entry.interface for entry in both.ips] == [0, 2, 2]


def test_a_previous_result_that_is_none() -> None:
    with pytest.raises(CniError, match="prevResult"):
        parse_result({"ips": [{"address": 3}]})


def test_errors_say_what_is_left_behind() -> None:
    error = CniError(Code.TRY_AGAIN, "not ready", "try again later")
    error.add_note("left behind: addresses")
    told = json.loads(render_error("1.0.0", error))
    assert told == {"cniVersion": "1.0.0", "code": 11, "msg": "not ready", "details": "try again later; left behind: addresses"}


def test_versions() -> None:
    assert json.loads(render_version(b'{"cniVersion": "0.4.0"}')) == {"cniVersion": "0.4.0", "supportedVersions": list(VERSIONS)}
    assert json.loads(render_version(b"nothing"))["cniVersion"] == VERSIONS[-1]


def test_arguments_may_be_empty() -> None:
    assert parse_arguments("") == {}
    assert parse_arguments(";A=;") == {"A": ""}
