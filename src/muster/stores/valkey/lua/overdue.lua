-- include: sessions
-- Find claims whose session or deadline ran out. Sessions that ran out and hold nothing are forgotten.
--
-- Arguments: how many at most.
-- Returns:   for each: entry in `jobs`, attempt, retries, worker, session, "session" or "deadline".
-- Reads:     sessions, held:*, deadlines, jobs, state:*
-- Writes:    sessions, session:*, members:*, unused

local limit = tonumber(ARGV[A])
local reply, found = {}, {}

local function add(id, why)
  if found[id] or #reply == limit then
    return
  end
  found[id] = true
  local attempt, retries, worker, session =
    unpack(call('HMGET', key('state:' .. id), 'attempt', 'retries', 'worker', 'session'))
  reply[#reply + 1] = { call('HGET', key('jobs'), id), attempt, retries, worker, session, why }
end

for _, session in ipairs(call('ZRANGE', key('sessions'), '-inf', NOW, 'BYSCORE', 'LIMIT', 0, limit)) do
  local held = call('ZRANGE', key('held:' .. session), 0, limit - 1)
  if #held == 0 then
    forget_session(session)
  end
  for _, id in ipairs(held) do
    add(id, 'session')
  end
end
for _, id in ipairs(call('ZRANGE', key('deadlines'), '-inf', NOW, 'BYSCORE', 'LIMIT', 0, limit)) do
  add(id, 'deadline')
end
return reply
