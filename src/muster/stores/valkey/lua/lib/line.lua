-- The line of waiting jobs: how a job gets into it and out of it.

-- Return signature, score and workflow of a job's entry in `jobs`.
local function header(entry)
  return string.match(entry, '^%d+|([^|]*)|(%d+)|([^|]*)|')
end

-- A queue has a new head: enter it into the ready index of every class that can run it, and wake those that wait.
local function offer(queue, score)
  local someone_waits = call('EXISTS', key('idle')) == 1
  for _, class in ipairs(call('SMEMBERS', key('able:', string.match(queue, '^[^!]*')))) do
    call('ZADD', key('ready:', class), 'LT', score, queue)
    if someone_waits and call('SREM', key('idle'), class) == 1 then
      call('PUBLISH', key('bus:wake'), class)
    end
  end
end

-- Put jobs into a queue (a signature or a variant) and so into line; `members` is score, id, score, id…
local function place(queue, members)
  local lowest = members[1]
  for at = 3, members.n or #members, 2 do
    if tonumber(members[at]) < tonumber(lowest) then
      lowest = members[at]
    end
  end
  local head = call('ZRANGE', key('p:', queue), '0', '0', 'WITHSCORES')[2]
  bulk('ZADD', key('p:', queue), members)
  bulk('ZADD', key('pending'), members)
  if not head or tonumber(lowest) < tonumber(head) then
    offer(queue, lowest)
  end
end

-- Whether a live session of another worker can run the signature. A sample of each class will do: a worker that is
-- taken for the only one merely gets its retry sooner.
local function others_can_run(signature, worker)
  for _, class in ipairs(call('SMEMBERS', key('able:', signature))) do
    for _, session in ipairs(call('SRANDMEMBER', key('members:', class), 8)) do
      local other = read_session(session)
      if other.worker ~= worker and other.ends > NOW then
        return true
      end
    end
  end
  return false
end

-- Put a job that was claimed before back in its place in line, leaving out its avoided worker while others can run it.
-- Changes its state, which whoever calls writes.
local function put_back(state)
  local signature, score = header(call('HGET', key('jobs'), state.id))
  local queue = signature
  if state.avoid ~= '' and others_can_run(signature, state.avoid) then
    queue = signature .. '!' .. state.avoid
    call('SADD', key('variants'), queue)
    call('ZADD', key('avoiding'), NOW + AVOID_MS, state.id)
  else
    state.avoid = ''
  end
  place(queue, { score, state.id })
end

-- Forget a variant that has no jobs left.
local function drop_if_empty(queue)
  if string.find(queue, '!', 1, true) and call('EXISTS', key('p:', queue)) == 0 then
    call('SREM', key('variants'), queue)
  end
end

-- Take one waiting job out of the line; return its signature and score. Its entry in the ready index stays: a claim
-- will correct it.
local function leave_line(state)
  local signature, score = header(call('HGET', key('jobs'), state.id))
  local queue = state.avoid == '' and signature or signature .. '!' .. state.avoid
  call('ZREM', key('p:', queue), state.id)
  call('ZREM', key('pending'), state.id)
  call('ZREM', key('avoiding'), state.id)
  drop_if_empty(queue)
  return signature, score
end
