-- Read whole jobs.
--
-- Arguments: 1 to read results as well, then ids.
-- Returns:   for each nil, or {entry in `jobs`, {fields and values of its state}, error, progress, result}.
-- Reads:     jobs, state:*, error:*, progress:*, result:*

local whole = ARGV[A] == '1'
local reply = {}
for at = A + 1, #ARGV do
  local id = ARGV[at]
  local blob = call('HGET', key('jobs'), id)
  reply[at - A] = blob and {
    blob,
    call('HGETALL', key('state:' .. id)),
    call('GET', key('error:' .. id)),
    call('GET', key('progress:' .. id)),
    whole and call('GET', key('result:' .. id)),
  }
end
return reply
