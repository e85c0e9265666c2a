-- Read what customers may have, and how many jobs they have.
--
-- Arguments: customers; none: all for whom something is set.
-- Returns:   for each: its entry in `customers` or nil, jobs that have not ended, jobs that run.
-- Reads:     customers, open, running

define('customers', function()
  local names = { unpack(ARGV, A) }
  if #names == 0 then
    names = call('HKEYS', K.customers)
  end
  local reply = {}
  for n, customer in ipairs(names) do
    local entry = call('HGET', K.customers, customer)
    reply[n] = { entry, count_of('open', customer), count_of('running', customer) }
  end
  return reply
end, 'no-writes')
