"""The rules of kinds that have their own: a module here has the kind as ``KIND``, and the class as ``RULES``."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

from llmos.resources import Resource
from llmos_hub.managers.kind_rules import KindRules
from llmos_hub.managers.settings import PlatformSettings

__all__ = ["load_rules"]


def load_rules(settings: PlatformSettings) -> dict[type[Resource], KindRules[Any]]:
    """Return the rules by kind.

    Parameters
    ----------
    settings
        The settings in force.
    """
    modules = [importlib.import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__)]
    return {module.KIND: module.RULES(settings) for module in modules}
