"""The kernel's own interfaces: netlink sockets for nf_tables and routing, namespaces, sysctls; each with the fake that ships beside it."""
