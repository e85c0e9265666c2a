-- Put a failed, timed-out or cancelled job back in its old place, with its retries and its deadline counted anew. The
-- attempt number goes on: it is the fencing token, and a worker may still hold an old one.
--
-- Arguments: id, what it waits for (see lib/waits.lua) or "".
-- Returns:   nil for an unknown job, otherwise the status that it had; a job in any other state stays as it is.
-- Reads:     jobs, states
-- Writes:    states, errors, progress, in:*, p:*, pending, blocked, unmet, dependents:*, deadlines, open, ready:*, idle,
--            step_of, open_steps, bad_steps, log

define('revive', function()
  local id = ARGV[A]
  local entry = call('HGET', K.jobs, id)
  if not entry then
    return false
  end
  local state = read_state(id)
  if state.status ~= 'failed' and state.status ~= 'timeout' and state.status ~= 'cancelled' then
    return state.status
  end
  local _, _, score, workflow, customer, deadline = header(entry)
  call('ZREM', key('in:', state.status), id)
  call('HDEL', K.errors, id)
  call('HDEL', K.progress, id)
  if customer ~= '' then
    count('open', customer, 1)
  end
  if deadline ~= '' then
    call('ZADD', K.deadlines, NOW + deadline, id)
  end
  if workflow ~= '' then
    reopen_step(id, workflow)
  end
  tell('job_revived', { id })
  local fresh = whole(front_of(id))
  fresh.attempt = state.attempt
  local unmet, because = wait_for(id, score, ARGV[A + 1])
  if because then
    doom(fresh, customer, because)
  elseif unmet == 0 then
    put_back(fresh)
  end
  if not because then
    write_states({ fresh })
  end
  return state.status
end)
