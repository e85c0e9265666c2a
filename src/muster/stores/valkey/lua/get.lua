-- Read whole jobs.
--
-- Arguments: 1 to read results as well, then ids.
-- Returns:   for each nil, or {entry in `jobs`, state, error, progress, result, what it waits for}.
-- Reads:     jobs, states, errors, progress, unmet

define('get', function()
  local ids = { unpack(ARGV, A + 1) }
  local function all(name)
    return call('HMGET', K[name], unpack(ids))
  end
  local entries, states, errors, progress, unmet = all('jobs'), all('states'), all('errors'), all('progress'), all('unmet')
  local results = {}
  if ARGV[A] == '1' then
    local fields = {}
    for n, id in ipairs(ids) do
      fields[n] = RESULT .. id
    end
    results = call('HMGET', K.states, unpack(fields))
  end
  local reply = {}
  for n = 1, #ids do
    reply[n] = entries[n] and { entries[n], states[n], errors[n], progress[n], results[n] or false, unmet[n] }
  end
  return reply
end, 'no-writes')
