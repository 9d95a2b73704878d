"""libvirt: domains whose ``<metadata>`` says so are workloads, with TAP, addresses and policy before they run, also while they move.

``hook`` is what libvirt runs; it hands each of its calls to the agent (``server``). ``domain`` is pure: from a domain's XML to attachments.
``service`` does what a call asks for, ``taps`` makes interfaces, ``migration`` moves endpoints between hosts, ``virsh`` asks libvirt what
its hooks do not tell, ``events`` follows it, ``install`` puts the hook where libvirt looks for it.
"""
