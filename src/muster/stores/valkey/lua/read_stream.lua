-- Read of a kept answer, and note that somebody did.
--
-- Arguments: id, offset, how many bytes at most.
-- Returns:   opening, size, bytes, how it ended, 1 if somebody goes on with it, 1 if it was given back; nothing when it
--            is not there.
-- Reads:     stream:*, stream_body:*
-- Writes:    stream:*

define('read_stream', function()
  local id, offset, limit = ARGV[A], tonumber(ARGV[A + 1]), tonumber(ARGV[A + 2])
  local name, known = stream(id, 'opening', 'size', 'end', 'lease', 'runner')
  if not known then
    return {}
  end
  call('HSET', name, 'read', NOW_TEXT)
  local data = limit > 0 and call('GETRANGE', key('stream_body:', id), int(offset), int(offset + limit - 1)) or ''
  local runs = known[3] == '' and tonumber(known[4]) > NOW
  return { known[1], tonumber(known[2]), data, known[3], runs and 1 or 0, known[5] == '' and 1 or 0 }
end)
