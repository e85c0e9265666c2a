-- Add a class, with the signatures that it can run. Whoever adds one has seen all signatures: otherwise a counter has
-- moved on and nothing is done, so that no pair is ever missed.
--
-- Arguments: `matched` as it was when the signatures were read, class, capability as JSON, then signatures it can run.
-- Returns:   `matched` as it is now; -1: read the signatures again.
-- Reads:     matched, p:*, variants
-- Writes:    matched, classes, unused, able:*, ready:<class>

define('add_class', function()
  if (call('GET', key('matched')) or '0') ~= ARGV[A] then
    return -1
  end
  local class = ARGV[A + 1]
  local can_run = {}

  local function enter(queue)
    local head = call('ZRANGE', key('p:', queue), '0', '0', 'WITHSCORES')[2]
    if head then
      call('ZADD', key('ready:', class), head, queue)
    end
  end

  if call('HSETNX', key('classes'), class, ARGV[A + 2]) == 1 then
    call('ZADD', key('unused'), NOW, class)
  end
  for at = A + 3, #ARGV do
    can_run[ARGV[at]] = true
    call('SADD', key('able:', ARGV[at]), class)
    enter(ARGV[at])
  end
  for _, queue in ipairs(call('SMEMBERS', key('variants'))) do
    if can_run[string.match(queue, '^[^!]*')] then
      enter(queue)
    end
  end
  return call('INCR', key('matched'))
end)
