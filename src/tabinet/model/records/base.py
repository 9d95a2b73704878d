"""What all resources have in common: metadata, kind, version."""

from __future__ import annotations

import msgspec

API_VERSION = "projectcalico.org/v3"


class Record(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, gc=False):
    """Base of all records: camelCase on the wire, defaults omitted, unknown fields ignored."""


class Metadata(Record, frozen=True, kw_only=True):
    """Name, labels and bookkeeping of a resource."""

    name: str = ""
    """Name of the resource, unique within its kind (and namespace)."""
    namespace: str = ""
    """Namespace of the resource, for kinds that have one. Default: default."""
    uid: str = ""
    """Identifier that the first writer gives; it stays the same as long as the resource exists."""
    creation_timestamp: str | None = None
    """When the resource was created: RFC 3339, UTC."""
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    """Labels, by which selectors find the resource."""
    annotations: dict[str, str] = msgspec.field(default_factory=dict)
    """Free texts for people and programs; 256 KiB in all. Selectors do not see them."""
    resource_version: str = ""
    """The store's revision of the resource. A change carries it to say what it changes; it is never stored."""


class Resource(Record, frozen=True, kw_only=True):
    """What all resources have; each kind adds its ``spec``."""

    kind: str = ""
    """Name of the kind."""
    api_version: str = API_VERSION
    """Always ``projectcalico.org/v3``."""
    metadata: Metadata = Metadata()
    """Name, labels and bookkeeping."""
