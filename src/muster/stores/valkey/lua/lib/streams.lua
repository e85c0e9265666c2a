-- Kept answers: where one lies, and what is forgotten with it.

local STREAMS_PER_CALL = 100  -- that are over their time are counted out

local function forget_stream(id)
  call('DEL', key('stream:', id), key('stream_body:', id))
  local bytes = call('HGET', K.stream_bytes, id)
  if bytes then
    call('DECRBY', K.streams_bytes, bytes)
    call('HDEL', K.stream_bytes, id)
  end
  return call('ZREM', K.streams, id)
end

local function forget_streams()
  local over = call('ZRANGE', K.streams, '-inf', NOW_TEXT, 'BYSCORE', 'LIMIT', 0, STREAMS_PER_CALL)
  for _, id in ipairs(over) do
    forget_stream(id)
  end
end

local function count_stream(id, bytes)
  call('HINCRBY', K.stream_bytes, id, int(bytes))
  call('INCRBY', K.streams_bytes, int(bytes))
end

-- Return the key of a kept answer, and the given fields of it; none when it is over its time.
local function stream(id, ...)
  local name = key('stream:', id)
  local until_ms = call('HGET', name, 'until')
  if not until_ms or tonumber(until_ms) <= NOW then
    return name, nil
  end
  return name, call('HMGET', name, ...)
end
