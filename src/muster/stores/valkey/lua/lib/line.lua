-- The line of waiting jobs: how a job gets into it and out of it.

local BAND = 2 ^ 46  -- scores of one priority; the same as in jobs/order.py
local STEP = 100
local CLOCK = '*|'  -- before the band, of the member of `tags` that is no customer's

-- Return timeout, signature, score, workflow, customer and deadline of a job's entry in `jobs`.
local function header(entry)
  return string.match(entry, '^(%d+)|([^|]*)|(%d+)|([^|]*)|([^|]*)|(%d*)|')
end

-- Return timeout, signature and customer of an entry, which is what a claim needs: fields of known lengths are cut out,
-- for less than a pattern costs.
local function brief(entry)
  local bar = string.find(entry, '|', 1, true)
  local workflow = string.find(entry, '|', bar + DIGEST + 2, true) + 1  -- where it begins
  local customer = (string.byte(entry, workflow) == BAR and workflow or workflow + DIGEST) + 1
  return string.sub(entry, 1, bar - 1), string.sub(entry, bar + 1, bar + DIGEST),
    string.byte(entry, customer) == BAR and '' or string.sub(entry, customer, customer + DIGEST - 1)
end

local band_names = {}  -- by number; there is one for each priority

local function band_of(score)
  local number = math.floor(score / BAND)
  local name = band_names[number]
  if not name then
    name = int(number)
    band_names[number] = name
  end
  return name
end

local band_at = {}  -- band by the first score of it; there is one for each priority

-- Return the band that begins at this score.
local function band_from(base)
  local band = band_at[base]
  if not band then
    band = band_of(base)
    if math.fmod(base, BAND) == 0 then
      band_at[base] = band
    end
  end
  return band
end

local function step_of(customer)
  return customer == '' and STEP or STEP / limits_of(customer).weight
end

-- Return the virtual time of a customer's last job in a band, or that of the band where it is later. That of no
-- customer was kept in `tags` too, by versions that did not have `places`.
local function time_of(customer, band)
  local found = call('ZMSCORE', K.tags, customer .. '|' .. band, CLOCK .. band)
  return math.max(tonumber(found[1] or 0), math.fmod(found[2] or 0, BAND))
end

-- Return the place of a customer's next job in a band, and count it: the rule is in jobs/order.py. `tags` gathers what
-- is to be written.
local function next_place(tags, customer, band)
  local field = customer .. '|' .. band
  local last = tags[field]
  if not last then
    last = customer == '' and tonumber(call('HGET', K.places, band)) or time_of(customer, band)
  end
  local tag = last + step_of(customer)
  tags[field] = tag
  return math.floor(tag)
end

-- Return the place of the next job of no customer in a band, and count it at once: one command, but for the very first.
local function take_place(band)
  local place = call('HINCRBY', K.places, band, STEP)
  if place == STEP then
    place = time_of('', band) + STEP
    call('HSET', K.places, band, int(place))
  end
  return place
end

-- The job is none that needs the place which it was given last.
local function give_place_back(tags, customer, band)
  local field = customer .. '|' .. band
  tags[field] = tags[field] - step_of(customer)
end

local function write_tags(tags)
  for field, tag in pairs(tags) do
    if string.byte(field) == BAR then  -- of no customer
      call('HSET', K.places, string.sub(field, 2), int(tag))
    else
      call('ZADD', K.tags, tag == math.floor(tag) and int(tag) or string.format('%.17g', tag), field)
    end
  end
end

-- A job was claimed: the time of its band is its place, unless it was later. Only jobs of customers can bring it past
-- those of no customer.
local function set_clock(score, of_customer)
  local band = band_of(score)
  call('ZADD', K.tags, 'GT', score, CLOCK .. band)
  if of_customer then
    local place, last = math.fmod(score, BAND), call('HGET', K.places, band)
    if last and place > tonumber(last) then
      call('HSET', K.places, band, int(place))
    end
  end
end

-- --- queues ---------------------------------------------------------------------------------------------------------

-- Return signature and customer of a queue.
local function parts_of(queue)
  if #queue == DIGEST then
    return queue, ''
  end
  return string.match(queue, '^([^@!]*)@?([^!]*)')
end

-- Return the queue of a customer's jobs.
local function queue_of(signature, customer)
  if customer ~= '' and call('HEXISTS', K.special, customer) == 1 then
    return signature .. '@' .. customer
  end
  return signature
end

local function is_variant(queue)
  return #queue > DIGEST
end

-- Note a variant that has jobs now.
local function note_variant(queue)
  local _, customer = parts_of(queue)
  call('SADD', K.variants, queue)
  if customer ~= '' then
    call('SADD', key('at:', customer), queue)
  end
end

-- Forget a variant that has no jobs left.
local function drop_if_empty(queue)
  if is_variant(queue) and call('EXISTS', key('p:', queue)) == 0 then
    local _, customer = parts_of(queue)
    call('SREM', K.variants, queue)
    if customer ~= '' then
      call('SREM', key('at:', customer), queue)
    end
  end
end

local function head_of(queue)
  return call('ZRANGE', key('p:', queue), '0', '0', 'WITHSCORES')[2]
end

local function is_paused(signature)
  if call('EXISTS', K.paused) == 0 then
    return false
  end
  local service = call('HGET', K.service_of, signature) or ''
  return call('SISMEMBER', K.paused, '*') == 1 or call('SISMEMBER', K.paused, service) == 1
end

-- Whether a class that can run the signature does not take jobs of this customer; "": of those who are not special.
local function refuses(class, customer)
  return call('SISMEMBER', key('refuses:', class), customer == '' and '-' or customer) == 1
