"""The store of resources on Valkey or Redis."""
