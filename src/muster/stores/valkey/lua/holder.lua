-- Who has a lease.
--
-- Arguments: name.
-- Returns:   the owner, or an empty string.
-- Reads:     leases
-- Writes:    nothing

define('holder', function()
  local ends, holder = string.match(call('HGET', K.leases, ARGV[A]) or '', '^(%d+)|(.*)$')
  return ends and tonumber(ends) > NOW and holder or ''
end)
