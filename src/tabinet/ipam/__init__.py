"""Addresses: assigned from pools, in blocks that hosts claim, without locks and without leaks.

``client.IpamClient`` is what others use; ``collector`` takes back what belongs to nobody; ``configure``, ``split`` and ``removal`` are for
operators.

``plan`` and ``release`` decide (pure) what one transaction writes, over the block algebra of ``blocks``, the documents of ``handles``, the
choice of ``pools`` and what is known (``view``); ``assigning`` runs that against the store. ``audit`` finds (pure) what does not fit
together in an ``inventory``, ``findings`` explains it, ``garbage`` decides (pure) what of it is due and how it is put right.
"""
