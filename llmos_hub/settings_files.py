"""Settings in a file that the environment names; in a cluster a mounted ConfigMap."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import ValidationError

from llmos.errors import UsageError
from llmos.resources.base import Model, invalid

__all__ = ["read_model"]

M = TypeVar("M", bound=Model)


def read_model(kind: type[M], variable: str, environ: Mapping[str, str]) -> M:
    """Return the settings in the file (YAML or JSON) that a variable names; the defaults if it names none.

    Raises
    ------
    UsageError
        The file can't be read, or a setting is invalid.
    """
    path = environ.get(variable)
    if not path:
        return kind()
    try:
        return kind.model_validate(yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {})
    except (OSError, yaml.YAMLError) as error:
        raise UsageError(f"{variable}: {path} can't be read: {error}") from None
    except ValidationError as error:
        raise UsageError(f"{variable}: {invalid(error, kind).message}") from None
