"""The store: one protocol (``api``), its backends (``memory``, ``sqlite``, ``etcd``), and what is built on it.

``open`` turns a configuration into a ``Datastore``; ``client`` reads and writes resources; ``syncer`` follows them. Importing these
imports no backend's libraries.
"""
