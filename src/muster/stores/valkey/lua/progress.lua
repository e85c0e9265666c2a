-- Record how far leased jobs are; the first report of an attempt makes it in_progress.
--
-- Arguments: session, then for each report: id, attempt, progress as JSON.
-- Returns:   ids whose lease is lost, once each.
-- Reads:     held:<session>, state:*
-- Writes:    state:*, progress:*, in:assigned, in:in_progress, log

local session = ARGV[A]
local lost, listed, ids, attempts, worker = {}, {}, {}, {}, nil
for at = A + 1, #ARGV, 3 do
  local id, attempt, progress = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  if call('ZSCORE', key('held:' .. session), id) == attempt then
    call('SET', key('progress:' .. id), int(NOW) .. '|' .. progress)
    local status, started, by = unpack(call('HMGET', key('state:' .. id), 'status', 'started', 'worker'))
    if status == 'assigned' then
      call('HSET', key('state:' .. id), 'status', 'in_progress')
      call('ZREM', key('in:assigned'), id)
      call('ZADD', key('in:in_progress'), started, id)
      ids[#ids + 1], attempts[#attempts + 1], worker = id, tonumber(attempt), by
    end
  elseif not listed[id] then
    listed[id] = true
    lost[#lost + 1] = id
  end
end
tell('job_started', ids, worker, attempts)
return lost
