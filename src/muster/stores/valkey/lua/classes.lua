-- Read all classes of workers.
--
-- Returns:   for each: class, capability as JSON, how many sessions it has.
-- Reads:     classes, members:*

define('classes', function()
  local reply = {}
  local classes = call('HGETALL', K.classes)
  for at = 1, #classes, 2 do
    reply[#reply + 1] = { classes[at], classes[at + 1], call('SCARD', key('members:', classes[at])) }
  end
  return reply
end, 'no-writes')
