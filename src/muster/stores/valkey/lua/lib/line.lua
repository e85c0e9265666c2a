-- The line of waiting jobs: how a job gets into it and out of it.

-- Return signature, score, timeout in ms and workflow of a job's entry in `jobs`.
local function header(blob)
  local signature, score, timeout_ms, workflow = string.match(blob, '^([^|]*)|(%d+)|(%d+)|([^|]*)|')
  return signature, tonumber(score), tonumber(timeout_ms), workflow
end

-- A queue has a new head: enter it into the ready index of every class that can run it, and wake those that wait.
local function offer(queue, score)
  local someone_waits = call('EXISTS', key('idle')) == 1
  for _, class in ipairs(call('SMEMBERS', key('able:' .. string.match(queue, '^[^!]*')))) do
    call('ZADD', key('ready:' .. class), 'LT', score, queue)
    if someone_waits and call('SREM', key('idle'), class) == 1 then
      call('PUBLISH', key('bus:wake'), class)
    end
  end
end

-- Put jobs into a queue (a signature or a variant); `members` is score, id, score, id…
local function place(queue, members)
  local lowest = members[1]
  for at = 3, #members, 2 do
    lowest = math.min(lowest, members[at])
  end
  local head = call('ZRANGE', key('p:' .. queue), 0, 0, 'WITHSCORES')[2]
  bulk('ZADD', 'p:' .. queue, members)
  bulk('ZADD', 'pending', members)
  if not head or lowest < tonumber(head) then
    offer(queue, lowest)
  end
end

-- Whether a live session of another worker can run the signature. A sample of each class will do: a worker that is
-- taken for the only one merely gets its retry sooner.
local function others_can_run(signature, worker)
  for _, class in ipairs(call('SMEMBERS', key('able:' .. signature))) do
    for _, session in ipairs(call('SRANDMEMBER', key('members:' .. class), 8)) do
      local ends = call('ZSCORE', key('sessions'), session)
      if ends and tonumber(ends) > NOW and call('HGET', key('session:' .. session), 'worker') ~= worker then
        return true
      end
    end
  end
  return false
end

-- Put a job that was claimed before back in its place in line, leaving out its avoided worker while others can run it.
local function put_back(id, signature, score, avoid)
  local queue = signature
  if avoid and others_can_run(signature, avoid) then
    queue = signature .. '!' .. avoid
    call('SADD', key('variants'), queue)
    call('ZADD', key('avoiding'), NOW + AVOID_MS, id)
  elseif avoid then
    call('HDEL', key('state:' .. id), 'avoid')
  end
  place(queue, { score, id })
end

-- Forget a variant that has no jobs left.
local function drop_if_empty(queue)
  if string.find(queue, '!', 1, true) and call('EXISTS', key('p:' .. queue)) == 0 then
    call('SREM', key('variants'), queue)
  end
end

-- Take one waiting job out of the line. Its entry in the ready index stays: a claim will correct it.
local function leave_line(id, signature, avoid)
  local queue = avoid and signature .. '!' .. avoid or signature
  call('ZREM', key('p:' .. queue), id)
  call('ZREM', key('pending'), id)
  call('ZREM', key('avoiding'), id)
  drop_if_empty(queue)
end
