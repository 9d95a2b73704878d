"""Interfaces of local workloads, and what the host itself needs to be a router."""
