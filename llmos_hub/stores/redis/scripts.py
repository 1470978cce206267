"""The scripts of the store of resources, each one atomic step inside Valkey.

Revisions are integers below 2**53, which Lua's numbers represent exactly. A database's first revision is
the time it was created, in microseconds since 1970, so that a revision of a lost database is never one of its
successor's, and ``watch`` detects it. Every revision has exactly one entry in the stream of changes, with the
id ``REVISION-0``, so that a gap is always detected.
"""

from __future__ import annotations

from typing import Final

from llmos_hub.valkey.scripts import Script

__all__ = ["CHANGES", "COMMIT", "COMMIT_ALWAYS", "FETCH", "INDEX", "LIST", "NAMES", "PREPARE", "RECORD", "STATE"]


PREPARE: Final = Script("""
-- KEYS revision, sizes and indexed namespaces...
if redis.call('EXISTS', KEYS[1]) == 0 then
  local now = redis.call('TIME')
  redis.call('SET', KEYS[1], string.format('%.0f', now[1] * 1000000 + now[2]))
end
for index = 2, #KEYS do
  redis.pcall('DEL', KEYS[index])
end
""")
"""Write the first revision of an empty database.

The byte counts and the sets of indexed namespaces are deleted, and made again by the first write that needs them: an
older version, which keeps neither, may have written meanwhile. If the server refuses writes at the moment (its disk is
nearly full) they stay, and everything can still be read.
"""

STATE: Final = Script("""
-- KEYS epoch, revision, changes
local first = redis.call('XRANGE', KEYS[3], '-', '+', 'COUNT', 1)
return {redis.call('GET', KEYS[1]), redis.call('GET', KEYS[2]), first[1] and first[1][1] or false}
""")
"""Returns epoch, revision, and the id of the oldest change in the stream."""

