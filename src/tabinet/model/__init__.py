"""Resources as they are written, stored and calculated with. Pure.

- ``resources``, ``ipam``: typed, frozen views of what is stored, made of the parts in ``records``; ``formats`` names what their fields must
  look like, ``felix`` has the parameters of FelixConfiguration.
- ``kinds``: the table of kinds and their spellings. ``keys``: keys and etcd paths, both ways. ``endpoint_names``: names of workload
  endpoints. ``views``: values of the address management, shown as resources.
- ``codec``: ``decode_stored`` and ``fail_closed`` for readers; ``decode_document`` and ``encode_document`` for writers, which work on plain
  documents, so that unknown fields survive.
- ``documents``: YAML and JSON files to documents. ``validate``: every problem of a document. ``defaults``: what a writer fills in.
  ``protected``: what always exists. ``kubernetes``: documents of Kubernetes' own APIs.
- ``describe``: fields, types, defaults and meanings for people; the reference in ``docs/reference``.
- ``protocols``, ``asn``, ``ports``: values that can be written in several ways, to numbers.

``shapes``, ``strict``, ``semantics``, ``findings``, ``names``, ``constraints`` and the other modules of constraints are the tables and
walkers behind ``codec`` and ``validate``.
"""
