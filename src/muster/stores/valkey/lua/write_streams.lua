-- Add to kept answers; what is over its time is forgotten first.
--
-- Arguments: how many bytes may be kept in all, then for each part: id, runner, offset, data, opening, for how long it
--            is kept in ms, for how long it is the runner's in ms (0: it is given back), how it ended ("": not yet).
-- Returns:   for each part when its answer was last read in ms, 0: never; -1: it was not taken.
-- Reads:     stream:*, streams_bytes
-- Writes:    stream:*, stream_body:*, streams, stream_bytes, streams_bytes

local FIELDS = 8

local function add_part(at, bytes_max)
  local id, runner, offset, data = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2]), ARGV[at + 3]
  local opening, keep_ms, lease_ms, ended = ARGV[at + 4], ARGV[at + 5], ARGV[at + 6], ARGV[at + 7]
  local name, known = stream(id, 'runner', 'size', 'end', 'read')
  if not known then
    local bytes = #opening + #data
    if opening == '' or bytes + tonumber(call('GET', K.streams_bytes) or '0') > bytes_max then
      return -1
    end
    forget_stream(id)
    call('HSET', name, 'opening', opening, 'read', '0')
    count_stream(id, #opening)
    known = { runner, '0', '', '0' }
  end
  local size = tonumber(known[2])
  if known[1] ~= runner or (known[3] ~= '' and known[3] ~= ended) then
    return -1
  end
  local body = key('stream_body:', id)
  if known[3] == '' and size == offset then
    if data ~= '' then
      call('APPEND', body, data)
      count_stream(id, #data)
      size = size + #data
    end
  elseif size ~= offset + #data then
    return -1
  end
  if ended == 'dropped' and known[3] == '' then
    count_stream(id, -call('STRLEN', body))
    call('DEL', body)
  end
  local until_ms = int(NOW + keep_ms)
  local holder = lease_ms == '0' and '' or runner
  call('HSET', name, 'runner', holder, 'size', int(size), 'end', ended, 'lease', int(NOW + lease_ms), 'until', until_ms)
  call('PEXPIRE', name, keep_ms)
  call('PEXPIRE', body, keep_ms)
  call('ZADD', K.streams, until_ms, id)
  return tonumber(known[4])
end

define('write_streams', function()
  forget_streams()
  local answers, bytes_max = {}, tonumber(ARGV[A])
  for at = A + 1, #ARGV, FIELDS do
    push(answers, add_part(at, bytes_max))
  end
  return answers
end)
