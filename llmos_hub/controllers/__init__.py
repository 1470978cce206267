"""Reconcilers, one per kind, and the controllers that call them: from `spec` to workloads, and back to `status`.

`runner` is the process; `reconciler`, `informer` and `workqueue` are common to all kinds;
`modelservice` is the first kind, with `downloads` and `teardown` as its parts and `modelservice_workloads`,
`modelservice_status` and `modelservice_events` as its pure functions.
"""
