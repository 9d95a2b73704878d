"""What in a host's surroundings is in the fabric's way: ``tabinet doctor``.

``firewalls``: other programs' rules. ``settings``: clock, sysctls, tables that fill up, programs that manage interfaces. ``network``: MTU,
the store, the peers. Each gives ``Check`` records as ``agent.checksystem`` does, which asks whether the machine can be a host at all.
Nothing is changed; each says what to do.
"""
