-- Store new jobs and put them in line, or where they wait for their time or for others. An id that is known changes
-- nothing.
--
-- Arguments: how many, 1 if admit.lua has let them in, then for each: signature, score without the place, timeout in ms,
--            id, what few jobs have or "", specification as JSON. What few have is "workflow|customer|time before which
--            it is not in line in ms|deadline in ms from now|what it waits for (see lib/waits.lua)|name of the workflow
--            if its end is to be told", "" where there is none.
-- Returns:   {1, then 1 (new) or 0 (known) for each}, or when nothing was done: {0, unknown signatures…}: they have to be
--            added first; {-1, ids…}: jobs that are waited for and do not exist; {-2, customer, how many wait}: too many
-- Reads:     signatures, jobs, states, able:*, p:*, customers, special
-- Writes:    jobs, states, tags, workflows, workflow_uses, customer_uses, open, uses, p:*, pending, delayed, blocked,
--            unmet, dependents:*, deadlines, variants, at:*, ready:*, idle, places, before:*, in:failed, errors, step_of,
--            open_steps, bad_steps, workflow_names, log

local FIELDS = 6
local RARE = '^([^|]*)|([^|]*)|(%d*)|(%d*)|([^|]*)|(.*)$'

-- Read the jobs from the arguments. `jobs.ask` says whether any may be refused. Of a plain job it is not asked whether it
-- is known: to store it tells.
local function read_jobs(count)
  local jobs, seen = {}, {}
  for n = 1, count do
    local at = A + 2 + (n - 1) * FIELDS
    local signature, base, timeout, id, rare, spec = unpack(ARGV, at, at + FIELDS - 1)
    local job = {
      signature = signature, base = base, timeout = timeout, id = id, spec = spec, known = seen[id], plain = rare == '',
      workflow = '', customer = '', due = '', deadline = '', needs = '', told = '',
    }
    if not job.plain then
      job.workflow, job.customer, job.due, job.deadline, job.needs, job.told = string.match(rare, RARE)
      job.due = job.due ~= '' and tonumber(job.due) > NOW and job.due or ''
      job.known = job.known or call('HEXISTS', K.jobs, id) == 1
      jobs.ask = jobs.ask or job.needs ~= '' or job.customer ~= ''
    end
    jobs[n], seen[id] = job, true
  end
  return jobs
end

-- Count the uses of signatures; return how many are new, how many there were before, and the signatures that are unknown:
-- one that is in use is known.
local function add_uses(jobs)
  local uses, before, unknown = {}, {}, {}
  for _, job in ipairs(jobs) do
    if not job.known then
      uses[job.signature] = (uses[job.signature] or 0) + 1
    end
  end
  for signature, jobs_of in pairs(uses) do
    before[signature] = call('HINCRBY', K.uses, signature, jobs_of) - jobs_of
    if before[signature] == 0 and call('HEXISTS', K.signatures, signature) == 0 then
      push(unknown, signature)
    end
  end
  return uses, before, unknown
end

local function take_back(uses)
  for signature, jobs_of in pairs(uses) do
    count('uses', signature, -jobs_of)
  end
end

-- Return the score of a new job. One that waits for its time gets its place when that has come; jobs of one workflow and
-- priority share the place of the first of them, so that they stay together.
local function score_of(job, tags)
  if job.workflow ~= '' then
    local band = band_from(job.base)
    local field = job.workflow .. '|' .. band
    call('HSETNX', K.workflows, field, int(next_place(tags, job.customer, band)))
    call('HINCRBY', K.workflow_uses, job.workflow, 1)
    return int(job.base + call('HGET', K.workflows, field))
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
    call('ZADD', K.delayed, job.due, job.id)
  end
  return because
end

-- Store a new job; return false if it is known.
local function store(job, score)
  local entry = job.timeout .. '|' .. job.signature .. '|' .. score .. '|' .. job.workflow .. '|' .. job.customer .. '|'
    .. job.deadline .. '|' .. job.spec
  if call('HSETNX', K.jobs, job.id, entry) == 0 then
    return false
  end
  if job.customer ~= '' then
    call('HINCRBY', K.open, job.customer, 1)
    call('HINCRBY', K.customer_uses, job.customer, 1)
  end
  if job.deadline ~= '' then
    call('ZADD', K.deadlines, NOW + job.deadline, job.id)
  end
  if job.told ~= '' then
    open_step(job.id, job.workflow, job.told)
  end
  return true
end

local BEFORE_KEPT_S = 900
local MINUTE_MS = 60000
local TENS = 9  -- digits of a time in ms that say which ten seconds it is in, and so the minute

