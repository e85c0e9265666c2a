-- Read a part of a sorted set that comes after a place in it, whether or not that place is still taken.
--
-- Arguments: name of the set, 1 for newest first, how many at most, then the place to go on after: score, id (none:
--            from the start).
-- Returns:   id, score, id, score…
-- Reads:     the set

define('range', function()
  local backwards, limit = ARGV[A + 1] == '1', tonumber(ARGV[A + 2])
  return range_of(K[ARGV[A]], backwards, limit, ARGV[A + 3], ARGV[A + 4])
end, 'no-writes')