end

-- Return the classes that can run the jobs of a queue.
local function classes_for(signature, customer)
  local classes = call('SMEMBERS', key('able:', signature))
  if call('EXISTS', K.refusing) == 0 then
    return classes
  end
  local fit = {}
  for _, class in ipairs(classes) do
    if not refuses(class, customer) then
      push(fit, class)
    end
  end
  return fit
end

-- Whether anybody who is there can run the jobs of a queue.
local function is_served(queue)
  for _, class in ipairs(classes_for(parts_of(queue))) do
    if call('EXISTS', key('members:', class)) == 1 then
      return true
    end
  end
  return false
end

-- A queue has a new head: enter it into the ready index of every class that can run it, and wake those that wait.
local function offer(queue, score)
  local signature, customer = parts_of(queue)
  if is_paused(signature) or (customer ~= '' and room_of(customer) <= 0) then
    return
  end
  local someone_waits = call('EXISTS', K.idle) == 1
  for _, class in ipairs(classes_for(signature, customer)) do
    call('ZADD', key('ready:', class), 'LT', score, queue)
    if someone_waits and call('SREM', K.idle, class) == 1 then
      call('PUBLISH', K['bus:wake'], class)
    end
  end
end

-- Offer the queues again, once what kept them from being claimed is over.
local function reopen(queues)
  for _, queue in ipairs(queues) do
    local head = head_of(queue)
    if head then
      offer(queue, head)
    end
  end
end

-- More jobs of a customer may run than before.
local function make_room(customer)
  ROOMS[customer] = nil
  reopen(call('SMEMBERS', key('at:', customer)))
end

-- Jobs of a customer run no more.
local function leave_running(customer, jobs)
  local now = count('running', customer, -jobs)
  local most = limits_of(customer).running_max
  ROOMS[customer] = nil
  if now < most and now + jobs >= most then
    make_room(customer)
  end
end

-- --- jobs -----------------------------------------------------------------------------------------------------------

-- Put a job into a queue and so into line.
local function place_one(queue, score, id)
  local line = key('p:', queue)
  call('ZADD', line, score, id)
  call('ZADD', K.pending, score, id)
  if is_variant(queue) then
    note_variant(queue)
  end
  if call('ZRANGE', line, '0', '0')[1] == id then  -- a new head
    offer(queue, score)
  end
end

-- Put jobs into a queue and so into line; `members` is score, id, score, id…
local function place(queue, members)
  local line, first = key('p:', queue), 1
  for at = 3, members.n or #members, 2 do
    local ahead = members[at] - members[first]
    if ahead < 0 or (ahead == 0 and before(members[at + 1], members[first + 1])) then
      first = at
    end
  end
  bulk('ZADD', line, members)
  bulk('ZADD', K.pending, members)
  if is_variant(queue) then
    note_variant(queue)
  end
  if call('ZRANGE', line, '0', '0')[1] == members[first + 1] then  -- a new head
    offer(queue, members[first])
  end
end

-- Whether a live session of another worker can run it. A sample of each class will do: a worker that is taken for the
-- only one merely gets its retry sooner.
local function others_can_run(signature, customer, worker)
  for _, class in ipairs(classes_for(signature, customer)) do
    for _, session in ipairs(call('SRANDMEMBER', key('members:', class), 8)) do
      local other = read_session(session)
      if other.worker ~= worker and other.ends > NOW then
        return true
      end
    end
  end
  return false
end

-- Give a job its place that waited for its time since it was submitted: it comes now.
local function find_place(id, entry)
  local timeout, signature, base, workflow, customer, deadline = header(entry)
  local tags = {}
  local score = int(base + next_place(tags, customer, band_of(base)))
  write_tags(tags)
  local front = timeout .. '|' .. signature .. '|' .. base .. '|' .. workflow .. '|' .. customer .. '|' .. deadline .. '|'
  local spec = string.sub(entry, #front + 1)
  call('HSET', K.jobs, id,
    timeout .. '|' .. signature .. '|' .. score .. '|' .. workflow .. '|' .. customer .. '|' .. deadline .. '|' .. spec)
  return score
end

-- Put a job in its place in line, leaving out its avoided worker while others can run it. Changes its state, which
-- whoever calls writes.
local function put_back(state)
  local entry = call('HGET', K.jobs, state.id)
  local _, signature, score, _, customer = header(entry)
  if math.fmod(score, BAND) == 0 then
    score = find_place(state.id, entry)
  end
  local queue = queue_of(signature, customer)
  if state.avoid ~= '' and others_can_run(signature, queue == signature and '' or customer, state.avoid) then
    queue = queue .. '!' .. state.avoid
    call('ZADD', K.avoiding, NOW + AVOID_MS, state.id)
  else
    state.avoid = ''
  end
  place_one(queue, score, state.id)
end

-- Take one waiting job out of the line; return signature, score and customer. Its entry in the ready index stays: a claim
-- will correct it.
local function leave_line(state)
  local _, signature, score, _, customer = header(call('HGET', K.jobs, state.id))
  local suffix = state.avoid == '' and '' or '!' .. state.avoid
  local queue = queue_of(signature, customer) .. suffix
  if call('ZREM', key('p:', queue), state.id) == 0 then  -- its customer has become special since
    queue = signature .. suffix
    call('ZREM', key('p:', queue), state.id)
  end
  call('ZREM', K.pending, state.id)
  call('ZREM', K.avoiding, state.id)
  drop_if_empty(queue)
  return signature, score, customer
end
