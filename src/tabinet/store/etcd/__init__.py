"""etcd as a ``Datastore``: the only package that speaks gRPC.

``store`` is what others use (``open_etcd``); ``connection`` keeps channels and tokens, ``watching`` reads watch streams, ``failures``
puts gRPC's errors into our words, ``endpoints`` reads addresses, ``methods`` and ``rpc.proto`` are etcd's API.
"""

import os

# gRPC's C library writes failed handshakes and the like to standard error by itself. Everything that it has to say also comes
# with the error of the call, which we report in one line.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
