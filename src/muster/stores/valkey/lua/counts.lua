-- Count sorted sets.
--
-- Arguments: names of sets.
-- Returns:   how many members each has.
-- Reads:     those sets

define('counts', function()
  local reply = {}
  for at = A, #ARGV do
    reply[at - A + 1] = call('ZCARD', K[ARGV[at]])
  end
  return reply
end, 'no-writes')
