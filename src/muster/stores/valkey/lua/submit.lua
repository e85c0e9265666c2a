-- Store new jobs and put them in line, or where they wait for their time or for others. An id that is known changes
-- nothing.
--
-- Arguments: how many, 1 if admit.lua has let them in, then for each: signature, score without the place, workflow or "",
--            timeout in ms, id, customer or "", time before which it is not in line in ms or "", deadline in ms from now
--            or "", what it waits for (see lib/waits.lua) or "", name of the workflow if its end is to be told or "",
--            specification as JSON.
-- Returns:   {1, then 1 (new) or 0 (known) for each}, or when nothing was done: {0, unknown signatures…}: they have to be
--            added first; {-1, ids…}: jobs that are waited for and do not exist; {-2, customer, how many wait}: too many
-- Reads:     signatures, jobs, states, able:*, p:*, customers, special, virtual
-- Writes:    jobs, states, tags, workflows, workflow_uses, customer_uses, open, uses, p:*, pending, delayed, blocked,
--            unmet, dependents:*, deadlines, variants, at:*, ready:*, idle, rates:*, in:failed, errors, step_of,
--            open_steps, bad_steps, workflow_names, log

local FIELDS = 11

-- Read the jobs from the arguments; `jobs.wait` and `jobs.have_customers` say what has to be looked at at all.
local function read_jobs(count)
  local jobs, seen = {}, {}
  for n = 1, count do
    local at = A + 2 + (n - 1) * FIELDS
    local signature, base, workflow, timeout, id, customer, due, deadline, needs, told, spec =
      unpack(ARGV, at, at + FIELDS - 1)
    jobs[n] = {
      signature = signature, base = base, workflow = workflow, timeout = timeout, id = id, customer = customer, due = due,
      deadline = deadline, needs = needs, told = told, spec = spec, known = seen[id] or call('HEXISTS', key('jobs'), id) == 1,
    }
    seen[id] = true
    jobs.wait = jobs.wait or needs ~= ''
    jobs.have_customers = jobs.have_customers or customer ~= ''
  end
  return jobs
end

local function unknown_signatures(jobs)
  local known, unknown = {}, {}
  for _, job in ipairs(jobs) do
    local signature = job.signature
    if known[signature] == nil then
      known[signature] = call('HEXISTS', key('signatures'), signature) == 1
      if not known[signature] then
        push(unknown, signature)
      end
    end
  end
  return unknown
end

-- Return the score of a new job. One that waits for its time gets its place when that has come; jobs of one workflow and
-- priority share the place of the first of them, so that they stay together.
local function score_of(job, tags)
  if job.workflow ~= '' then
    local band = band_from(job.base)
    local field = job.workflow .. '|' .. band
    call('HSETNX', key('workflows'), field, int(next_place(tags, job.customer, band)))
    call('HINCRBY', key('workflow_uses'), job.workflow, 1)
    return int(job.base + call('HGET', key('workflows'), field))
  elseif job.due ~= '' then
    return job.base
  end
  return int(job.base + next_place(tags, job.customer, band_from(job.base)))
end

-- Put a job where it waits: into `queues`, or for its time or others. Return the job that it fails by, if any.
local function settle_in(job, score, queues)
  local unmet, because = 0, nil
  if job.needs ~= '' then
    unmet, because = wait_for(job.id, score, job.needs)
  end
  if unmet == 0 and job.due == '' and not because then
    file(queues, queue_of(job.signature, job.customer), score, job.id)
    return nil
  end
  local state = whole(front_of(job.id))
  state.due = job.due
  write_states({ state })
  if unmet == 0 and not because then
    call('ZADD', key('delayed'), job.due, job.id)
  end
  return because
end

local function store(job, tags, queues)
  local score = score_of(job, tags)
  call('HSET', key('jobs'), job.id, job.timeout .. '|' .. job.signature .. '|' .. score .. '|' .. job.workflow .. '|'
    .. job.customer .. '|' .. job.deadline .. '|' .. job.spec)
  if job.customer ~= '' then
    call('HINCRBY', key('open'), job.customer, 1)
    call('HINCRBY', key('customer_uses'), job.customer, 1)
  end
  if job.deadline ~= '' then
    call('ZADD', key('deadlines'), NOW + job.deadline, job.id)
  end
  if job.told ~= '' then
    open_step(job.id, job.workflow, job.told)
  end
  return settle_in(job, score, queues)
end

local RATES_KEPT_S = 900
local MINUTE_MS = 60000

local minute, minute_starts = nil, nil

-- Return the number of this minute as text.
local function this_minute()
  if not minute or NOW < minute_starts or NOW >= minute_starts + MINUTE_MS then
    local number = math.floor(NOW / MINUTE_MS)
    minute, minute_starts = int(number), number * MINUTE_MS
  end
  return minute
end

-- Count what came in this minute, by signature.
local function count_submitted(uses)
  local name = key('rates:', this_minute())
  for signature, jobs in pairs(uses) do
    if call('HINCRBY', name, signature, jobs) == jobs then  -- perhaps the first of this minute
      call('EXPIRE', name, RATES_KEPT_S)
    end
  end
end

define('submit', function()
  local jobs = read_jobs(tonumber(ARGV[A]))
  local unknown = unknown_signatures(jobs)
  if #unknown > 0 then
    return { 0, unpack(unknown) }
  end
  local refusal = ARGV[A + 1] ~= '1' and (jobs.wait or jobs.have_customers) and refusal_of(jobs)
  if refusal then
    return refusal
  end
  local reply, created, queues, tags, uses, doomed = { 1 }, {}, {}, {}, {}, {}
  for n, job in ipairs(jobs) do
    reply[n + 1] = job.known and 0 or 1
    if not job.known then
      job.due = job.due ~= '' and tonumber(job.due) > NOW and job.due or ''
      local because = store(job, tags, queues)
      if because then
        push(doomed, { job = job, because = because })
      end
      uses[job.signature] = (uses[job.signature] or 0) + 1
      push(created, job.id)
    end
  end
  write_tags(tags)
  for signature, jobs_of in pairs(uses) do
    call('HINCRBY', key('uses'), signature, jobs_of)
  end
  count_submitted(uses)
  for queue, members in pairs(queues) do
    place(queue, members)
  end
  tell('job_submitted', created)
  for _, entry in ipairs(doomed) do
    doom(read_state(entry.job.id), entry.job.customer, entry.because)
    tell_dependents({ entry.job.id })
  end
  return reply
end)
