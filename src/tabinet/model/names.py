"""Names of resources, labels and annotations: what each kind allows. One table row for each rule."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping

from tabinet.model.endpoint_names import parse_endpoint_name
from tabinet.model.formats import DNS_LABEL, DNS_SUBDOMAIN

MAX_NAME = 253
MAX_LABEL = 63
MAX_ANNOTATIONS_BYTES = 256 << 10

_SUBDOMAIN = re.compile(DNS_SUBDOMAIN)
_LABEL = re.compile(DNS_LABEL)
_SUBDOMAIN_WORDS = "allowed: lower-case letters, digits, '-' and '.', beginning and ending with a letter or digit, at most 253 characters"
_PER_NODE = re.compile(r"default|node\..+")
_QUALIFIED = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
# Names of endpoints begin with those of hosts, and hosts' names with capital letters exist: Neutron's driver writes them as they are.
_ENDPOINT = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
_ENDPOINT_WORDS = "allowed: <node>-<orchestrator>-<workload>-<endpoint>, dashes inside a part doubled"

_PATTERNS: dict[str, tuple[re.Pattern[str], str]] = {
    "Tier": (_LABEL, "allowed: lower-case letters, digits and '-' inside, at most 63 characters"),
    "BGPConfiguration": (_PER_NODE, "allowed: default, or node.<name of a node>"),
    "FelixConfiguration": (_PER_NODE, "allowed: default, or node.<name of a node>"),
    "ClusterInformation": (re.compile("default"), "allowed: default"),
    "IPAMConfiguration": (re.compile("default"), "allowed: default"),
    "KubeControllersConfiguration": (re.compile("default"), "allowed: default"),
    "WorkloadEndpoint": (_ENDPOINT, _ENDPOINT_WORDS),
    "LiveMigration": (_ENDPOINT, _ENDPOINT_WORDS),
}


def judge_name(kind: str, name: str) -> str:
    """What is allowed, in words, when ``name`` is not legal for a resource of ``kind``; empty when it is."""
    pattern, words = _PATTERNS.get(kind, (_SUBDOMAIN, _SUBDOMAIN_WORDS))
    limit = MAX_LABEL if kind == "Tier" else MAX_NAME
    if len(name) > limit or not pattern.fullmatch(name):
        return words
    if pattern is _ENDPOINT:
        try:
            parse_endpoint_name(name)
        except ValueError:
            return words
    elif not _SUBDOMAIN.fullmatch(name):
        return words
    return ""


def name_words(kind: str) -> str:
    """Which names resources of ``kind`` may have, in words."""
    return _PATTERNS.get(kind, (_SUBDOMAIN, _SUBDOMAIN_WORDS))[1].removeprefix("allowed: ")


def judge_namespace(name: str) -> str:
    """As ``judge_name``, for a namespace."""
    return (
        ""
        if len(name) <= MAX_LABEL and _LABEL.fullmatch(name)
        else "allowed: lower-case letters, digits and '-' inside, at most 63 characters"
    )


@functools.lru_cache(maxsize=8192)
def _is_qualified(key: str) -> bool:
    """``[prefix/]name`` as Kubernetes wants it."""
    prefix, slash, name = key.rpartition("/")
    if slash and (len(prefix) > MAX_NAME or not _SUBDOMAIN.fullmatch(prefix)):
        return False
    return bool(_QUALIFIED.fullmatch(name))


_KEY_WORDS = "allowed as a key: an optional DNS name and '/', then up to 63 letters, digits, '-', '_' and '.', no sign at the ends"


@functools.lru_cache(maxsize=8192)
def _is_label_value(value: str) -> bool:
    return _LABEL_VALUE.fullmatch(value) is not None


def label_findings(labels: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    """Key, offending text and what is allowed, for each label that is not legal."""
    for key, value in labels.items():
        if not _is_qualified(key):
            yield key, key, _KEY_WORDS
        if not _is_label_value(value):
            yield key, value, "allowed: up to 63 letters, digits, '-', '_' and '.', no sign at the ends"


def annotation_findings(annotations: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    """The same for annotations; their values are free."""
    for key in annotations:
        if not _is_qualified(key.lower()):
            yield key, key, _KEY_WORDS
    size = sum(len(key.encode("utf-8", "replace")) + len(value.encode("utf-8", "replace")) for key, value in annotations.items())
    if size > MAX_ANNOTATIONS_BYTES:
        yield "", f"{size} bytes", f"allowed: {MAX_ANNOTATIONS_BYTES} bytes in all"
