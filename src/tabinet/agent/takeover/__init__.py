"""A host that Calico ran becomes one of ours without a lost packet: ``tabinet import``.

``sight`` reads a host and the store, by ``programs`` and ``processes``, into ``records``. Pure over these: ``iptables``, what Felix has in
a table and the text that takes it out; ``survey``, what fits together and what does not; ``progress``, what is to be done next; ``routes``,
which routes have been replaced. ``finish`` removes what Felix left. The agent itself takes over interfaces and routes
(``dataplane.routes``); nothing here is needed for forwarding.
"""
