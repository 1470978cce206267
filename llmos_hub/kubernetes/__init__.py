"""The connection to a cluster's API server, and local copies of its objects."""
