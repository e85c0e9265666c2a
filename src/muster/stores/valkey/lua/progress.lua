-- Record how far leased jobs are; the first report of an attempt makes it in_progress.
--
-- Arguments: session, then for each report: id, attempt, progress as JSON.
-- Returns:   ids whose lease is lost, once each.
-- Reads:     states
-- Writes:    states, progress, in:assigned, in:in_progress, log

define('progress', function()
  local session = ARGV[A]
  local lost, listed, ids, attempts, worker = {}, {}, {}, {}, nil
  for at = A + 1, #ARGV, 3 do
    local id, attempt, progress = ARGV[at], ARGV[at + 1], ARGV[at + 2]
    local state = read_state(id)
    if runs(state) and state.session == session and state.attempt == attempt then
      call('HSET', K.progress, id, NOW_TEXT .. '|' .. progress)
      if state.status == 'assigned' then
        state.status = 'in_progress'
        write_states({ state })
        call('ZREM', K['in:assigned'], id)
        call('ZADD', K['in:in_progress'], state.started, id)
        ids[#ids + 1], attempts[#attempts + 1], worker = id, attempt, state.worker
      end
    elseif not listed[id] then
      listed[id] = true
      lost[#lost + 1] = id
    end
  end
  tell('job_started', ids, worker, attempts)
  return lost
end)
