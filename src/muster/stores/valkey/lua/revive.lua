-- Put a failed, timed-out or cancelled job back in its old place, with its retries counted anew. The attempt number
-- goes on: it is the fencing token, and a worker may still hold an old one.
--
-- Arguments: id.
-- Returns:   nil for an unknown job, otherwise the status that it had; a job in any other state stays as it is.
-- Reads:     jobs, states
-- Writes:    states, errors, progress, in:*, p:*, pending, ready:*, idle, log

define('revive', function()
  local id = ARGV[A]
  local entry = call('HGET', key('jobs'), id)
  if not entry then
    return false
  end
  local state = read_state(id)
  if state.status ~= 'failed' and state.status ~= 'timeout' and state.status ~= 'cancelled' then
    return state.status
  end
  call('ZREM', key('in:', state.status), id)
  call('HDEL', key('errors'), id)
  call('HDEL', key('progress'), id)
  local fresh = whole(front_of(id))
  fresh.attempt = state.attempt
  write_states({ fresh })
  local signature, score = header(entry)
  place(signature, { score, id })
  tell('job_revived', { id })
  return state.status
end)
