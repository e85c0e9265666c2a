-- Look at all services that have had jobs lately.
--
-- Arguments: how many minutes of rates to add up.
-- Returns:   {services paused…}, over how many ms the rates are, then for each service: name, jobs in line, those of them
--            that nobody can run, jobs that run, submitted, completed, failed,
--            {the first job of each priority…}
-- Reads:     paused, service_of, variants, p:*, in:*, states, rates:*

-- Return the service of each signature, and a fresh count for each service.
local function tables()
  local services, counts, order = {}, {}, {}
  local flat = call('HGETALL', key('service_of'))
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

local function count_running(services, counts)
  for _, status in ipairs(RUNNING) do
    for _, text in ipairs(read_texts(call('ZRANGE', key('in:', status), '0', '-1'))) do
      local signature = text and whose(front_of('', text).tail)
      local of = counts[services[signature] or '']
      if of then
        of.running = of.running + 1
      end
    end
  end
end

local function add_rates(minutes, services, counts)
  local now = math.floor(NOW / 60000)
  for minute = now - minutes + 1, now do
    local flat = call('HGETALL', key('rates:', minute))
    for at = 1, #flat, 2 do
      local signature, what = string.match(flat[at], '^([^|]*)|(.*)$')
      local of = counts[services[signature] or '']
      if of then
        of[what] = of[what] + flat[at + 1]
      end
    end
  end
end

define('queues', function()
  local services, counts, order = tables()
  local queues = call('SMEMBERS', key('variants'))
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
  count_running(services, counts)
  add_rates(tonumber(ARGV[A]), services, counts)
  local over = (tonumber(ARGV[A]) - 1) * 60000 + NOW % 60000 + 1
  local reply = { call('SMEMBERS', key('paused')), over }
  for _, service in ipairs(order) do
    local of, ids = counts[service], {}
    for _, head in pairs(of.heads) do
      push(ids, head.id)
    end
    push(reply, { service, of.waiting, of.unworkable, of.running, of.submitted, of.completed, of.failed, ids })
  end
  return reply
end, 'no-writes')
