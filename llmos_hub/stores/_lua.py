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

__all__ = ["CHANGES", "COMMIT", "COMMIT_ALWAYS", "FETCH", "LIST", "NAMES", "PREPARE", "RECORD", "STATE", "Script"]


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
-- KEYS epoch, revision, schema, sizes...; ARGV a new epoch, the schema version of this program
if redis.call('EXISTS', KEYS[1]) == 0 then
  local now = redis.call('TIME')
  redis.call('SET', KEYS[1], ARGV[1])
  redis.call('SET', KEYS[2], string.format('%.0f', now[1] * 1000000 + now[2]))
  redis.call('SET', KEYS[3], ARGV[2])
end
for index = 4, #KEYS do
  redis.pcall('DEL', KEYS[index])
end
return {redis.call('GET', KEYS[1]), redis.call('GET', KEYS[3])}
""")
"""Make an empty database ours; returns epoch and schema version.

The counts of bytes are made anew by the first write that needs them: an older program may have written meanwhile,
which keeps none. Where the server takes no writes at the moment (its disk is nearly full) they stay as they are, and all
can be read.
"""

STATE: Final = Script("""
-- KEYS epoch, revision, changes
local first = redis.call('XRANGE', KEYS[3], '-', '+', 'COUNT', 1)
return {redis.call('GET', KEYS[1]), redis.call('GET', KEYS[2]), first[1] and first[1][1] or false}
""")
"""Epoch, revision, and id of the oldest change that is still known."""

COMMIT: Final = Script("""
-- KEYS epoch, revision, changes, objects, namespaces, events, sizes, written
-- ARGV operation (ADDED, MODIFIED, DELETED), name, expected revision ('' for none there), uid, JSON,
--      plural, namespace, labels, labels before ('' where they are the same), length of the stream, bytes of the stream,
--      how many resources and how many bytes of them there may be ('' for any)
if redis.call('EXISTS', KEYS[1]) == 0 then return {-1} end
local current = redis.call('HGET', KEYS[4], ARGV[2])
local found = current and string.match(current, '^%d+') or ''
if found ~= ARGV[3] then return {0, current} end
local revision = string.format('%.0f', redis.call('GET', KEYS[2]) + 1)
local value = revision .. ' ' .. ARGV[4] .. '\\n' .. ARGV[5]
local size = redis.call('HGET', KEYS[7], ARGV[7])
if not size then
  size = 0
  for _, stored in ipairs(redis.call('HVALS', KEYS[4])) do size = size + #stored end
end
local grown = (ARGV[1] == 'DELETED' and 0 or #value) - (current and #current or 0)
if ARGV[12] ~= '' and grown > 0 then
  local count = redis.call('HLEN', KEYS[4])
  if (not current and count >= tonumber(ARGV[12])) or size + grown > tonumber(ARGV[13]) then
    return {2, count, string.format('%.0f', size)}
  end
end
redis.call('INCR', KEYS[2])
redis.call('HSET', KEYS[7], ARGV[7], string.format('%.0f', size + grown))
if ARGV[1] == 'DELETED' then
  redis.call('HDEL', KEYS[4], ARGV[2])
  redis.call('DEL', KEYS[6])
  if redis.call('EXISTS', KEYS[4]) == 0 then
    redis.call('SREM', KEYS[5], ARGV[7])
    redis.call('HDEL', KEYS[7], ARGV[7])
  end
else
  redis.call('HSET', KEYS[4], ARGV[2], value)
  if ARGV[1] == 'ADDED' then redis.call('SADD', KEYS[5], ARGV[7]) end
end
local written = redis.call('INCRBY', KEYS[8], #ARGV[5] + #ARGV[8] + #ARGV[9] + 200)
redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[10], revision .. '-0', 't', ARGV[1], 'k', ARGV[6], 'n', ARGV[7],
  'm', ARGV[2], 'l', ARGV[8], 'p', ARGV[9], 'o', ARGV[5], 's', string.format('%.0f', written))
while true do  -- the newest one always stays
  local first = redis.call('XRANGE', KEYS[3], '-', '+', 'COUNT', 1)[1]
  local fields, at = first[2], nil
  for index = 1, #fields, 2 do
    if fields[index] == 's' then at = tonumber(fields[index + 1]) end
  end
  if at and at <= written and at > written - tonumber(ARGV[11]) then break end
  redis.call('XDEL', KEYS[3], first[1])
end
return {1, revision}
""")
"""Check, count, write and tell in one step. Returns ``{1, revision}``; ``{0, current value}`` where what is
stored is not what was expected; ``{2, count, bytes}`` where there is no room; ``{-1}`` where the database was emptied
under us.

Each change in the stream says how many bytes of changes were written up to it, so that the oldest can go when there are
too many of them, and no count can be wrong: one without it is of a program that didn't count, and goes too.
"""

COMMIT_ALWAYS: Final = Script(f"#!lua flags=allow-oom{COMMIT.text}")
"""The same, also when the server's memory is used up: for what makes room, and what the platform itself has to note."""

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

NAMES: Final = Script("""
-- KEYS revision, namespaces; ARGV prefix of the objects' keys, a namespace or nothing for all
local namespaces = #ARGV > 1 and {ARGV[2]} or redis.call('SMEMBERS', KEYS[2])
local answer = {redis.call('GET', KEYS[1])}
for _, namespace in ipairs(namespaces) do
  answer[#answer + 1] = namespace
  answer[#answer + 1] = redis.call('HKEYS', ARGV[1] .. namespace)
end
return answer
""")
"""As `LIST`, but names alone."""

FETCH: Final = Script("""
-- KEYS revision; ARGV prefix of the objects' keys, bytes, then namespace and name of each
local answer, size = {}, 0
for index = 3, #ARGV, 2 do
  if size >= tonumber(ARGV[2]) then break end
  local value = redis.call('HGET', ARGV[1] .. ARGV[index], ARGV[index + 1])
  answer[#answer + 1] = value
  size = size + (value and #value or 0)
end
return answer
""")
"""The values of these resources, null where one is gone, until they have so many bytes."""

CHANGES: Final = Script("""
-- KEYS changes; ARGV id after which to begin, how many, bytes
local answer, size, after = {}, 0, ARGV[1]
while #answer < tonumber(ARGV[2]) and size < tonumber(ARGV[3]) do
  local some = redis.call('XRANGE', KEYS[1], '(' .. after, '+', 'COUNT', 10)
  if #some == 0 then break end
  for _, entry in ipairs(some) do
    answer[#answer + 1] = entry
    after = entry[1]
    for _, field in ipairs(entry[2]) do size = size + #field end
  end
end
return answer
""")
"""The next changes, until they have so many bytes, or some more."""

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
    redis.pcall('LSET', KEYS[2], -1, cjson.encode(last))
    return 1
  end
end
if type(redis.pcall('RPUSH', KEYS[2], ARGV[3])) == 'table' then return 0 end
redis.call('LTRIM', KEYS[2], -tonumber(ARGV[4]), -1)
return 1
""")
"""Keep an event, or count it where it equals the newest; returns 0 where the resource is gone.

Where the server's memory is used up it isn't kept, and that is no error: what told it has more important things to do.
"""
