-- Go on with a kept answer that has not ended and that nobody goes on with.
--
-- Arguments: id, runner, for how long it is the runner's in ms.
-- Returns:   1 if it is.
-- Reads:     stream:*
-- Writes:    stream:*

define('take_stream', function()
  local name, known = stream(ARGV[A], 'end', 'lease')
  if not known or known[1] ~= '' or tonumber(known[2]) > NOW then
    return 0
  end
  call('HSET', name, 'runner', ARGV[A + 1], 'lease', int(NOW + ARGV[A + 2]))
  return 1
end)
