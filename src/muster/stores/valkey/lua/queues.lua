-- Look at all services that have had jobs lately.
--
-- Arguments: over how many minutes rates are.
-- Returns:   {services paused…}, {over how many ms jobs submitted, completed and failed were counted}, then for each
--            service: name, jobs in line, those of them that nobody can run, jobs that run, submitted, completed, failed,
--            {the first job of each priority…}
-- Reads:     paused, service_of, variants, p:*, in:*, states, uses, before:*

local ENDED_MAX = 1000  -- of each kind, for rates: more are told by how fast these came

-- Return a reply of names and values as a table.
local function pairs_of(flat)
  local found = {}
  for at = 1, #flat, 2 do
    found[flat[at]] = flat[at + 1]
  end
  return found
end

-- Return the service of each signature, and a fresh count for each service.
local function tables()
  local services, counts, order = {}, {}, {}
  local flat = call('HGETALL', K.service_of)
  for at = 1, #flat, 2 do
    local service = flat[at + 1]
    services[flat[at]] = service
    if not counts[service] then
      counts[service] = { waiting = 0, unworkable = 0, running = 0, submitted = 0, completed = 0, failed = 0, heads = {} }
      push(order, service)
    end
  end
  return services, counts, order
end

-- Keep the first job of each priority of a queue, if it is the first of the service.
local function look_at_heads(queue, heads)
  local from = '-inf'
  while true do
    local found = call('ZRANGE', key('p:', queue), from, '+inf', 'BYSCORE', 'LIMIT', '0', '1', 'WITHSCORES')
    if not found[1] then
      return
    end
    local score = tonumber(found[2])
    local band = math.floor(score / BAND)
    if not heads[band] or score < heads[band].score then
      heads[band] = { id = found[1], score = score }
    end
    from = int((band + 1) * BAND)
  end
end

-- Count those jobs of a status by service, under a name.
local function count_states(ids, name, services, counts)
  for n, text in ipairs(read_texts(ids)) do
    local of = text and counts[services[whole(front_of(ids[n], text)).signature] or '']
    if of then
      of[name] = of[name] + 1
    end
  end
end

-- Count how many more uses each signature has than before its first job of these minutes. One that was forgotten and came
-- back began anew: then what was noted before is too high.
local function count_submitted(minutes, services, counts)
  local uses, now = pairs_of(call('HGETALL', K.uses)), math.floor(NOW / 60000)
  for minute = now - minutes + 1, now do
    for signature, before in pairs(pairs_of(call('HGETALL', key('before:', minute)))) do
      local of, all = counts[services[signature] or ''], tonumber(uses[signature])
      if of and all and all >= tonumber(before) then
        of.submitted = of.submitted + all - before
        uses[signature] = nil  -- counted
      end
    end
  end
end

-- Count the newest that ended; return over how many ms.
local function count_ended(status, name, span, services, counts)
  local newest = call('ZRANGE', key('in:', status), '+inf', int(NOW - span), 'BYSCORE', 'REV', 'LIMIT', '0', ENDED_MAX,
    'WITHSCORES')
  local ids = {}
  for at = 1, #newest, 2 do
    push(ids, newest[at])
  end
  count_states(ids, name, services, counts)
  return #ids == ENDED_MAX and math.max(1, NOW - newest[#newest]) or span
end

define('queues', function()
  local services, counts, order = tables()
  local queues = call('SMEMBERS', K.variants)
  for signature in pairs(services) do
    push(queues, signature)
  end
  for _, queue in ipairs(queues) do
    local of = counts[services[parts_of(queue)] or '']
    if of then
      local jobs = call('ZCARD', key('p:', queue))
      of.waiting = of.waiting + jobs
      if jobs > 0 then
        of.unworkable = of.unworkable + (is_served(queue) and 0 or jobs)
        look_at_heads(queue, of.heads)
      end
    end
  end
  for _, status in ipairs(RUNNING) do
    count_states(call('ZRANGE', key('in:', status), '0', '-1'), 'running', services, counts)
  end
  local minutes = tonumber(ARGV[A])
  count_submitted(minutes, services, counts)
  local over = {
    (minutes - 1) * 60000 + NOW % 60000 + 1,
    count_ended('completed', 'completed', minutes * 60000, services, counts),
    math.min(
      count_ended('failed', 'failed', minutes * 60000, services, counts),
      count_ended('timeout', 'failed', minutes * 60000, services, counts)
    ),
  }
  local reply = { call('SMEMBERS', K.paused), over }
  for _, service in ipairs(order) do
    local of, ids = counts[service], {}
    for _, head in pairs(of.heads) do
      push(ids, head.id)
    end
    push(reply, { service, of.waiting, of.unworkable, of.running, of.submitted, of.completed, of.failed, ids })
  end
  return reply
end, 'no-writes')
