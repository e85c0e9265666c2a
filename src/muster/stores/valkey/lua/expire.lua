-- End jobs whose own deadline has passed, whether they wait or run.
--
-- Arguments: how many to look at, the error as JSON, its code.
-- Returns:   {how many were looked at, then for each that ended: id, its worker or ""}
-- Reads:     jobs, states
-- Writes:    deadlines; as cancel.lua and settle.lua

define('expire', function()
  local due = call('ZRANGE', K.deadlines, '-inf', NOW_TEXT, 'BYSCORE', 'LIMIT', '0', ARGV[A])
  local error, code = ARGV[A + 1], ARGV[A + 2]
  local reply, running, waited = { #due }, {}, {}
  for _, id in ipairs(due) do
    call('ZREM', K.deadlines, id)
    local state = read_state(id)
    if call('HEXISTS', K.jobs, id) == 0 then
      state.status = 'gone'
    end
    if runs(state) then
      push(running, {
        id = id, attempt = state.attempt, status = 'timeout', kind = 'job_timeout', counts = true, retry_at = '0',
        avoid = '', result = '', error = error, code = code, state = state, worker = state.worker, session = state.session,
      })
      push(reply, id)
      push(reply, state.worker)
    elseif state.status == 'pending' then
      end_unstarted(state, leave(state), 'timeout', error)
      push(waited, id)
      push(reply, id)
      push(reply, '')
    end
  end
  for _, id in ipairs(waited) do
    tell('job_timeout', { id }, nil, nil, { code })
    close_steps({ id }, { 'timeout' })
  end
  end_attempts(running)
  tell_dependents(waited)
  return reply
end)
