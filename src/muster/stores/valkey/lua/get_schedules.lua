-- Read schedules.
--
-- Arguments: ids.
-- Returns:   for each nil, or {record as JSON, its next time in ms, "time in ms|job" of its last job}.
-- Reads:     schedules, schedules:next, schedules:last

define('get_schedules', function()
  local reply = {}
  for at = A, #ARGV do
    local id = ARGV[at]
    local record = call('HGET', K.schedules, id)
    local due = record and call('ZSCORE', K['schedules:next'], id)
    reply[at - A + 1] = record and { record, due, call('HGET', K['schedules:last'], id) }
  end
  return reply
end, 'no-writes')
