"""Docker's network and address drivers (libnetwork's remote protocol): ``docker network create -d tabinet --ipam-driver tabinet NAME``.

``protocol`` and ``translate`` are pure: from a driver call, the network's options and a container's labels to an attachment. ``service``
does what a call asks for, ``web`` takes the calls from Docker's plugin socket, ``daemon`` asks Docker what the calls leave out (names of
networks, labels of containers), ``leftovers`` removes what Docker has forgotten.
"""
