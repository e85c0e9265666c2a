-- include: line
-- Put a failed, timed-out or cancelled job back in its old place, with its retries counted anew. The attempt number
-- goes on: it is the fencing token, and a worker may still hold an old one.
--
-- Arguments: id.
-- Returns:   nil for an unknown job, otherwise the status that it had; a job in any other state stays as it is.
-- Reads:     jobs, state:<id>
-- Writes:    state:<id>, error:<id>, progress:<id>, in:*, p:*, pending, ready:*, idle, log

local id = ARGV[A]
local blob = call('HGET', key('jobs'), id)
if not blob then
  return false
end
local status, attempt = unpack(call('HMGET', key('state:' .. id), 'status', 'attempt'))
if status ~= 'failed' and status ~= 'timeout' and status ~= 'cancelled' then
  return status or 'pending'
end
call('ZREM', key('in:' .. status), id)
call('DEL', key('state:' .. id), key('error:' .. id), key('progress:' .. id))
if attempt then
  call('HSET', key('state:' .. id), 'status', 'pending', 'attempt', attempt)
end
local signature, score = header(blob)
place(signature, { score, id })
tell('job_revived', { id })
return status
