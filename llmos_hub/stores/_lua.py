"""The scripts that run inside Valkey, each one atomic step.

Revisions are whole numbers below 2**53, where Lua's numbers are still exact. A database's first revision is
the time it was made, in microseconds since 1970: so that a revision of a lost database is never one of its
successor's, and ``watch`` can tell. Every revision has exactly one entry in the stream of changes, with the
id ``REVISION-0``: so that a gap is seen for certain.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha1
from typing import Final

__all__ = ["COMMIT", "LIST", "PREPARE", "RECORD", "STATE", "Script"]


@dataclass(frozen=True, slots=True)
class Script:
    """A script, with the digest by which the server knows it.

    Attributes
    ----------
    text
        The script in Lua 5.1.
    """

    text: str

    @property
    def digest(self) -> str:
        """SHA-1 of the text, as ``EVALSHA`` wants it."""
        return sha1(self.text.encode(), usedforsecurity=False).hexdigest()


PREPARE: Final = Script("""
-- KEYS epoch, revision, schema; ARGV a new epoch, the schema version of this program
if redis.call('EXISTS', KEYS[1]) == 0 then
  local now = redis.call('TIME')
  redis.call('SET', KEYS[1], ARGV[1])
  redis.call('SET', KEYS[2], string.format('%.0f', now[1] * 1000000 + now[2]))
  redis.call('SET', KEYS[3], ARGV[2])
end
return {redis.call('GET', KEYS[1]), redis.call('GET', KEYS[3])}
""")
"""Make an empty database ours; returns epoch and schema version."""

STATE: Final = Script("""
-- KEYS epoch, revision, changes
local first = redis.call('XRANGE', KEYS[3], '-', '+', 'COUNT', 1)
return {redis.call('GET', KEYS[1]), redis.call('GET', KEYS[2]), first[1] and first[1][1] or false}
""")
"""Epoch, revision, and id of the oldest change that is still known."""

COMMIT: Final = Script("""
-- KEYS epoch, revision, changes, objects, namespaces, events
-- ARGV operation (ADDED, MODIFIED, DELETED), name, expected revision ('' for none there), uid, JSON,
--      plural, namespace, labels, labels before ('' where they are the same), length of the stream
if redis.call('EXISTS', KEYS[1]) == 0 then return {-1} end
local current = redis.call('HGET', KEYS[4], ARGV[2])
local found = current and string.match(current, '^%d+') or ''
if found ~= ARGV[3] then return {0, current} end
local revision = string.format('%.0f', redis.call('INCR', KEYS[2]))
if ARGV[1] == 'DELETED' then
  redis.call('HDEL', KEYS[4], ARGV[2])
  redis.call('DEL', KEYS[6])
  if redis.call('EXISTS', KEYS[4]) == 0 then redis.call('SREM', KEYS[5], ARGV[7]) end
else
  redis.call('HSET', KEYS[4], ARGV[2], revision .. ' ' .. ARGV[4] .. '\\n' .. ARGV[5])
  if ARGV[1] == 'ADDED' then redis.call('SADD', KEYS[5], ARGV[7]) end
end
redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[10], revision .. '-0', 't', ARGV[1], 'k', ARGV[6], 'n', ARGV[7],
  'm', ARGV[2], 'l', ARGV[8], 'p', ARGV[9], 'o', ARGV[5])
return {1, revision}
""")
"""Check, count, write and tell in one step. Returns ``{1, revision}``; ``{0, current value}`` where what is
stored is not what was expected; ``{-1}`` where the database was emptied under us."""

LIST: Final = Script("""
-- KEYS revision, namespaces; ARGV prefix of the objects' keys, a namespace or nothing for all
local namespaces = #ARGV > 1 and {ARGV[2]} or redis.call('SMEMBERS', KEYS[2])
local answer = {redis.call('GET', KEYS[1])}
for _, namespace in ipairs(namespaces) do
  answer[#answer + 1] = namespace
  answer[#answer + 1] = redis.call('HGETALL', ARGV[1] .. namespace)
end
return answer
""")
"""A consistent reading of a kind: the revision, then per namespace its name and its names and values."""

RECORD: Final = Script("""
-- KEYS objects, events; ARGV name, uid or '', event as JSON, how many to keep
local current = redis.call('HGET', KEYS[1], ARGV[1])
if not current then return 0 end
if ARGV[2] ~= '' and string.match(current, '^%d+ ([^\\n]*)\\n') ~= ARGV[2] then return 0 end
local event = cjson.decode(ARGV[3])
local newest = redis.call('LINDEX', KEYS[2], -1)
if newest then
  local last = cjson.decode(newest)
  if last.type == event.type and last.reason == event.reason and last.message == event.message then
    last.count = last.count + 1
    last.last = event.last
    redis.call('LSET', KEYS[2], -1, cjson.encode(last))
    return 1
  end
end
redis.call('RPUSH', KEYS[2], ARGV[3])
redis.call('LTRIM', KEYS[2], -tonumber(ARGV[4]), -1)
return 1
""")
"""Keep an event, or count it where it equals the newest; returns 0 where the resource is gone."""
