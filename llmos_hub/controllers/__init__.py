"""Reconcilers, one per kind, and what calls them: from `spec` to workloads, from what runs to `status`.

`runner` is the process; `reconciler`, `informer` and `workqueue` are the machinery, the same for all kinds;
`modelservice` is the first kind, `downloads` and `teardown` its hands, `modelservice_workloads`,
`modelservice_status` and `modelservice_events` its pure functions.
"""
