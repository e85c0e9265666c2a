-- Read a part of a sorted set that comes after a place in it, whether or not that place is still taken.
--
-- Arguments: name of the set ("pending": the whole line, which has no newest first), 1 for newest first, how many at
--            most, then the place to go on after: score, id (none: from the start).
-- Returns:   id, score, id, score…
-- Reads:     the set, signatures, variants, p:*

define('range', function()
  local limit, score, id = tonumber(ARGV[A + 2]), ARGV[A + 3], ARGV[A + 4]
  if ARGV[A] == 'pending' then
    return range_in_line(limit, score, id)
  end
  return range_of(K[ARGV[A]], ARGV[A + 1] == '1', limit, score, id)
end, 'no-writes')
