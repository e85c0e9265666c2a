-- Who does what only one may do: a lease by name, until it ends or is given back.
--
-- Arguments: name, owner, for how long in ms; 0: give it back.
-- Returns:   1 if the owner has it now.
-- Reads:     leases
-- Writes:    leases

define('lease', function()
  local name, owner, ms = ARGV[A], ARGV[A + 1], tonumber(ARGV[A + 2])
  local entry = call('HGET', K.leases, name)
  local ends, holder = string.match(entry or '', '^(%d+)|(.*)$')
  if ends and holder ~= owner and tonumber(ends) > NOW then
    return 0
  end
  if ms > 0 then
    call('HSET', K.leases, name, int(NOW + ms) .. '|' .. owner)
    return 1
  end
  call('HDEL', K.leases, name)
  return 0
end)
