-- Set the next time of a schedule, if its time is still the one that was found due.
--
-- Arguments: id, that time in ms, the next one or "", "time in ms|job" of its last job or "".
-- Returns:   1 if it was.
-- Writes:    schedules:next, schedules:last

define('advance_schedule', function()
  local id, due, following, last = ARGV[A], ARGV[A + 1], ARGV[A + 2], ARGV[A + 3]
  if tonumber(call('ZSCORE', K['schedules:next'], id) or -1) ~= tonumber(due) then
    return 0
  end
  if following == '' then
    call('ZREM', K['schedules:next'], id)
  else
    call('ZADD', K['schedules:next'], following, id)
  end
  if last ~= '' then
    call('HSET', K['schedules:last'], id, last)
  end
  return 1
end)
