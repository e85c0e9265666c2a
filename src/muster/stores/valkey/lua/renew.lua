-- Renew a session. Jobs that the worker does not know of go back once they are older than a claim's reply can be.
--
-- Arguments: session, lease in ms, grace in ms, then for each job that the worker holds: id, attempt.
-- Returns:   {1 if the session is known, {ids that it lost}, {ids that went back}}
-- Reads:     sessions, held:<session>, states
-- Writes:    sessions, looks; for those that go back as settle.lua

define('renew', function()
  local session, ends, grace_ms = ARGV[A], NOW + ARGV[A + 1], tonumber(ARGV[A + 2])
  local states, attempts = read_states(call('SMEMBERS', key('held:', session))), {}
  for _, state in ipairs(states) do
    attempts[state.id] = state.attempt
  end
  local held, lost, listed = {}, {}, {}
  for at = A + 3, #ARGV, 2 do
    if attempts[ARGV[at]] == ARGV[at + 1] then
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
  local known = read_session(session)
  if not known then
    return { 0, lost, {} }
  end
  prolong(session, known, ends)
  local unheld = {}
  for _, state in ipairs(states) do
    if not held[state.id] and tonumber(state.started) < NOW - grace_ms then
      unheld[#unheld + 1] = state
    end
  end
  return { 1, lost, return_jobs(unheld) }
end)
