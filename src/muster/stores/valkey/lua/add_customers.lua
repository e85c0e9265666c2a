-- Make customers special, each with the classes that refuse it; guarded as add_class.lua is. Their jobs have queues of
-- their own from now on; those that are in line already are moved by confine.lua.
--
-- Arguments: `matched` as it was when the classes were read, then for each: customer, its name, how many classes, those.
-- Returns:   `matched` as it is now; -1: read the classes again.
-- Reads:     matched
-- Writes:    matched, special, refuses:*, refusing

define('add_customers', function()
  if (call('GET', K.matched) or '0') ~= ARGV[A] then
    return -1
  end
  local at = A + 1
  while at <= #ARGV do
    local customer, classes = ARGV[at], tonumber(ARGV[at + 2])
    call('HSET', K.special, customer, ARGV[at + 1])
    for n = 1, classes do
      call('SADD', key('refuses:', ARGV[at + 2 + n]), customer)
      call('HSET', K.refusing, ARGV[at + 2 + n], '1')
    end
    at = at + 3 + classes
  end
  return call('INCR', K.matched)
end)
