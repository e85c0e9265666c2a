-- The worker loop's one call: end these attempts, renew my session, give me the best jobs that I can run.
--
-- Arguments: session, want, lease in ms, 1 to be woken when nothing is found, bytes of jobs at most (one job
--            is given whatever its size), how many settlements, then those (see lib/attempts.lua).
-- Returns:   {1 if the session is known, {ids of settlements that came too late} or nil, then for each job: its entry in
--            `jobs`, attempt, deadline in ms}
-- Reads:     sessions, ready:<class>, p:*, jobs, customers
-- Writes:    sessions, looks, held:<session>, states, in:*, p:*, pending, avoiding, variants, at:*, ready:<class>, idle,
--            tags, running, log; for settlements also what settle.lua writes

-- Return the state of a job if this very attempt runs in the session: to compare the front is to take nothing apart.
local function running_state(text, attempt, session)
  local rest = '|' .. attempt .. '|' .. session .. '|'
  for _, status in ipairs(RUNNING) do
    local front = status .. rest
    if string.sub(text, 1, #front) == front then
      return { status = status, tail = string.sub(text, #status + 1) }
    end
  end
end

-- Whether the attempt has already ended just so for this session: a reply was lost, nothing is late.
local function repeats(text, s, session)
  local front = s.status .. '|' .. s.attempt .. '|' .. session .. '|'
  return string.sub(text, 1, #front) == front
end

-- End the attempts that this session holds; return the ids of settlements that came too late. `worker` is nil when the
-- session is unknown: then it holds nothing.
local function settle_mine(settlements, session, worker)
  if #settlements == 0 then
    return NONE
  end
  local mine, refused, late, attempts, seen = {}, {}, NONE, NONE, {}
  for n, text in ipairs(read_texts(ids_of(settlements))) do
    local s = settlements[n]
    local outcome = s.attempt .. s.status
    local state = worker and text and not seen[s.id] and running_state(text, s.attempt, session)
    if state then
      seen[s.id], s.state, s.session, s.worker = outcome, state, session, worker
      push(mine, s)
    elseif seen[s.id] ~= outcome and not (text and repeats(text, s, session)) then
      push(refused, s.id)
      if call('HEXISTS', K.jobs, s.id) == 1 then  -- else it is only somebody's word
        if late == NONE then
          late, attempts = {}, {}
        end
        push(late, s.id)
        push(attempts, s.attempt)
      end
    end
  end
  end_attempts(mine)
  tell('job_refused', late, worker, attempts)
  return refused
end

-- Give back what does not fit into one reply.
local function cut(entries, ids, queues, bytes_max)
  local bytes, kept = 0, #ids
  for n = 1, #ids do
    bytes = bytes + #entries[n]
    if bytes > bytes_max and n > 1 then
      kept = n - 1
      break
    end
  end
  for n = #ids, kept + 1, -1 do
    local _, _, score = header(entries[n])
    local _, customer = parts_of(queues[n])
    place_one(queues[n], score, ids[n])
    if customer ~= '' then
      ROOMS[customer] = room_of(customer) + 1
      reopen(call('SMEMBERS', key('at:', customer)))
    end
    ids[n] = nil
  end
end

-- Return the number of a job's next attempt, how often it was tried again, and whether it left out a worker.
local function history(id, text)
  if not text then
    return '1', '0', false
  end
  local state = whole(front_of(id, text))
  return int(state.attempt + 1), state.retries, state.avoid ~= ''
end

local function score_of(entry)
  local _, _, score = header(entry)
  return score
end

-- Return the state of a job from now on, its customer, its attempt, its deadline, and whether it left out a worker.
local function assigned(id, entry, before_now, session, worker)
  local timeout_ms, signature, customer = brief(entry)
  local attempt, retries, avoids = history(id, before_now)
  local state = 'assigned|' .. attempt .. '|' .. session .. '|' .. worker .. '|' .. retries .. '|' .. NOW_TEXT .. '|'
    .. timeout_ms .. '|||' .. signature .. '|' .. customer .. '|'
  return state, customer, attempt, NOW + timeout_ms, avoids
end

-- Lease jobs to the session and add them to the reply.
local function lease(ids, entries, session, worker, lease_ends, reply)
  local batch, texts, attempts, earliest = batch_for(#ids), read_texts(ids), {}, lease_ends
  local running, clocks = NONE, {}
  local priorities = #ids > 1 and band_of(score_of(entries[#ids])) - band_of(score_of(entries[1])) + 1 or 1
  for n, id in ipairs(ids) do
    if n == #ids or priorities > 1 then
      local score = score_of(entries[n])
      clocks[band_of(score)] = score  -- the last of a band is the highest
    end
    local state, customer, attempt, deadline, avoids = assigned(id, entries[n], texts[n], session, worker)
    if customer ~= '' then
      if running == NONE then
        running = {}
      end
      running[customer] = (running[customer] or 0) + 1
    end
    put(batch, 'HSET', K.states, id, state)
    put(batch, 'SADD', key('held:', session), id)
    put(batch, 'ZADD', K['in:assigned'], NOW_TEXT, id)
    if avoids then
      put(batch, 'ZREM', K.avoiding, id)
    end
    attempts[n] = attempt
    reply[3 * n], reply[3 * n + 1], reply[3 * n + 2] = entries[n], tonumber(attempt), deadline
    earliest = math.min(earliest, deadline)
  end
  write(batch)
  for _, score in pairs(clocks) do
    set_clock(score, running ~= NONE)
  end
  for customer, jobs in pairs(running) do
    count('running', customer, jobs)
  end
  if earliest < lease_ends then
    call('ZADD', K.looks, 'LT', earliest, session)
  end
  if #ids == 1 then
    log(lines_of('job_claimed', ids[1], worker, attempts[1], ''))
  else
    tell('job_claimed', ids, worker, attempts)
  end
end

-- Write the states of the job that was claimed and of the one that has ended well, and its result.
local function write_end(states, id, state, done, ended, result)
  if result == '' then
    call('HSET', states, id, state, done, ended)
  else
    call('HSET', states, id, state, done, ended, RESULT .. done, result)
  end
end

-- Let go of the job that has ended well.
local function complete(id, attempt, state)
  call('ZREM', key('in:', state.status), id)
  call('ZADD', K['in:completed'], NOW_TEXT, id)
  if attempt ~= '1' then
    call('HDEL', K.errors, id)  -- of an attempt before
  end
end

-- The short way, in as few commands as can be, for what most workers ask: one job, while one or none has ended well, and
-- nothing else follows from that. Nothing is written before that is known. Return the reply; nil: take the long way.
local function swap(session, known, lease_ends)
  local done, done_attempt = ARGV[A + 6], ARGV[A + 7]
  local queue, found = look_at_front(known.class)
  if not queue then
    return nil
  end
  local id, states, held, ended = found[1], K.states, key('held:', session), nil
  local texts = done and call('HMGET', states, id, done) or call('HMGET', states, id)
  if done then
    ended = texts[2] and running_state(texts[2], done_attempt, session)
    if not ended or customer_of(ended.tail) or call('EXISTS', K.step_of, K.unmet) > 0 then
      return nil
    end
  end
  take_front(known.class, queue, found)
  local entry = call('HGET', K.jobs, id)
  local state, customer, attempt, deadline = assigned(id, entry, texts[1], session, known.worker)
  local claimed = lines_of('job_claimed', id, known.worker, attempt, '')
  call('SADD', held, id)  -- before the other one goes: a set that becomes empty has to be made anew
  call('ZADD', K['in:assigned'], NOW_TEXT, id)
  if done then
    write_end(states, id, state, done, ended_text(ended, 'completed'), ARGV[A + 9])
    call('SREM', held, done)
    complete(done, done_attempt, ended)
    log(lines_of('job_completed', done, known.worker, done_attempt, ''), claimed)
  else
    call('HSET', states, id, state)
    log(claimed)
  end
  set_clock(found[2], customer ~= '')
  if customer ~= '' then
    count('running', customer, 1)
  end
  if deadline < lease_ends then
    call('ZADD', K.looks, 'LT', deadline, session)
  end
  return { 1, false, entry, attempt == '1' and 1 or tonumber(attempt), deadline }
end

define('claim', function()
  local session, lease_ends, known = ARGV[A], NOW + ARGV[A + 2], read_session(ARGV[A])
  if known then
    prolong(session, known, lease_ends)
    local ends = ARGV[A + 5]
    if ARGV[A + 1] == '1' and (ends == '0' or ends == '1' and ARGV[A + 8] == 'completed') then
      local reply = swap(session, known, lease_ends)
      if reply then
        return reply
      end
    end
  end
  local want, mark_idle, bytes_max = tonumber(ARGV[A + 1]), ARGV[A + 3] == '1', tonumber(ARGV[A + 4])
  local refused = settle_mine(read_settlements(A + 5), session, known and known.worker)
  if not known then
    return { 0, refused }
  end
  local reply = { 1, refused }
  local ids, queues = take(known.class, known.worker, want)
  if #ids == 0 then
    if mark_idle and want > 0 then
      call('SADD', K.idle, known.class)
    end
    return reply
  end
  bulk('ZREM', K.pending, ids)
  local entries = call('HMGET', K.jobs, unpack(ids))
  cut(entries, ids, queues, bytes_max)
  lease(ids, entries, session, known.worker, lease_ends, reply)
  return reply
end)
