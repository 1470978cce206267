"""The chart's values: their types, defaults and descriptions.

They are the only source of ``helm/llmos/values.yaml``, its schema and ``docs/reference/chart.md``, which `tools.chart_schema`
writes.
"""

from tools.chart_values.root import Values

__all__ = ["Values"]
