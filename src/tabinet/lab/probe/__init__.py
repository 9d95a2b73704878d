"""Programs that run inside workloads' namespaces, and the clients that drive them.

``prober`` and ``flow`` are run as plain scripts with nothing but the standard library, so that one starts in some 15 ms and weighs 8 MB.
"""
