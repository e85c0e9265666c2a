-- include: line
-- End a job that waits or runs, at once; who runs it learns at the next renewal or report.
--
-- Arguments: id.
-- Returns:   nil for an unknown job, otherwise the status that it had; an ended job stays as it is.
-- Reads:     jobs, state:<id>
-- Writes:    state:<id>, p:*, pending, delayed, avoiding, variants, held:*, deadlines, in:*, log

local id = ARGV[A]
local blob = call('HGET', key('jobs'), id)
if not blob then
  return false
end
local state = key('state:' .. id)
local status, attempt, worker, session, avoid, due =
  unpack(call('HMGET', state, 'status', 'attempt', 'worker', 'session', 'avoid', 'due'))
status = status or 'pending'
if status == 'pending' then
  if due then
    call('ZREM', key('delayed'), id)
  else
    leave_line(id, header(blob), avoid)
  end
  call('HDEL', state, 'worker', 'session', 'avoid', 'due')
  worker = nil
elseif status == 'assigned' or status == 'in_progress' then
  call('ZREM', key('held:' .. session), id)
  call('ZREM', key('deadlines'), id)
  call('ZREM', key('in:' .. status), id)
else
  return status
end
call('HSET', state, 'status', 'cancelled', 'ended', int(NOW))
call('ZADD', key('in:cancelled'), NOW, id)
tell('job_cancelled', { id }, worker, { tonumber(attempt) })
return status
