-- Add signatures, each with the classes that can run it; guarded as add_class.lua is.
--
-- Arguments: `matched` as it was when the classes were read, then for each: signature, need as JSON, service, how
--            many classes, those.
-- Returns:   `matched` as it is now; -1: read the classes again.
-- Reads:     matched
-- Writes:    matched, signatures, service_of, able:*

define('add_signatures', function()
  if (call('GET', K.matched) or '0') ~= ARGV[A] then
    return -1
  end
  local at = A + 1
  while at <= #ARGV do
    local signature, classes = ARGV[at], tonumber(ARGV[at + 3])
    call('HSETNX', K.signatures, signature, ARGV[at + 1])
    call('HSET', K.service_of, signature, ARGV[at + 2])
    for n = 1, classes do
      call('SADD', key('able:', signature), ARGV[at + 3 + n])
    end
    at = at + 4 + classes
  end
  return call('INCR', K.matched)
end)
