-- Jobs that wait for their time or for others, and how they end if they never run.

local RESOLVED_AT_ONCE = 1000
local ABSENT_TOLD = 10

local function status_of(id)
  local text = call('HGET', K.states, id)
  if text then
    return string.match(text, '^[^|]*')
  end
  return call('HEXISTS', K.jobs, id) == 1 and 'pending' or nil
end

local ENDED = { completed = true, failed = true, timeout = true, cancelled = true }

-- Note what a job waits for; `needs` is "policy id id…" or "". Return how many it waits for, and the one that dooms it: it
-- ended badly, and the job wants it completed. One that is gone ended long ago.
local function wait_for(id, score, needs)
  local unmet, policy, seen = 0, nil, {}
  for word in string.gmatch(needs, '%S+') do
    if not policy then
      policy = word
    elseif not seen[word] then
      seen[word] = true
      local status = status_of(word)
      if status and not ENDED[status] then
        call('SADD', key('dependents:', word), id)
        unmet = unmet + 1
      elseif policy == 'fail' and status and status ~= 'completed' then
        return unmet, word
      end
    end
  end
  if unmet > 0 then
    call('ZADD', K.blocked, score, id)
    call('HSET', K.unmet, id, policy .. '|' .. unmet)
  end
  return unmet, nil
end

-- Return the jobs that are waited for, and exist neither here nor before them in this call.
local function missing(jobs)
  local here, absent = {}, {}
  for _, job in ipairs(jobs) do
    if not job.known and job.needs ~= '' then
      for id in string.gmatch(string.match(job.needs, ' .*'), '%S+') do
        if not here[id] and call('HEXISTS', K.jobs, id) == 0 then
          push(absent, id)
        end
      end
    end
    here[job.id] = true
  end
  return absent
end

-- Return a customer of whom more would wait than may, and how many wait now.
local function too_many(jobs)
  local new = {}
  for _, job in ipairs(jobs) do
    if not job.known and job.customer ~= '' then
      new[job.customer] = (new[job.customer] or 0) + 1
    end
  end
  for customer, more in pairs(new) do
    local most = limits_of(customer).waiting_max
    if most < NO_LIMIT then
      local waiting = count_of('open', customer) - count_of('running', customer)
      if waiting + more > most then
        return customer, waiting
      end
    end
  end
end

-- Return why new jobs cannot be taken, as submit.lua says it: none of them, or all.
local function refusal_of(jobs)
  local absent = missing(jobs)
  if #absent > 0 then
    return { -1, unpack(absent, 1, math.min(#absent, ABSENT_TOLD)) }
  end
  local customer, waiting = too_many(jobs)
  if customer then
    return { -2, customer, waiting }
  end
end

local function stop_waiting(id)
  call('ZREM', K.blocked, id)
  call('HDEL', K.unmet, id)
end

-- Let a job that waits for nobody go on: into line, or until its time has come. Changes its state.
local function let_go(state)
  if state.due ~= '' and tonumber(state.due) > NOW then
    call('ZADD', K.delayed, state.due, state.id)
  else
    state.due = ''
    put_back(state)
  end
end

-- Take a pending job out of wherever it waits; return its customer.
local function leave(state)
  if call('HEXISTS', K.unmet, state.id) == 1 then
    stop_waiting(state.id)
  elseif state.due ~= '' then
    call('ZREM', K.delayed, state.id)
  else
    local _, _, customer = leave_line(state)
    return customer
  end
  local _, _, _, _, customer = header(call('HGET', K.jobs, state.id))
  return customer
end

-- End a job that has left its place and does not run.
local function end_unstarted(state, customer, status, error)
  state.status, state.ended = status, NOW_TEXT
  state.worker, state.session, state.avoid, state.due = '', '', '', ''
  write_states({ state })
  call('ZADD', key('in:', status), NOW_TEXT, state.id)
  if error then
    call('HSET', K.errors, state.id, error)
  end
  if customer ~= '' then
    count('open', customer, -1)
  end
end

-- Fail a job because of another one.
local function doom(state, customer, because)
  end_unstarted(state, customer, 'failed', '{"code":"dependency_failed","message":"job ' .. because
    .. ', which it depends on, ended as ' .. (status_of(because) or 'unknown') .. '","retriable":false}')
  tell('job_failed', { state.id }, nil, nil, { 'dependency_failed' })
  close_steps({ state.id }, { 'failed' })
end

-- A job has ended on which others wait: tell one of them. Whoever ends by it has dependents of its own.
local function tell_dependent(id, of)
  local policy, unmet = string.match(call('HGET', K.unmet, id) or '', '^(%a+)|(%d+)$')
  if not policy then
    return  -- it waits no more
  end
  if policy == 'fail' and status_of(of) ~= 'completed' then
    stop_waiting(id)
    local _, _, _, _, customer = header(call('HGET', K.jobs, id))
    doom(read_state(id), customer, of)
    if call('EXISTS', key('dependents:', id)) == 1 then
      call('RPUSH', K.resolving, id)
    end
  elseif unmet == '1' then
    stop_waiting(id)
    local state = read_state(id)
    let_go(state)
    write_states({ state })
  else
    call('HSET', K.unmet, id, policy .. '|' .. unmet - 1)
  end
end

-- Tell some of those who wait for jobs that have ended; return how many. The rest is for the next call, or the sweep.
local function resolve(most)
  local told = 0
  while told < most do
    local ended = call('LINDEX', K.resolving, '0')
    if not ended then
      break
    end
    local ids = call('SPOP', key('dependents:', ended), most - told)
    if #ids == 0 then
      call('LPOP', K.resolving)
    end
    table.sort(ids, before)
    for _, id in ipairs(ids) do
      tell_dependent(id, ended)
    end
    told = told + #ids
  end
  return told
end

-- These jobs have ended: whoever waits for them goes on or ends.
local function tell_dependents(ids)
  if call('EXISTS', K.unmet) == 0 then
    return
  end
  for _, id in ipairs(ids) do
    if call('EXISTS', key('dependents:', id)) == 1 then
      call('RPUSH', K.resolving, id)
    end
  end
  resolve(RESOLVED_AT_ONCE)
end
