-- How attempts end. Needs line.
--
-- A settlement is {id, attempt, status, kind of event, counts, retry_at, avoid, result, error, code, worker, session};
-- as arguments it is the first ten of them, "" where there is none.

local SETTLEMENT_ARGS = 10

-- Read `count` settlements from the arguments, starting at `at`.
local function read_settlements(at, count)
  local settlements = {}
  for n = 1, count do
    settlements[n] = {
      id = ARGV[at],
      attempt = ARGV[at + 1],
      status = ARGV[at + 2],
      kind = ARGV[at + 3],
      counts = ARGV[at + 4] == '1',
      retry_at = tonumber(ARGV[at + 5]) or 0,
      avoid = ARGV[at + 6],
      result = ARGV[at + 7],
      error = ARGV[at + 8],
      code = ARGV[at + 9],
    }
    at = at + SETTLEMENT_ARGS
  end
  return settlements, at
end

-- Write one event for each kind and worker.
local function tell_of(settlements)
  local groups, order = {}, {}
  for _, s in ipairs(settlements) do
    local name = s.kind .. ' ' .. s.worker
    local group = groups[name]
    if not group then
      group = { kind = s.kind, worker = s.worker, ids = {}, attempts = {}, codes = {} }
      groups[name] = group
      order[#order + 1] = group
    end
    local n = #group.ids + 1
    group.ids[n], group.attempts[n] = s.id, tonumber(s.attempt)
    group.codes[n] = s.code ~= '' and s.code or cjson.null
    group.coded = group.coded or s.code ~= ''
  end
  for _, group in ipairs(order) do
    tell(group.kind, group.ids, group.worker, group.attempts, group.coded and group.codes or nil)
  end
end

local function retry(s)
  local state = key('state:' .. s.id)
  call('HSET', state, 'status', 'pending')
  call('HDEL', state, 'started')
  call('DEL', key('progress:' .. s.id))
  if s.counts then
    call('HINCRBY', state, 'retries', 1)
  end
  if s.error ~= '' then
    call('SET', key('error:' .. s.id), s.error)
  end
  if s.avoid ~= '' then
    call('HSET', state, 'avoid', s.avoid)
  end
  if s.retry_at > NOW then
    call('HSET', state, 'due', int(s.retry_at))
    call('ZADD', key('delayed'), s.retry_at, s.id)
  else
    local signature, score = header(call('HGET', key('jobs'), s.id))
    put_back(s.id, signature, score, s.avoid ~= '' and s.avoid or nil)
  end
end

local function finish(s)
  call('HSET', key('state:' .. s.id), 'status', s.status, 'ended', int(NOW))
  if s.result ~= '' then
    call('SET', key('result:' .. s.id), s.result)
  end
  if s.error ~= '' then
    call('SET', key('error:' .. s.id), s.error)
  elseif s.attempt ~= '1' then
    call('DEL', key('error:' .. s.id))  -- of an attempt before
  end
end

-- End the running attempts that `settlements` speak of; whoever calls has checked that they run.
local function end_attempts(settlements)
  local ids, held, ended = {}, {}, {}
  for n, s in ipairs(settlements) do
    ids[n] = s.id
    held[s.session] = held[s.session] or {}
    table.insert(held[s.session], s.id)
  end
  for session, leases in pairs(held) do
    bulk('ZREM', 'held:' .. session, leases)
  end
  bulk('ZREM', 'deadlines', ids)
  bulk('ZREM', 'in:assigned', ids)
  bulk('ZREM', 'in:in_progress', ids)
  for _, s in ipairs(settlements) do
    if s.status == 'pending' then
      retry(s)
    else
      finish(s)
      ended[s.status] = ended[s.status] or {}
      table.insert(ended[s.status], NOW)
      table.insert(ended[s.status], s.id)
    end
  end
  for status, members in pairs(ended) do
    bulk('ZADD', 'in:' .. status, members)
  end
  tell_of(settlements)
end

-- Put leased jobs of one session back as if the attempts had not been; return their ids.
local function return_leases(session, worker, leases)
  local settlements, ids = {}, {}
  for n, lease in ipairs(leases) do
    ids[n] = lease.id
    settlements[n] = {
      id = lease.id, attempt = lease.attempt, status = 'pending', kind = 'job_returned', counts = false,
      retry_at = 0, avoid = '', result = '', error = '', code = '', worker = worker, session = session,
    }
  end
  end_attempts(settlements)
  return ids
end
