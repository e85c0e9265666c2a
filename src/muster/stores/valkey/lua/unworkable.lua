-- Find the queues with jobs whose jobs nobody who is there can run.
--
-- Returns:   {{queue, how many jobs, queue…}, {all other queues with jobs…}}
-- Reads:     signatures, variants, p:*, able:*, members:*, refuses:*

define('unworkable', function()
  local stuck, served = {}, {}
  local queues = call('HKEYS', K.signatures)
  for _, queue in ipairs(call('SMEMBERS', K.variants)) do
    push(queues, queue)
  end
  for _, queue in ipairs(queues) do
    local jobs = call('ZCARD', key('p:', queue))
    if jobs > 0 and is_served(queue) then
      push(served, queue)
    elseif jobs > 0 then
      push(stuck, queue)
      push(stuck, jobs)
    end
  end
  return { stuck, served }
end, 'no-writes')
