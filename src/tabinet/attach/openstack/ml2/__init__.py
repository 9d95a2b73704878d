"""The part that runs inside Neutron: the ML2 mechanism driver and what belongs to it. The only modules that import Neutron."""
