"""OpenStack: what Neutron knows, written into the store that hosts follow; what hosts report, told to Neutron.

Pure: ``neutron`` (records of Neutron's dictionaries), ``names``, ``translate`` (ports), ``groups`` (security and address groups),
``limits`` (QoS), ``isolation`` (networks and routers), ``cluster``, ``planning`` (what has to be written). Shell without Neutron:
``storethread``, ``publisher``, ``bulk``, ``repairs``, ``leader``, ``statuses``, ``comparison``. ``ml2`` alone imports Neutron.
"""
