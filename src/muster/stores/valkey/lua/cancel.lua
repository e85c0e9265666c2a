-- End a job that waits or runs, at once; who runs it learns at the next renewal or report.
--
-- Arguments: id.
-- Returns:   nil for an unknown job, otherwise the status that it had; an ended job stays as it is.
-- Reads:     jobs, states
-- Writes:    states, p:*, pending, delayed, avoiding, variants, held:*, in:*, log

define('cancel', function()
  local id = ARGV[A]
  if call('HEXISTS', key('jobs'), id) == 0 then
    return false
  end
  local state = read_state(id)
  local status = state.status
  if status == 'pending' then
    if state.due ~= '' then
      call('ZREM', key('delayed'), id)
    else
      leave_line(state)
    end
    state.worker, state.session, state.avoid, state.due = '', '', '', ''
  elseif runs(state) then
    call('SREM', key('held:', state.session), id)
    call('ZREM', key('in:', status), id)
  else
    return status
  end
  state.status, state.ended = 'cancelled', NOW_TEXT
  write_states({ state })
  call('ZADD', key('in:cancelled'), NOW_TEXT, id)
  tell('job_cancelled', { id }, state.worker ~= '' and state.worker, { state.attempt })
  return status
end, 'allow-oom')
