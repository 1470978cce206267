"""Read by every IPython of this environment: in servers that LLMOS started the magics are there by themselves."""
# ruff: noqa: INP001 - a configuration file, not a module
# mypy: ignore-errors

import os

if os.environ.get("LLMOS_URL"):
    c = get_config()  # noqa: F821 - IPython gives it to its configuration files
    c.InteractiveShellApp.extensions.append("llmos_widgets")
