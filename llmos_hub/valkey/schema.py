"""The layout of the database: its version, its id and the prefix of all keys; imports no client library."""

from __future__ import annotations

from typing import Final

from llmos_hub.valkey.scripts import Script

__all__ = ["INITIALIZE", "SCHEMA_VERSION", "Keys"]

SCHEMA_VERSION: Final = 1
"""Version of the database layout that this program writes."""


class Keys:
    """The names of the keys that belong to the database as a whole."""

    prefix: Final = "{llmos}"
    """Prefix of each key; the braces put all keys on one node of a Redis Cluster, as scripts require."""
    schema: Final = f"{prefix}:schema"
    """The layout's version."""
    epoch: Final = f"{prefix}:epoch"
    """The id of this database; a database that replaces it has another one."""


INITIALIZE: Final = Script("""
-- KEYS epoch, schema; ARGV a new epoch, the schema version of this program
if redis.call('EXISTS', KEYS[1]) == 0 then
  redis.call('SET', KEYS[1], ARGV[1])
  redis.call('SET', KEYS[2], ARGV[2])
end
return {redis.call('GET', KEYS[1]), redis.call('GET', KEYS[2])}
""")
"""Initialize an empty database; returns epoch and schema version."""