local minute, tens, noted, noted_for = nil, nil, nil, nil  -- noted: signatures, in this minute

-- A signature had so many uses before, at a time that begins `now`: note it if that was the first of this minute, for the
-- rates. A server that has lost its data knows nothing of what was noted; there are no uses then either.
local function note_uses(signature, before, now)
  local front = string.sub(now, 1, TENS)
  if front ~= tens or noted_for ~= K then
    local of = math.floor(string.match(now, '^%d+') / MINUTE_MS)
    if of ~= minute or noted_for ~= K then
      minute, noted, noted_for = of, {}, K
    end
    tens = front
  end
  if before == 0 or not noted[signature] then
    noted[signature] = true
    local name = key('before:', minute)
    call(before == 0 and 'HSET' or 'HSETNX', name, signature, before)  -- another library may have been faster
    call('EXPIRE', name, BEFORE_KEPT_S)
  end
end

-- Note what came in this minute, by signature.
local function note_all(uses, before)
  for signature, jobs in pairs(uses) do
    if jobs > 0 then
      note_uses(signature, before[signature], NOW_TEXT)
    end
  end
end

-- Store the jobs that are new and put them where they wait. Returns for each whether it is new, the ids of those, and
-- those that fail by another one.
local function store_all(jobs, uses)
  local reply, created, queues, tags, doomed = { 1 }, {}, {}, {}, {}
  for n, job in ipairs(jobs) do
    local score = not job.known and score_of(job, tags)
    if score and store(job, score) then
      reply[n + 1] = 1
      push(created, job.id)
      local because = settle_in(job, score, queues)
      if because then
        push(doomed, { job = job, because = because })
      end
    else
      reply[n + 1] = 0
      if score then  -- only now it is seen
        give_place_back(tags, job.customer, band_from(job.base))
        uses[job.signature] = uses[job.signature] - 1
        count('uses', job.signature, -1)
      end
    end
  end
  write_tags(tags)
  for queue, members in pairs(queues) do
    place(queue, members)
  end
  return reply, created, doomed
end

define('submit', function()
  local jobs = read_jobs(tonumber(ARGV[A]))
  local uses, before, unknown = add_uses(jobs)
  if #unknown > 0 then
    take_back(uses)
    return { 0, unpack(unknown) }
  end
  local refusal = jobs.ask and ARGV[A + 1] ~= '1' and refusal_of(jobs)
  if refusal then
    take_back(uses)
    return refusal
  end
  local reply, created, doomed = store_all(jobs, uses)
  note_all(uses, before)
  tell('job_submitted', created)
  for _, entry in ipairs(doomed) do
    doom(read_state(entry.job.id), entry.job.customer, entry.because)
    tell_dependents({ entry.job.id })
  end
  return reply
end)

local KINDS_MAX = 1024

local kinds, kinds_known = {}, 0

-- Return what the first argument of the short way says: few say different things, and to take it apart costs as much as a
-- command.
local function kind_of(text)
  local kind = kinds[text]
  if not kind then
    local front, signature, base = string.match(text, '^(%d+|([^|]*)|)(%d+)$')
    kind = { front = front, signature = signature, base = tonumber(base), band = band_of(base) }
    if kinds_known == KINDS_MAX then
      kinds, kinds_known = {}, 0
    end
    kinds[text], kinds_known = kind, kinds_known + 1
  end
  return kind
end

-- The short way, in as few commands as can be, for what most submits are: one job that has nothing of what few jobs have.
-- It does not ask for the time: the log tells it.
--
-- Arguments: "timeout in ms|signature|score without the place", id, specification as JSON.
-- Returns:   1 (new), 0 (known), or -1: the signature is unknown, and nothing was done.
-- Reads:     as above, of what such a job needs
-- Writes:    uses, places, jobs, p:*, pending, ready:*, idle, before:*, log
define_untimed('submit_one', function()
  local kind, id, spec = kind_of(ARGV[A]), ARGV[A + 1], ARGV[A + 2]
  local signature, band = kind.signature, kind.band
  local uses = call('HINCRBY', K.uses, signature, '1')
  if uses == 1 and call('HEXISTS', K.signatures, signature) == 0 then
    count('uses', signature, -1)
    return -1
  end
  local score = int(kind.base + take_place(band))
  if call('HSETNX', K.jobs, id, kind.front .. score .. '||||' .. spec) == 0 then
    count('uses', signature, -1)
    call('HINCRBY', K.places, band, -STEP)
    return 0
  end
  place_one(signature, score, id)
  local entry = log(lines_of('job_submitted', id, '', '', ''))
  note_uses(signature, uses - 1, NOW_TEXT ~= '' and NOW_TEXT or entry)
  return 1
end)
