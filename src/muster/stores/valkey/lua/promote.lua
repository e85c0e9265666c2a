-- include: line
-- Bring into line what waited for its time: retries that are due, and jobs that left out a worker for long enough.
--
-- Arguments: how many at most.
-- Returns:   how many.
-- Reads:     delayed, avoiding, jobs, state:*, able:*, members:*, sessions, session:*
-- Writes:    delayed, avoiding, variants, state:*, p:*, pending, ready:*, idle

local limit = tonumber(ARGV[A])
local due = call('ZRANGE', key('delayed'), '-inf', NOW, 'BYSCORE', 'LIMIT', 0, limit)
for _, id in ipairs(due) do
  local signature, score = header(call('HGET', key('jobs'), id))
  call('ZREM', key('delayed'), id)
  call('HDEL', key('state:' .. id), 'due')
  put_back(id, signature, score, call('HGET', key('state:' .. id), 'avoid'))
end
if #due == limit then
  return limit
end
local forgiven = call('ZRANGE', key('avoiding'), '-inf', NOW, 'BYSCORE', 'LIMIT', 0, limit - #due)
for _, id in ipairs(forgiven) do
  local signature, score = header(call('HGET', key('jobs'), id))
  leave_line(id, signature, call('HGET', key('state:' .. id), 'avoid'))
  call('HDEL', key('state:' .. id), 'avoid')
  place(signature, { score, id })
end
return #due + #forgiven
