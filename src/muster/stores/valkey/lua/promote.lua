-- Bring into line what waited for its time: jobs that are due, and those that left out a worker for long enough. And tell
-- the rest of those that waited for jobs which have ended.
--
-- Arguments: how many at most.
-- Returns:   how many.
-- Reads:     delayed, avoiding, jobs, states, able:*, members:*, sessions
-- Writes:    delayed, avoiding, variants, at:*, states, jobs, tags, p:*, pending, ready:*, idle; as settle.lua

define('promote', function()
  local limit = tonumber(ARGV[A])
  local due = read_states(call('ZRANGE', K.delayed, '-inf', NOW_TEXT, 'BYSCORE', 'LIMIT', '0', limit))
  for _, state in ipairs(due) do
    call('ZREM', K.delayed, state.id)
    state.due = ''
    put_back(state)
  end
  write_states(due)
  if #due == limit then
    return limit
  end
  local forgiven = call('ZRANGE', K.avoiding, '-inf', NOW_TEXT, 'BYSCORE', 'LIMIT', '0', limit - #due)
  local states = read_states(forgiven)
  for _, state in ipairs(states) do
    local signature, score, customer = leave_line(state)
    state.avoid = ''
    place(queue_of(signature, customer), { score, state.id })
  end
  write_states(states)
  return #due + #states + resolve(limit - #due - #states)
end)
