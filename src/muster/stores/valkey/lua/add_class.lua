-- Add a class, with the signatures that it can run and the customers that it refuses. Whoever adds one has seen all
-- signatures and special customers: otherwise a counter has moved on and nothing is done, so that no pair is ever missed.
--
-- Arguments: `matched` as it was when they were read, class, capability as JSON, how many customers ("-" among them: all
--            who are not special), those, then signatures it can run.
-- Returns:   `matched` as it is now; -1: read them again.
-- Reads:     matched, p:*, variants, paused, customers, running
-- Writes:    matched, classes, unused, able:*, refuses:<class>, refusing, ready:<class>

define('add_class', function()
  if (call('GET', K.matched) or '0') ~= ARGV[A] then
    return -1
  end
  local class, refused = ARGV[A + 1], tonumber(ARGV[A + 3])
  if call('HSETNX', K.classes, class, ARGV[A + 2]) == 1 then
    call('ZADD', K.unused, NOW, class)
  end
  for at = A + 4, A + 3 + refused do
    call('SADD', key('refuses:', class), ARGV[at])
    call('HSET', K.refusing, class, '1')
  end
  local can_run, queues = {}, call('SMEMBERS', K.variants)
  for at = A + 4 + refused, #ARGV do
    can_run[ARGV[at]] = true
    call('SADD', key('able:', ARGV[at]), class)
    push(queues, ARGV[at])
  end
  for _, queue in ipairs(queues) do
    local signature, customer = parts_of(queue)
    local head = can_run[signature] and head_of(queue)
    if head and not is_paused(signature) and not refuses(class, customer)
      and (customer == '' or room_of(customer) > 0) then
      call('ZADD', key('ready:', class), head, queue)
    end
  end
  return call('INCR', K.matched)
end)
