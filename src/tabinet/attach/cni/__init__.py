"""The CNI plugins ``tabinet-cni`` and ``tabinet-ipam`` (https://www.cni.dev/docs/spec/).

``shim`` is the program that container runtimes run; it hands each call to ``server``, which runs beside the agent. ``protocol``,
``config``, ``values`` and ``translate`` are pure: from environment and standard input to an attachment, and from an attachment to a
result. ``service`` does what a call asks for, ``deletions`` what could not be done at once.
"""
