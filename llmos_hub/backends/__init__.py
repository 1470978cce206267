"""Backends, which run workloads: on this machine (`local`) or in a cluster (`kubernetes`)."""
