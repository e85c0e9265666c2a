-- Forget a kept answer.
--
-- Arguments: id.
-- Returns:   1 if it was there.
-- Reads:     stream:*
-- Writes:    stream:*, stream_body:*, streams, stream_bytes, streams_bytes

define('remove_stream', function()
  local _, known = stream(ARGV[A], 'size')
  forget_stream(ARGV[A])
  return known and 1 or 0
end)
