"""What workloads of a lab can be: a module for each kind, all with the same ``Kind`` protocol, found by name in ``known``.

``facts`` is what the pure parts of a lab (parsing, planning) need to know of a kind.
"""
