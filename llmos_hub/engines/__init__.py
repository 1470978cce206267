"""Engines: the programs that serve models, and the choice of one for a given model.

Importing this package imports nothing else: the engines' own processes are modules of it and must start fast. The
choice is in `llmos_hub.engines.registry`.
"""
