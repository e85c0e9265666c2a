-- End a job that waits or runs, at once; who runs it learns at the next renewal or report.
--
-- Arguments: id.
-- Returns:   nil for an unknown job, otherwise the status that it had; an ended job stays as it is.
-- Reads:     jobs, states
-- Writes:    states, p:*, pending, delayed, avoiding, variants, blocked, unmet, held:*, in:*, open, running, ready:*,
--            idle, step_of, open_steps, bad_steps, log; for those that depend on it as settle.lua

define('cancel', function()
  local id = ARGV[A]
  if call('HEXISTS', K.jobs, id) == 0 then
    return false
  end
  local state = read_state(id)
  local status, worker = state.status, nil
  if status == 'pending' then
    end_unstarted(state, leave(state), 'cancelled')
  elseif runs(state) then
    worker = state.worker
    call('SREM', key('held:', state.session), id)
    call('ZREM', key('in:', status), id)
    state.status, state.ended = 'cancelled', NOW_TEXT
    write_states({ state })
    call('ZADD', K['in:cancelled'], NOW_TEXT, id)
    if state.customer ~= '' then
      leave_running(state.customer, 1)
      count('open', state.customer, -1)
    end
  else
    return status
  end
  tell('job_cancelled', { id }, worker, { state.attempt })
  close_steps({ id }, { 'cancelled' })
  tell_dependents({ id })
  return status
end, 'allow-oom')
