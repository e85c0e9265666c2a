-- include: line, attempts
-- Renew a session. Leases that the worker does not know of go back once they are older than a claim's reply can be.
--
-- Arguments: session, lease in ms, grace in ms, then for each job that the worker holds: id, attempt.
-- Returns:   {1 if the session is known, {ids that it lost}, {ids that went back}}
-- Reads:     session:<session>, held:<session>, state:*, jobs
-- Writes:    sessions; for those that go back as settle.lua

local session, lease_ms, grace_ms = ARGV[A], tonumber(ARGV[A + 1]), tonumber(ARGV[A + 2])

local unheld, leases = {}, call('ZRANGE', key('held:' .. session), 0, -1, 'WITHSCORES')
for at = 1, #leases, 2 do
  unheld[leases[at]] = leases[at + 1]
end
local held, lost, listed = {}, {}, {}
for at = A + 3, #ARGV, 2 do
  if unheld[ARGV[at]] == ARGV[at + 1] then
    held[ARGV[at]] = true
  end
end
for at = A + 3, #ARGV, 2 do
  local id = ARGV[at]
  if not held[id] and not listed[id] then
    listed[id] = true
    lost[#lost + 1] = id
  end
end
local worker = call('HGET', key('session:' .. session), 'worker')
if not worker then
  return { 0, lost, {} }
end
call('ZADD', key('sessions'), NOW + lease_ms, session)
local old = {}
for at = 1, #leases, 2 do
  local id = leases[at]
  if not held[id] and tonumber(call('HGET', key('state:' .. id), 'started')) < NOW - grace_ms then
    old[#old + 1] = { id = id, attempt = leases[at + 1] }
  end
end
return { 1, lost, return_leases(session, worker, old) }
