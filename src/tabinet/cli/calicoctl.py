"""Calico's own client configuration: ``calicoctl.cfg`` (kind ``CalicoAPIConfig``) and ``DATASTORE_TYPE``, ``ETCD_*`` in the environment.

In: text or an environment. Out: a ``StoreConfig`` for etcd; the other datastore that Calico knows, the Kubernetes API, is refused in
words. Names: docs.tigera.io, "Configure calicoctl to connect to an etcd datastore".
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping

import msgspec

from tabinet.errors import InputError, Problem, SetupError
from tabinet.store.open import StoreConfig

KIND = "CalicoAPIConfig"
_FIELDS = {
    "datastoreType": "DATASTORE_TYPE",
    "etcdEndpoints": "ETCD_ENDPOINTS",
    "etcdDiscoverySrv": "ETCD_DISCOVERY_SRV",
    "etcdUsername": "ETCD_USERNAME",
    "etcdPassword": "ETCD_PASSWORD",
    "etcdKeyFile": "ETCD_KEY_FILE",
    "etcdCertFile": "ETCD_CERT_FILE",
    "etcdCACertFile": "ETCD_CA_CERT_FILE",
}
"""Names in the file and in the environment; there, with or without ``CALICO_`` before them."""
_INLINE = {"etcdKey": "key_file", "etcdCert": "cert_file", "etcdCACert": "ca_file"}
"""PEM in the file itself."""
_KUBERNETES = (
    *("kubeconfig", "k8sAPIEndpoint", "k8sKeyFile", "k8sCertFile", "k8sCAFile", "k8sAPIToken", "k8sInsecureSkipTLSVerify"),
    *("k8sDisableNodePoll", "usePodCIDR", "kubeconfigInline", "k8sClientQPS", "k8sCurrentContext", "calicoAPIGroup"),
)
"""Without meaning for etcd."""


def looks_like_config(text: str) -> bool:
    """True when a configuration file is calicoctl's and not ours."""
    return KIND in text


def is_configured(environment: Mapping[str, str]) -> bool:
    """True when the environment says which datastore calicoctl should use."""
    return bool(_from(environment, "DATASTORE_TYPE") or _from(environment, "ETCD_ENDPOINTS") or _from(environment, "ETCD_DISCOVERY_SRV"))


def parse_environment(environment: Mapping[str, str]) -> StoreConfig:
    """The store that the environment names.

    Raises:
        SetupError: a datastore that we do not have.
    """
    values = {name: _from(environment, variable) for name, variable in _FIELDS.items()}
    return _store(values, "the environment")


def parse_config(text: str, source: str) -> StoreConfig:
    """The store that a ``calicoctl.cfg`` names.

    Raises:
        InputError: it has errors.
        SetupError: it names a datastore that we do not have.
    """
    from tabinet.model.documents import load_documents

    documents = load_documents(text, source)
    if len(documents) != 1:
        raise InputError([Problem(path="", value=f"{len(documents)} documents", allowed="must be one document", source=source)])
    data = documents[0].data
    problems = []
    for name, wanted in (("apiVersion", "projectcalico.org/v3"), ("kind", KIND)):
        if data.get(name) != wanted:
            problems.append(Problem(path=name, value=repr(data.get(name)), allowed=f"must be {wanted}", source=source))
    spec = data.get("spec") or {}
    if not isinstance(spec, dict):
        raise InputError([*problems, Problem(path="spec", value=repr(spec)[:80], allowed="must be a mapping", source=source)])
    known = (*_FIELDS, *_INLINE, *_KUBERNETES)
    for name, value in spec.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            allowed = f"unknown field; did you mean {near[0]}?" if near else f"unknown field; allowed: {', '.join(known)}"
            problems.append(Problem(path=f"spec.{name}", value=repr(value)[:80], allowed=allowed, source=source))
        elif name not in _KUBERNETES and value is not None and not isinstance(value, str):
            problems.append(Problem(path=f"spec.{name}", value=repr(value)[:80], allowed="must be a text", source=source))
    if problems:
        raise InputError(problems)
    store = _store({name: spec.get(name) or "" for name in _FIELDS}, source)
    inline = {field: _as_file(spec[name]) for name, field in _INLINE.items() if spec.get(name)}
    return msgspec.structs.replace(store, **inline)


def _from(environment: Mapping[str, str], variable: str) -> str:
    return environment.get(f"CALICO_{variable}") or environment.get(variable) or ""


def _store(values: Mapping[str, str], source: str) -> StoreConfig:
    kind = values["datastoreType"] or ("etcdv3" if values["etcdEndpoints"] else "kubernetes")
    if kind != "etcdv3":
        said = f"names the datastore {kind!r}" if values["datastoreType"] else "names no etcdEndpoints, which means the Kubernetes API"
        raise SetupError(f"{source} {said}; Tabinet works with etcd (datastoreType: etcdv3). To use another configuration: --config FILE")
    if values["etcdDiscoverySrv"]:
        raise SetupError(f"{source}: finding etcd by DNS (etcdDiscoverySrv) is not supported: list the members in etcdEndpoints")
    endpoints = tuple(part.strip() for part in values["etcdEndpoints"].split(",") if part.strip())
    if not endpoints:
        raise SetupError(f"{source} names no etcdEndpoints")
    return StoreConfig(
        endpoints=endpoints,
        ca_file=values["etcdCACertFile"],
        cert_file=values["etcdCertFile"],
        key_file=values["etcdKeyFile"],
        username=values["etcdUsername"],
        password=values["etcdPassword"],
    )


def _as_file(text: str) -> str:
    """The path of an anonymous file (memfd_create(2)) that holds the text as long as this process lives: a key touches no disk."""
    descriptor = os.memfd_create("tabinet-pem", os.MFD_CLOEXEC)
    os.write(descriptor, text.encode())
    return f"/proc/self/fd/{descriptor}"
