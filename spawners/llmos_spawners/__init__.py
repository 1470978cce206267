"""Spawners for JupyterHub whose servers can use LLMOS at once."""
