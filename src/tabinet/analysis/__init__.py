"""Questions about the fabric, answered from the resources before any packet is sent. Pure."""
