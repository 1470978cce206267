"""Where workloads run: on this machine (`local`), in a cluster (`kubernetes`)."""
