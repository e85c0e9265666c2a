-- Sessions of workers: how they live and leave.

local RESOLUTION_MS = 100

-- Return {worker, class, ends}, or nil when there is no such session.
local function read_session(session)
  local text = call('HGET', K.sessions, session)
  if text then
    local bar = string.find(text, '|', 1, true)
    local last = string.find(text, '|', bar + 1, true)
    return {
      worker = string.sub(text, 1, bar - 1), class = string.sub(text, bar + 1, last - 1),
      ends = string.sub(text, last + 1) + 0,
    }
  end
end

local function write_session(session, worker, class, ends)
  call('HSET', K.sessions, session, worker .. '|' .. class .. '|' .. int(ends))
end

-- Renew a session's lease until `ends`. A worker that claims hundreds of times a second need not have that written down each time.
local function prolong(session, known, ends)
  if math.abs(ends - known.ends) >= RESOLUTION_MS then
    write_session(session, known.worker, known.class, ends)
    if ends < known.ends then  -- leases have become shorter
      call('ZADD', K.looks, 'LT', ends, session)
    end
  end
end

local function leave_class(session, class)
  call('SREM', key('members:', class), session)
  if call('EXISTS', key('members:', class)) == 0 then
    call('ZADD', K.unused, NOW_TEXT, class)
  end
end

-- Forget a session that holds nothing.
local function forget_session(session, known)
  leave_class(session, known.class)
  call('HDEL', K.sessions, session)
  call('ZREM', K.looks, session)
end
