-- Keep a schedule, or forget it.
--
-- Arguments: id, record as JSON or "": forget it, its next time in ms or "".
-- Returns:   1 if it was known.
-- Writes:    schedules, schedules:next, schedules:last

define('save_schedule', function()
  local id, record, due = ARGV[A], ARGV[A + 1], ARGV[A + 2]
  local known = call('HEXISTS', K.schedules, id)
  if record == '' then
    call('HDEL', K.schedules, id)
    call('HDEL', K['schedules:last'], id)
  else
    call('HSET', K.schedules, id, record)
  end
  if due == '' then
    call('ZREM', K['schedules:next'], id)
  else
    call('ZADD', K['schedules:next'], due, id)
  end
  return known
end)
