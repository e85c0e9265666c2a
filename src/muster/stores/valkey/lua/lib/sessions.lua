-- How sessions leave.

local function leave_class(session, class)
  call('SREM', key('members:' .. class), session)
  if call('EXISTS', key('members:' .. class)) == 0 then
    call('ZADD', key('unused'), NOW, class)
  end
end

-- Forget a session that holds no leases.
local function forget_session(session)
  local class = call('HGET', key('session:' .. session), 'class')
  if class then
    leave_class(session, class)
  end
  call('DEL', key('session:' .. session))
  call('ZREM', key('sessions'), session)
end
