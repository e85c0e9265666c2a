-- Open a session, or change the class of an open one.
--
-- Arguments: session, worker, class, lease in ms.
-- Returns:   1, or 0 when nothing was done because the class has to be added first.
-- Reads:     classes
-- Writes:    sessions, looks, members:*, unused

define('open_session', function()
  local session, worker, class, ends = ARGV[A], ARGV[A + 1], ARGV[A + 2], NOW + ARGV[A + 3]
  if call('HEXISTS', K.classes, class) == 0 then
    return 0
  end
  local before_it = read_session(session)
  if before_it and before_it.class ~= class then
    leave_class(session, before_it.class)
  end
  call('SADD', key('members:', class), session)
  call('ZREM', K.unused, class)
  write_session(session, worker, class, ends)
  call('ZADD', K.looks, 'LT', ends, session)
  return 1
end)
