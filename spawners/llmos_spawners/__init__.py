"""Spawners for JupyterHub whose servers are configured to use LLMOS."""
