"""The store of resources in a cluster: custom resources and Secrets, of the namespaces of one release."""
