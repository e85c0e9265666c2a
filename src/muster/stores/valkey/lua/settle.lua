-- include: line, attempts
-- End attempts from outside a session, as the sweep does. Only the running attempt of a job can be ended.
--
-- Arguments: how many settlements, then those (see lib/attempts.lua).
-- Returns:   for each 1 (ended) or 0 (was not the running attempt).
-- Reads:     state:*, jobs, able:*, members:*, sessions, session:*
-- Writes:    state:*, held:*, deadlines, in:*, error:*, result:*, progress:*, delayed, avoiding, variants, p:*, pending,
--            ready:*, idle, log

local reply, running, seen = {}, {}, {}
for n, s in ipairs((read_settlements(A + 1, tonumber(ARGV[A])))) do
  local status, attempt
  status, attempt, s.worker, s.session = unpack(call('HMGET', key('state:' .. s.id), 'status', 'attempt', 'worker', 'session'))
  local runs = (status == 'assigned' or status == 'in_progress') and attempt == s.attempt and not seen[s.id]
  if runs then
    seen[s.id] = true
    running[#running + 1] = s
  end
  reply[n] = runs and 1 or 0
end
end_attempts(running)
return reply
