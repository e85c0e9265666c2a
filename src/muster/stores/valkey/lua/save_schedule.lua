-- Keep a schedule, or forget it.
--
-- Arguments: id, record as JSON or "": forget it, its next time in ms or "".
-- Returns:   1 if it was known.
-- Writes:    schedules, schedules:next, schedules:last

define('save_schedule', function()
  local id, record, due = ARGV[A], ARGV[A + 1], ARGV[A + 2]
  local known = call('HEXISTS', key('schedules'), id)
  if record == '' then
    call('HDEL', key('schedules'), id)
    call('HDEL', key('schedules:last'), id)
  else
    call('HSET', key('schedules'), id, record)
  end
  if due == '' then
    call('ZREM', key('schedules:next'), id)
  else
    call('ZADD', key('schedules:next'), due, id)
  end
  return known
end)
