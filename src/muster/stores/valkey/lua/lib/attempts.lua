-- How attempts end.
--
-- A settlement is {id, attempt, status, kind of event, counts, retry_at, avoid, result, error, code}, "" where there is
-- none, but "-" for no code. As arguments: id, attempt, status and then
--   completed:  the result
--   all others: kind of event, 1 if it counts as a retry, when to try again in ms, worker to avoid, result, error, code

local NO_CODE = '-'

-- Read settlements from the arguments: their number at `at`, and then they.
local function read_settlements(at)
  local settlements, first = {}, at + 1
  for n = 1, tonumber(ARGV[at]) do
    if ARGV[first + 2] == 'completed' then
      settlements[n] = {
        id = ARGV[first], attempt = ARGV[first + 1], status = 'completed', kind = 'job_completed',
        result = ARGV[first + 3], error = '', code = NO_CODE, state = false, worker = false,
      }
      first = first + 4
    else
      settlements[n] = {
        id = ARGV[first], attempt = ARGV[first + 1], status = ARGV[first + 2], kind = ARGV[first + 3],
        counts = ARGV[first + 4] == '1', retry_at = ARGV[first + 5], avoid = ARGV[first + 6],
        result = ARGV[first + 7], error = ARGV[first + 8], code = ARGV[first + 9], state = false, worker = false,
      }
      first = first + 10
    end
  end
  return settlements
end

local function ids_of(settlements)
  local ids = {}
  for n, s in ipairs(settlements) do
    ids[n] = s.id
  end
  return ids
end

-- Write one event for each kind and worker.
local function tell_of(settlements)
  if #settlements == 1 then
    local s = settlements[1]
    log(lines_of(s.kind, s.id, s.worker, s.attempt, s.code == NO_CODE and '' or s.code))
    return
  end
  local groups, order = {}, {}
  for _, s in ipairs(settlements) do
    local name = s.kind .. ' ' .. s.worker
    local group = groups[name]
    if group then
      push(group.ids, s.id)
      push(group.attempts, s.attempt)
      push(group.codes, s.code)
    else
      group = { kind = s.kind, worker = s.worker, ids = { s.id }, attempts = { s.attempt }, codes = { s.code } }
      groups[name] = group
      push(order, group)
    end
    group.coded = group.coded or s.code ~= NO_CODE
  end
  for _, group in ipairs(order) do
    tell(group.kind, group.ids, group.worker, group.attempts, group.coded and group.codes or nil)
  end
end

-- The attempt is over and the job goes on: back into line at once, or when its time has come. Return its new state.
local function go_on(s)
  local state = whole(front_of(s.id, s.state.status .. s.state.tail))
  state.status, state.started, state.timeout, state.avoid = 'pending', '', '', s.avoid
  state.signature, state.customer = '', ''
  if s.counts then
    state.retries = int(state.retries + 1)
  end
  if tonumber(s.retry_at) > NOW then
    state.due = s.retry_at
    call('ZADD', K.delayed, s.retry_at, s.id)
  else
    put_back(state)
  end
  return text_of(state)
end

-- Keep the counts of customers and workflows right after attempts have ended, and tell those who wait for what has.
local function count_ends(settlements)
  local running, open = NONE, NONE
  for _, s in ipairs(settlements) do
    local customer = customer_of(s.state.tail)
    if customer then
      if running == NONE then
        running, open = {}, {}
      end
      running[customer] = (running[customer] or 0) + 1
      if s.status ~= 'pending' then
        open[customer] = (open[customer] or 0) + 1
      end
    end
  end
  for customer, jobs in pairs(running) do
    leave_running(customer, jobs)
  end
  for customer, jobs in pairs(open) do
    count('open', customer, -jobs)
  end
  if call('EXISTS', K.step_of, K.unmet) > 0 then
    local ended, statuses = {}, {}
    for _, s in ipairs(settlements) do
      if s.status ~= 'pending' then
        push(ended, s.id)
        push(statuses, s.status)
      end
    end
    close_steps(ended, statuses)
    tell_dependents(ended)
  end
end

-- End the running attempts that `settlements` speak of. Whoever calls has checked that they run, and added the session,
-- the worker, and the state as {status, tail}.
local function end_attempts(settlements)
  if #settlements == 0 then
    return
  end
  local batch = batch_for(#settlements)
  for _, s in ipairs(settlements) do
    put(batch, 'SREM', key('held:', s.session), s.id)
    put(batch, 'ZREM', key('in:', s.state.status), s.id)
    if s.status == 'pending' then
      put(batch, 'HSET', K.states, s.id, go_on(s))
      put(batch, 'HDEL', K.progress, s.id)
    else
      put(batch, 'HSET', K.states, s.id, ended_text(s.state, s.status))
      put(batch, 'ZADD', key('in:', s.status), NOW_TEXT, s.id)
    end
    if s.result ~= '' then
      put(batch, 'HSET', K.states, RESULT .. s.id, s.result)
    end
    if s.error ~= '' then
      put(batch, 'HSET', K.errors, s.id, s.error)
    elseif s.status ~= 'pending' and s.attempt ~= '1' then
      put(batch, 'HDEL', K.errors, s.id)  -- of an attempt before
    end
  end
  write(batch)
  tell_of(settlements)
  count_ends(settlements)
end

-- Put running jobs back as if the attempts had not been; return their ids.
local function return_jobs(states)
  local settlements, ids = {}, {}
  for n, state in ipairs(states) do
    ids[n] = state.id
    settlements[n] = {
      id = state.id, attempt = state.attempt, status = 'pending', kind = 'job_returned', counts = false,
      retry_at = '0', avoid = '', result = '', error = '', code = NO_CODE, state = state, worker = state.worker,
      session = state.session,
    }
  end
  end_attempts(settlements)
  return ids
end
