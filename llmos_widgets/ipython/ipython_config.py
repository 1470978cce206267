"""IPython configuration that loads the magics in servers that LLMOS started; every IPython here reads it."""
# ruff: noqa: INP001 - a configuration file, not a module
# mypy: ignore-errors

import os

if os.environ.get("LLMOS_URL"):
    c = get_config()  # noqa: F821 - IPython defines it for configuration files
    c.InteractiveShellApp.extensions.append("llmos_widgets")
