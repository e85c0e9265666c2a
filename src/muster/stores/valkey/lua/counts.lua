-- Count sorted sets, and jobs in line.
--
-- Arguments: names of sets; "pending": the whole line.
-- Returns:   how many members each has.
-- Reads:     those sets, signatures, variants, p:*

define('counts', function()
  local reply = {}
  for at = A, #ARGV do
    reply[at - A + 1] = ARGV[at] == 'pending' and count_in_line() or call('ZCARD', K[ARGV[at]])
  end
  return reply
end, 'no-writes')
