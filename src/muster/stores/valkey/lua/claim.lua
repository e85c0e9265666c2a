-- include: line, attempts
-- The worker loop's one call: end these attempts, renew my session, give me the best jobs that I can run.
--
-- Order is exact over all signatures: score, then id. The cost depends neither on how many jobs, signatures or classes
-- there are, nor on jobs that this class cannot run: only the heads of its own queues are looked at.
--
-- Arguments: session, worker, want, lease in ms, 1 to be woken when nothing is found, bytes of jobs at most (one job
--            is given whatever its size), how many settlements, then those (see lib/attempts.lua).
-- Returns:   {1 if the session is known, {ids of settlements that came too late}, then for each job: its entry in
--            `jobs`, attempt, deadline in ms}
-- Reads:     session:<session>, ready:<class>, p:*, jobs
-- Writes:    sessions, held:<session>, state:*, deadlines, in:*, p:*, pending, avoiding, variants, ready:<class>, idle,
--            log; for settlements also error:*, result:*, progress:*, delayed, ready:* of other classes

local session, worker, want = ARGV[A], ARGV[A + 1], tonumber(ARGV[A + 2])
local lease_ms, mark_idle, bytes_max = tonumber(ARGV[A + 3]), ARGV[A + 4] == '1', tonumber(ARGV[A + 5])
local HELD = 'held:' .. session

-- Whether the attempt has already ended just so for this session: the reply was lost, nothing is late.
local function repeats(s)
  local status, attempt, by = unpack(call('HMGET', key('state:' .. s.id), 'status', 'attempt', 'session'))
  return status == s.status and attempt == s.attempt and by == session
end

local function settle_mine(settlements)
  if #settlements == 0 then
    return {}
  end
  local ids = {}
  for n, s in ipairs(settlements) do
    ids[n] = s.id
  end
  local leases = call('ZMSCORE', key(HELD), unpack(ids))
  local mine, refused, attempts, seen = {}, {}, {}, {}
  for n, s in ipairs(settlements) do
    if seen[s.id] == nil and leases[n] == s.attempt then
      seen[s.id] = s.status
      s.worker, s.session = worker, session
      mine[#mine + 1] = s
    elseif seen[s.id] ~= s.status and not repeats(s) then
      refused[#refused + 1] = s.id
      attempts[#attempts + 1] = tonumber(s.attempt)
    end
  end
  if #mine > 0 then
    end_attempts(mine)
  end
  tell('job_refused', refused, worker, attempts)
  return refused
end

-- Bring the entry of a queue in the ready index up to date with its head; `head` is its score, or nil.
local function correct(ready, queue, head)
  if head then
    call('ZADD', ready, head, queue)
  else
    call('ZREM', ready, queue)
    drop_if_empty(queue)
  end
end

-- Several queues have heads of one score (steps of a workflow): return the one whose head has the first id. Entries
-- that turn out to be out of date are corrected; nil: no two real heads were equal.
local function first_of_equals(ready, score, avoided)
  local best, best_id
  for _, queue in ipairs(call('ZRANGE', ready, score, score, 'BYSCORE')) do
    local head = call('ZRANGE', key('p:' .. queue), 0, 0, 'WITHSCORES')
    if head[2] ~= score then
      correct(ready, queue, head[2])
    elseif string.sub(queue, -#avoided) ~= avoided and (not best_id or before(head[1], best_id)) then
      best, best_id = queue, head[1]
    end
  end
  return best
end

-- Return up to `most` jobs at the head of a queue that come before `limit`, and the score of the next one.
-- The page grows only while the queue goes on winning.
local function heads(queue, most, limit)
  local page = limit == math.huge and most + 1 or 2
  while true do
    local found = call('ZRANGE', key('p:' .. queue), 0, page - 1, 'WITHSCORES')
    local n = 0
    while n < most and found[2 * n + 1] and tonumber(found[2 * n + 2]) < limit do
      n = n + 1
    end
    if n < page then
      return found, n, found[2 * n + 2]
    end
    page = math.min(page * 8, most + 1)
  end
end

-- Take the best jobs out of the line; returns lists beside each other.
local function take(class)
  local ready, avoided = key('ready:' .. class), '!' .. worker
  local ids, scores, queues, skip = {}, {}, {}, 0
  while #ids < want do
    local top = call('ZRANGE', ready, skip, skip + 1, 'WITHSCORES')
    if #top == 0 then
      break
    end
    local queue, limit, most = top[1], top[4] and tonumber(top[4]) or math.huge, want - #ids
    if string.sub(queue, -#avoided) == avoided then
      skip = skip + 1  -- entries before `skip` are all variants that leave out this worker
    else
      if top[2] == top[4] then
        queue, limit, most = first_of_equals(ready, top[2], avoided), math.huge, 1
      end
      if queue then
        local found, n, next_score = heads(queue, most, limit)
        if n > 0 then
          call('ZREMRANGEBYRANK', key('p:' .. queue), 0, n - 1)
          for at = 1, n do
            ids[#ids + 1], scores[#scores + 1], queues[#queues + 1] = found[2 * at - 1], found[2 * at], queue
          end
        end
        correct(ready, queue, next_score)
      end
    end
  end
  return ids, scores, queues
end

-- Give back what does not fit into one reply.
local function cut(blobs, ids, scores, queues)
  local bytes, kept = 0, #ids
  for n = 1, #ids do
    bytes = bytes + (blobs[n] and #blobs[n] or 0)
    if bytes > bytes_max and n > 1 then
      kept = n - 1
      break
    end
  end
  for n = #ids, kept + 1, -1 do
    place(queues[n], { tonumber(scores[n]), ids[n] })
    ids[n] = nil
  end
end

local function lease(ids, blobs, queues, reply)
  local given, attempts, held, deadlines, started, avoiders = {}, {}, {}, {}, {}, {}
  for n, id in ipairs(ids) do
    if blobs[n] then
      local _, _, timeout_ms = header(blobs[n])
      local state = key('state:' .. id)
      local attempt = call('HINCRBY', state, 'attempt', 1)
      call('HSET', state, 'status', 'assigned', 'worker', worker, 'session', session, 'started', int(NOW))
      if string.find(queues[n], '!', 1, true) then
        call('HDEL', state, 'avoid')
        avoiders[#avoiders + 1] = id
      end
      local m = #given + 1
      given[m], attempts[m] = id, attempt
      held[2 * m - 1], held[2 * m] = attempt, id
      deadlines[2 * m - 1], deadlines[2 * m] = NOW + timeout_ms, id
      started[2 * m - 1], started[2 * m] = NOW, id
      reply[#reply + 1], reply[#reply + 2], reply[#reply + 3] = blobs[n], attempt, NOW + timeout_ms
    end
  end
  bulk('ZADD', HELD, held)
  bulk('ZADD', 'deadlines', deadlines)
  bulk('ZADD', 'in:assigned', started)
  bulk('ZREM', 'avoiding', avoiders)
  tell('job_claimed', given, worker, attempts)
end

local refused = settle_mine(read_settlements(A + 7, tonumber(ARGV[A + 6])))
local class = call('HGET', key('session:' .. session), 'class')
if not class then
  return { 0, refused }
end
call('ZADD', key('sessions'), NOW + lease_ms, session)
local reply = { 1, refused }
local ids, scores, queues = take(class)
if #ids == 0 then
  if mark_idle and want > 0 then
    call('SADD', key('idle'), class)
  end
  return reply
end
bulk('ZREM', 'pending', ids)
local blobs = call('HMGET', key('jobs'), unpack(ids))
cut(blobs, ids, scores, queues)
lease(ids, blobs, queues, reply)
return reply
