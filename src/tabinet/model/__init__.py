"""Resources as they are written, stored and calculated with. Pure.

- ``resources``, ``ipam``: typed, frozen views of what is stored; ``formats`` names what their fields must look like.
- ``kinds``: the table of kinds and their spellings. ``keys``: keys and etcd paths, both ways. ``endpoint_names``: names of workload
  endpoints.
- ``codec``: ``decode_stored`` and ``fail_closed`` for readers; ``decode_document`` and ``encode_document`` for writers, which work on plain
  documents, so that unknown fields survive.
- ``documents``: YAML and JSON files to documents. ``validate``: every problem of a document. ``defaults``: what a writer fills in.
- ``protocols``, ``asn``, ``ports``: values that can be written in several ways, to numbers.

``shapes``, ``semantics``, ``constraints``, ``policy_constraints``, ``findings``, ``names`` and ``felix`` are the tables and walkers behind
``codec`` and ``validate``.
"""
