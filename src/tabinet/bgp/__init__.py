"""BGP on a host: what BIRD shall do (``render``, pure), what it says (``replies``, pure), and the shell around both (``driver``)."""
