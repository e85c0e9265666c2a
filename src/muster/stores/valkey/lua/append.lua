-- Append events to the log.
--
-- Arguments: events as JSON.
-- Returns:   the ids of their entries.
-- Writes:    log

define('append', function()
  local reply = {}
  for at = A, #ARGV do
    reply[at - A + 1] = call('XADD', K.log, 'MAXLEN', '~', EVENTS_MAX, '*', 'event', ARGV[at])
  end
  return reply
end)
