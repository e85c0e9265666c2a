-- Count the jobs in line with one need.
--
-- Arguments: signature.
-- Returns:   how many.
-- Reads:     p:*, variants

define('waiting', function()
  local jobs = call('ZCARD', key('p:', ARGV[A]))
  for _, queue in ipairs(call('SMEMBERS', K.variants)) do
    if parts_of(queue) == ARGV[A] then
      jobs = jobs + call('ZCARD', key('p:', queue))
    end
  end
  return jobs
end, 'no-writes')
