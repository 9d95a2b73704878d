"""The records that resources consist of, by topic; ``tabinet.model.resources`` has them all under one name each.

A record's fields say everything that is known about them: name on the wire, type, format, default, and in the text below each of them what
it means. ``shapes`` reads the types for validation, ``describe`` the texts for people. A text is one or two plain sentences; where absence
means the same as some value, its last sentence is ``Default: ...``.
"""
