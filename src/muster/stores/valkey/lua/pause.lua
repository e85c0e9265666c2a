-- Pause or resume a service, or all: nothing of it is claimed meanwhile, what runs goes on.
--
-- Arguments: service or "*", 1 to pause, 0 to resume.
-- Returns:   1 if that changed something.
-- Reads:     service_of, variants, able:*, p:*
-- Writes:    paused, ready:*, idle

-- Return the queues of a service that have jobs, by signature.
local function queues_of(service)
  local queues, services = {}, call('HGETALL', K.service_of)
  for at = 1, #services, 2 do
    if service == '*' or services[at + 1] == service then
      queues[services[at]] = { services[at] }
    end
  end
  for _, queue in ipairs(call('SMEMBERS', K.variants)) do
    local signature = parts_of(queue)
    if queues[signature] then
      push(queues[signature], queue)
    end
  end
  return queues
end

define('pause', function()
  local service, pauses = ARGV[A], ARGV[A + 1] == '1'
  local changed = call(pauses and 'SADD' or 'SREM', K.paused, service)
  if changed == 1 then
    local gone = new_batch()
    for signature, queues in pairs(queues_of(service)) do
      if not pauses then
        reopen(queues)
      else
        for _, class in ipairs(call('SMEMBERS', key('able:', signature))) do
          for _, queue in ipairs(queues) do
            file(gone.ZREM, key('ready:', class), queue)
          end
        end
      end
    end
    write(gone)
  end
  return changed
end, 'allow-oom')
