"""The backend that runs workloads as pods of a cluster: Deployments, Jobs and related objects."""
