"""Routes to local workloads."""
