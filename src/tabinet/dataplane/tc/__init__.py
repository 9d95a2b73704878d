"""Bandwidth of workloads by the kernel's traffic control."""
