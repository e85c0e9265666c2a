-- include: line
-- Forget ended jobs, the oldest first, and then what nobody refers to any more.
--
-- Arguments: end before which a job may go in ms, how many ended jobs may stay, how many to forget at most,
--            how long a class without sessions is kept in ms.
-- Returns:   how many jobs were forgotten.
-- Reads:     in:<ended>, jobs
-- Writes:    in:<ended>, jobs, state:*, error:*, progress:*, result:*, uses, signatures, able:*, ready:*, workflows,
--            workflow_uses, classes, unused, members:*, idle, matched

local ended_before, keep_max, limit, class_keep_ms = tonumber(ARGV[A]), tonumber(ARGV[A + 1]), tonumber(ARGV[A + 2]), tonumber(ARGV[A + 3])
local CLASSES_AT_ONCE = 10

-- Return the `limit` oldest ended jobs as {id, end, status} and how many there are in all.
local function oldest()
  local places, total = {}, 0
  for _, status in ipairs({ 'completed', 'failed', 'timeout', 'cancelled' }) do
    total = total + call('ZCARD', key('in:' .. status))
    local found = call('ZRANGE', key('in:' .. status), 0, limit - 1, 'WITHSCORES')
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
  for _, class in ipairs(call('SMEMBERS', key('able:' .. signature))) do
    call('ZREM', key('ready:' .. class), signature)
  end
  call('DEL', key('able:' .. signature))
  call('HDEL', key('signatures'), signature)
  call('HDEL', key('uses'), signature)
  call('INCR', key('matched'))
end

-- Count uses down; where none is left, `forget` it.
local function release(name, counts, forget)
  for field, count in pairs(counts) do
    if call('HINCRBY', key(name), field, -count) <= 0 then
      forget(field)
    end
  end
end

local function forget_job(job, signatures, workflows)
  local signature, _, _, workflow = header(call('HGET', key('jobs'), job.id))
  signatures[signature] = (signatures[signature] or 0) + 1
  if workflow ~= '' then
    workflows[workflow] = (workflows[workflow] or 0) + 1
  end
  call('ZREM', key('in:' .. job.status), job.id)
  call('HDEL', key('jobs'), job.id)
  call('UNLINK', key('state:' .. job.id), key('error:' .. job.id), key('progress:' .. job.id), key('result:' .. job.id))
end

local function forget_class(class)
  call('ZREM', key('unused'), class)
  call('HDEL', key('classes'), class)
  call('SREM', key('idle'), class)
  call('UNLINK', key('ready:' .. class))
  for _, signature in ipairs(call('HKEYS', key('signatures'))) do
    call('SREM', key('able:' .. signature), class)
  end
  call('INCR', key('matched'))
end

local places, total = oldest()
local signatures, workflows, gone = {}, {}, 0
for rank, job in ipairs(places) do
  if gone == limit or (rank > total - keep_max and job.ended >= ended_before) then
    break
  end
  forget_job(job, signatures, workflows)
  gone = gone + 1
end
release('uses', signatures, forget_signature)
release('workflow_uses', workflows, function(workflow)
  call('HDEL', key('workflows'), workflow)
  call('HDEL', key('workflow_uses'), workflow)
end)
for _, class in ipairs(call('ZRANGE', key('unused'), '-inf', NOW - class_keep_ms, 'BYSCORE', 'LIMIT', 0, CLASSES_AT_ONCE)) do
  forget_class(class)
end
return gone