COMMIT: Final = Script("""
-- KEYS epoch, revision, changes, objects, namespaces, events, sizes, written, indexed, claims
-- ARGV operation (ADDED, MODIFIED, DELETED), name, expected revision ('' if it must not exist), uid, JSON,
--      plural, namespace, labels, labels before ('' if unchanged), length of the stream, bytes of the stream,
--      maximum number and bytes of the resources ('' for no limit), claimed names as JSON ('' if unchanged)
if redis.call('EXISTS', KEYS[1], KEYS[2]) < 2 then return {-1} end
local current = redis.call('HGET', KEYS[4], ARGV[2])
local found = current and string.match(current, '^%d+') or ''
if found ~= ARGV[3] then return {0, current} end
local claims = ARGV[14] ~= '' and cjson.decode(ARGV[14])
local indexed = claims and redis.call('SISMEMBER', KEYS[9], ARGV[7]) == 1
local own = {}
if indexed then
  for _, name in ipairs(cjson.decode(redis.call('HGET', KEYS[10], 'o:' .. ARGV[2]) or '[]')) do own[name] = true end
  local taken = {4}
  for _, name in ipairs(claims) do
    local holder = redis.call('HGET', KEYS[10], 'n:' .. name)
    if holder and holder ~= ARGV[2] and not own[name] then
      taken[#taken + 1] = name
      taken[#taken + 1] = holder
    end
  end
  if #taken > 1 then return taken end
elseif claims and #claims > 0 and redis.call('EXISTS', KEYS[4]) == 1 then
  return {3}
end
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
if claims and not indexed and #claims > 0 then
  redis.call('DEL', KEYS[10])
  redis.call('SADD', KEYS[9], ARGV[7])
  indexed = true
end
if indexed then
  for name in pairs(own) do
    if redis.call('HGET', KEYS[10], 'n:' .. name) == ARGV[2] then redis.call('HDEL', KEYS[10], 'n:' .. name) end
  end
  redis.call('HDEL', KEYS[10], 'o:' .. ARGV[2])
  if #claims > 0 then redis.call('HSET', KEYS[10], 'o:' .. ARGV[2], ARGV[14]) end
  for _, name in ipairs(claims) do redis.call('HSET', KEYS[10], 'n:' .. name, ARGV[2]) end
end
if ARGV[1] == 'DELETED' then
  redis.call('HDEL', KEYS[4], ARGV[2])
  redis.call('DEL', KEYS[6])
  if redis.call('EXISTS', KEYS[4]) == 0 then
    redis.call('SREM', KEYS[5], ARGV[7])
    redis.call('HDEL', KEYS[7], ARGV[7])
    redis.call('SREM', KEYS[9], ARGV[7])
    redis.call('DEL', KEYS[10])
  end
else
  redis.call('HSET', KEYS[4], ARGV[2], value)
  if ARGV[1] == 'ADDED' then redis.call('SADD', KEYS[5], ARGV[7]) end
end
local written = redis.call('INCRBY', KEYS[8], #ARGV[5] + #ARGV[8] + #ARGV[9] + 200)
redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[10], revision .. '-0', 't', ARGV[1], 'k', ARGV[6], 'n', ARGV[7],
  'm', ARGV[2], 'l', ARGV[8], 'p', ARGV[9], 'o', ARGV[5], 's', string.format('%.0f', written))
while true do  -- the newest entry always stays
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
"""Check, count, write and publish in one step. Returns ``{1, revision}``; ``{0, current value}`` if the stored
revision is not the expected one; ``{2, count, bytes}`` if it exceeds the quota; ``{3}`` if the namespace has to be
indexed first; ``{4, name, holder, …}`` if other resources have names that it claims; ``{-1}`` if the database was
emptied meanwhile.

Each change in the stream records the total bytes written up to it, so that the oldest can be deleted when there are
too many, and no separate count can be wrong. An entry without it, from a version that didn't count, is deleted too.
"""

COMMIT_ALWAYS: Final = Script(f"#!lua flags=allow-oom{COMMIT.text}")
"""The same, also when the server's memory is full: for writes that free memory, and the platform's own."""

INDEX: Final = Script("""
-- KEYS objects, indexed, claims; ARGV namespace, then name, revision ('' if unreadable), claims as JSON of each resource
if redis.call('HLEN', KEYS[1]) ~= (#ARGV - 1) / 3 then return 0 end
for index = 2, #ARGV, 3 do
  local current = redis.call('HGET', KEYS[1], ARGV[index])
  if not current or (string.match(current, '^%d+') or '') ~= ARGV[index + 1] then return 0 end
end
redis.call('DEL', KEYS[3])
for index = 2, #ARGV, 3 do
  redis.call('HSET', KEYS[3], 'o:' .. ARGV[index], ARGV[index + 2])
  for _, name in ipairs(cjson.decode(ARGV[index + 2])) do redis.call('HSETNX', KEYS[3], 'n:' .. name, ARGV[index]) end
end
redis.call('SADD', KEYS[2], ARGV[1])
return 1
""")
"""Index the claimed names of a namespace, from then on kept by `COMMIT`; returns 0 if a resource was written meanwhile."""

_READ_KIND: Final = """
-- KEYS revision, namespaces; ARGV prefix of the objects' keys, optionally a namespace (otherwise all)
local namespaces = #ARGV > 1 and {ARGV[2]} or redis.call('SMEMBERS', KEYS[2])
local answer = {redis.call('GET', KEYS[1])}
for _, namespace in ipairs(namespaces) do
  answer[#answer + 1] = namespace
  answer[#answer + 1] = redis.call('COMMAND', ARGV[1] .. namespace)
end
return answer
"""

LIST: Final = Script(_READ_KIND.replace("COMMAND", "HGETALL"))
"""Read a kind consistently: returns the revision, then for each namespace its name and its names and values."""

NAMES: Final = Script(_READ_KIND.replace("COMMAND", "HKEYS"))
"""As `LIST`, but only names."""

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
"""Returns the values of these resources, null for a deleted one, until they reach so many bytes."""

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
"""Returns the next changes, until they reach so many bytes or slightly more."""

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
"""Keep an event, or count it if it equals the newest; returns 0 if the resource no longer exists.

If the server's memory is full it isn't kept, without an error: the caller has more important work to finish.
"""
