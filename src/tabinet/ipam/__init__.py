"""Addresses: assigned from pools, in blocks that hosts claim, without locks and without leaks.

``client.IpamClient`` is what others use. ``plan`` decides (pure) what one transaction writes, over the block algebra of ``blocks``, the
documents of ``handles``, the choice of ``pools`` and what is known (``view``); ``audit`` reports usage and inconsistencies.
"""
