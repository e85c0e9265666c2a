-- Find claims whose session or deadline ran out. Sessions that ran out and hold nothing are forgotten.
--
-- Arguments: how many at most.
-- Returns:   for each: entry in `jobs`, attempt, retries, worker, session, "session" or "deadline".
-- Reads:     looks, sessions, held:*, jobs, states
-- Writes:    looks, sessions, members:*, unused

local SESSIONS_AT_ONCE = 1000

-- The session lives: find jobs whose deadline has passed, and look again when the next thing can have happened.
local function past_deadline(session, ends, states)
  local past, next_look = {}, ends
  for _, state in ipairs(states) do
    local deadline = state.started + state.timeout
    if deadline <= NOW then
      past[#past + 1] = state
    end
    next_look = math.min(next_look, deadline)
  end
  call('ZADD', K.looks, next_look, session)
  return past
end

define('overdue', function()
  local limit, reply = tonumber(ARGV[A]), {}
  for _, session in ipairs(call('ZRANGE', K.looks, '-inf', NOW_TEXT, 'BYSCORE', 'LIMIT', '0', SESSIONS_AT_ONCE)) do
    local known = read_session(session)
    local lost, why = read_states(call('SMEMBERS', key('held:', session))), 'session'
    if known.ends > NOW then
      lost, why = past_deadline(session, known.ends, lost), 'deadline'
    elseif #lost == 0 then
      forget_session(session, known)
    end
    for _, s in ipairs(lost) do
      if #reply == limit then
        return reply
      end
      reply[#reply + 1] = { call('HGET', K.jobs, s.id), s.attempt, s.retries, s.worker, s.session, why }
    end
  end
  return reply
end)
