-- include: sessions
-- Open a session, or change the class of an open one.
--
-- Arguments: session, worker, class, lease in ms.
-- Returns:   1, or 0 when nothing was done because the class has to be added first.
-- Reads:     classes
-- Writes:    session:<session>, sessions, members:*, unused

local session, worker, class, lease_ms = ARGV[A], ARGV[A + 1], ARGV[A + 2], tonumber(ARGV[A + 3])
if call('HEXISTS', key('classes'), class) == 0 then
  return 0
end
local before = call('HGET', key('session:' .. session), 'class')
if before and before ~= class then
  leave_class(session, before)
end
call('SADD', key('members:' .. class), session)
call('ZREM', key('unused'), class)
call('HSET', key('session:' .. session), 'worker', worker, 'class', class)
call('ZADD', key('sessions'), NOW + lease_ms, session)
return 1
