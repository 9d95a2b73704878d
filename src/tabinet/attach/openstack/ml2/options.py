"""The section ``[tabinet]`` of Neutron's configuration."""

from __future__ import annotations

from oslo_config import cfg

from tabinet.attach.openstack.names import Region
from tabinet.store.open import StoreConfig

SECTION = "tabinet"
OPTIONS = (
    cfg.ListOpt("etcd_endpoints", default=["http://127.0.0.1:2379"], help="Members of the etcd cluster: http:// or https://host:port."),
    cfg.StrOpt("etcd_ca_file", default="", help="PEM file with the certificate authority of etcd's members."),
    cfg.StrOpt("etcd_cert_file", default="", help="PEM file with the certificate that Neutron shows to etcd."),
    cfg.StrOpt("etcd_key_file", default="", help="PEM file with the key of that certificate."),
    cfg.StrOpt("etcd_username", default="", help="User at etcd; empty for none."),
    cfg.StrOpt("etcd_password", default="", secret=True, help="Password of the user at etcd."),
    cfg.StrOpt("region", default="", help="Name of the OpenStack region, when several share one etcd. Empty: there is one."),
    cfg.BoolOpt("isolate_networks", default=False, help="Networks reach each other only through routers, instead of all each other."),
    cfg.FloatOpt("etcd_timeout", default=5.0, min=0.1, help="Seconds that an API call waits for etcd; then the change is written later."),
    cfg.FloatOpt(
        "keystone_wait",
        default=1.0,
        min=0.0,
        help="Seconds that an API call waits for Keystone to name a project; then the name is written later. 0: no names.",
    ),
    cfg.IntOpt("election_ttl", default=10, min=2, help="Seconds after which another process leads when the leading one is gone."),
    cfg.FloatOpt(
        "comparison_interval", default=300.0, min=0.0, help="Seconds from one comparison of etcd with Neutron to the next. 0: none."
    ),
    cfg.IntOpt("comparison_page", default=500, min=1, help="Ports that a comparison reads from the database at a time."),
)


def register(conf: cfg.ConfigOpts) -> None:
    """The section can be read from ``conf``."""
    conf.register_opts(OPTIONS, group=SECTION)


def list_options() -> list[tuple[str, tuple[cfg.Opt, ...]]]:
    """For oslo-config-generator."""
    return [(SECTION, OPTIONS)]


def store_config(conf: cfg.ConfigOpts) -> StoreConfig:
    """Which store, and how to reach it."""
    section = conf[SECTION]
    return StoreConfig(
        endpoints=tuple(section.etcd_endpoints),
        ca_file=section.etcd_ca_file,
        cert_file=section.etcd_cert_file,
        key_file=section.etcd_key_file,
        username=section.etcd_username,
        password=section.etcd_password,
    )


def region_of(conf: cfg.ConfigOpts) -> Region:
    """The region that this Neutron serves."""
    return Region(conf[SECTION].region, conf[SECTION].isolate_networks)
