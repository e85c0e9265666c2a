-- Forget ended jobs, the oldest first, and then what nobody refers to any more.
--
-- Arguments: end before which a job may go in ms, how many ended jobs may stay, how many to forget at most,
--            how long a class without sessions is kept in ms.
-- Returns:   how many jobs were forgotten.
-- Reads:     in:<ended>, jobs, unused
-- Writes:    in:<ended>, jobs, states, errors, progress, deadlines, uses, gone, signatures, service_of, able:*,
--            ready:*, workflows, workflow_uses, workflow_names, step_of, open_steps, bad_steps, customer_uses, tags,
--            classes, refuses:*, refusing, unused, idle, matched, log

local CLASSES_AT_ONCE = 10
local BANDS = 101

-- Return the `limit` oldest ended jobs as {id, end, status} and how many there are in all.
local function oldest(limit)
  local places, total = {}, 0
  for _, status in ipairs({ 'completed', 'failed', 'timeout', 'cancelled' }) do
    total = total + call('ZCARD', key('in:', status))
    local found = call('ZRANGE', key('in:', status), 0, limit - 1, 'WITHSCORES')
    for at = 1, #found, 2 do
      places[#places + 1] = { id = found[at], ended = tonumber(found[at + 1]), status = status }
    end
  end
  table.sort(places, function(a, b)
    if a.ended ~= b.ended then
      return a.ended < b.ended
    end
    return before(a.id, b.id)
  end)
  return places, total
end

local function forget_signature(signature)
  for _, class in ipairs(call('SMEMBERS', key('able:', signature))) do
    call('ZREM', key('ready:', class), signature)
  end
  call('DEL', key('able:', signature))
  call('HDEL', K.signatures, signature)
  call('HDEL', K.uses, signature)
  call('HDEL', K.gone, signature)
  call('HDEL', K.service_of, signature)
  call('INCR', K.matched)
end

-- Count the jobs of signatures that are gone; forget those of which no job is left.
local function release_signatures(counts)
  for signature, jobs in pairs(counts) do
    if call('HINCRBY', K.gone, signature, jobs) >= tonumber(call('HGET', K.uses, signature) or 0) then
      forget_signature(signature)
    end
  end
end

-- Count uses down; where none is left, `forget` it.
local function release(name, counts, forget)
  for field, count in pairs(counts) do
    if call('HINCRBY', K[name], field, -count) <= 0 then
      forget(field)
    end
  end
end

-- Return how many of the jobs refer to each signature, workflow and customer.
local function count_uses(ids)
  local signatures, workflows, customers = {}, {}, {}
  for _, id in ipairs(ids) do
    local _, signature, _, workflow, customer = header(call('HGET', K.jobs, id))
    signatures[signature] = (signatures[signature] or 0) + 1
    if workflow ~= '' then
      workflows[workflow] = (workflows[workflow] or 0) + 1
    end
    if customer ~= '' then
      customers[customer] = (customers[customer] or 0) + 1
    end
  end
  return signatures, workflows, customers
end

-- Forget what is kept of a name under `of` for each band.
local function forget_bands(command, of, name)
  local fields = {}
  for band = 0, BANDS - 1 do
    push(fields, name .. '|' .. band)
  end
  bulk(command, K[of], fields)
end

local function forget_class(class)
  call('ZREM', K.unused, class)
  call('HDEL', K.classes, class)
  call('SREM', K.idle, class)
  call('UNLINK', key('ready:', class))
  call('DEL', key('refuses:', class))
  call('HDEL', K.refusing, class)
  for _, signature in ipairs(call('HKEYS', K.signatures)) do
    call('SREM', key('able:', signature), class)
  end
  call('INCR', K.matched)
end

define('purge', function()
  local ended_before, keep_max, limit = tonumber(ARGV[A]), tonumber(ARGV[A + 1]), tonumber(ARGV[A + 2])
  local unused_before = NOW - tonumber(ARGV[A + 3])
  local places, total = oldest(limit)
  local gone, statuses, batch = {}, {}, new_batch()
  for rank, job in ipairs(places) do
    if #gone == limit or (rank > total - keep_max and job.ended >= ended_before) then
      break
    end
    push(gone, job.id)
    push(statuses, job.status)
    file(batch.ZREM, key('in:', job.status), job.id)
  end
  close_steps(gone, statuses)  -- of those that an older version of this library ended
  local signatures, workflows, customers = count_uses(gone)
  for _, name in ipairs({ 'jobs', 'errors', 'progress' }) do
    batch.HDEL[K[name]] = gone
  end
  for _, id in ipairs(gone) do
    file(batch.HDEL, K.states, id, RESULT .. id)
  end
  batch.ZREM[K.deadlines] = gone
  write(batch)
  release_signatures(signatures)
  release('workflow_uses', workflows, function(workflow)
    forget_bands('HDEL', 'workflows', workflow)
    for _, name in ipairs({ 'workflow_uses', 'workflow_names', 'bad_steps' }) do
      call('HDEL', K[name], workflow)
    end
  end)
  release('customer_uses', customers, function(customer)
    forget_bands('ZREM', 'tags', customer)
    call('HDEL', K.customer_uses, customer)
  end)
  local unused = call('ZRANGE', K.unused, '-inf', unused_before, 'BYSCORE', 'LIMIT', '0', CLASSES_AT_ONCE)
  for _, class in ipairs(unused) do
    forget_class(class)
  end
  return #gone
end, 'allow-oom')
