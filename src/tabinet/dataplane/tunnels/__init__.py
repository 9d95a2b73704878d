"""Tunnels to other hosts, and the routes to what is behind them."""
