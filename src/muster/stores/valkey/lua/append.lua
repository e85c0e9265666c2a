-- Append events to the log.
--
-- Arguments: events as JSON.
-- Returns:   their ids.
-- Writes:    log

local reply = {}
for at = A, #ARGV do
  reply[at - A + 1] = call('XADD', key('log'), 'MAXLEN', '~', EVENTS_MAX, '*', 'e', ARGV[at])
end
return reply
