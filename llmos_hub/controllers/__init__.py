"""Reconcilers, one per kind, and the controllers that call them: from `spec` to workloads, and back to `status`.

`runner` is the process; `reconciler`, `workqueue` and `teardown` are common to all kinds. Each kind is a
package beside them, which `registry` finds.
"""
