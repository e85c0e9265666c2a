-- End attempts from outside a session, as the sweep does. Only the running attempt of a job can be ended.
--
-- Arguments: how many settlements, then those (see lib/attempts.lua).
-- Returns:   for each 1 (ended) or 0 (was not the running attempt).
-- Reads:     states, jobs, able:*, members:*, sessions
-- Writes:    states, held:*, in:*, errors, progress, delayed, avoiding, variants, at:*, p:*, pending, ready:*,
--            idle, open, running, step_of, open_steps, bad_steps, log; for those that depend on an ended job also blocked,
--            unmet, dependents:*, resolving

define('settle', function()
  local reply, running, seen = {}, {}, {}
  local settlements = read_settlements(A)
  local states = read_states(ids_of(settlements))
  for n, s in ipairs(settlements) do
    local state = states[n]
    local counts = runs(state) and state.attempt == s.attempt and not seen[s.id]
    if counts then
      seen[s.id], s.state, s.session, s.worker = true, state, state.session, state.worker
      push(running, s)
    end
    reply[n] = counts and 1 or 0
  end
  end_attempts(running)
  return reply
end)
