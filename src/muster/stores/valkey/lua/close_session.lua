-- include: line, attempts, sessions
-- End a session; jobs still leased to it go back without counting the attempt.
--
-- Arguments: session.
-- Returns:   ids that went back.
-- Reads:     session:<session>, held:<session>, jobs, state:*
-- Writes:    session:<session>, sessions, members:*, unused; for those that go back as settle.lua

local session = ARGV[A]
local worker = call('HGET', key('session:' .. session), 'worker')
if not worker then
  return {}
end
local held, leases = call('ZRANGE', key('held:' .. session), 0, -1, 'WITHSCORES'), {}
for at = 1, #held, 2 do
  leases[#leases + 1] = { id = held[at], attempt = held[at + 1] }
end
forget_session(session)  -- first: it is not among those that could run them
return return_leases(session, worker, leases)
