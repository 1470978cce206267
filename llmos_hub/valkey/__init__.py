"""Valkey or Redis: connection, scripts, layout and server, which the store and shared identities stand on."""
