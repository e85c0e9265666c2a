-- What all functions of the library stand on. A library and not scripts: its helpers are made once, when it is loaded,
-- where every call of a script would make all of them anew; and a full server refuses a function before it has begun.
--
-- Arguments of every function (keys share the hash tag in the prefix, so that a call stays in one slot of a cluster):
--   KEYS[1]  prefix of all keys, "{muster}:"
--   ARGV[1]  "now in ms since the epoch|how many entries the event log keeps|how long a retry leaves out the worker that
--            failed it, in ms". Now is 0 for the server's own clock, one for all who hold leases
--   ARGV[2…] the function's own arguments, from A on
--
-- Keys (<…> is a part of the name):
--   jobs           hash  job id -> "timeout in ms|signature|score|workflow|customer|deadline in ms|specification as
--                        JSON". Workflows and customers stand here and elsewhere as digests of their names; "": none
--   states         hash  job id -> its state once it was claimed, see lib/states.lua; "=" and job id -> result, JSON
--   errors         hash  job id -> error of the last failed attempt, JSON
--   progress       hash  job id -> "at in ms|JSON"
--   p:<queue>      zset  waiting jobs of one queue by score. A queue is a signature, or a variant of it:
--                        "signature@customer" has the jobs of a special customer, "signature!worker" and
--                        "signature@customer!worker" retries that leave out that worker for a while
--   pending        zset  all jobs in line by score: the position in line, and pages of it
--   delayed        zset  job id -> when it may be in line: a retry, or one that was submitted for later
--   blocked        zset  job id -> score, of jobs that wait for others;  unmet: hash, job id -> "policy|how many"
--   dependents:<id> set  jobs that wait for this one, and some that do no more
--   resolving      list  ended jobs whose dependents have not all been told
--   deadlines      zset  job id -> when it must have ended; some have
--   avoiding       zset  job id -> until when it waits in a variant
--   variants       set   names of variants that have jobs;  at:<customer>: set, those of a special customer
--   tags           zset  "customer|band" -> virtual time of its last job;  "*|band" -> score of the job that was claimed
--                        and stands highest there. A band is a priority: all scores of it
--   places         hash  band -> virtual time of the last job of no customer, never below that of the band
--   customers      hash  customer -> "weight|most that run|most that wait|name";  customer_uses: hash, stored jobs
--   open, running  hashes  customer -> jobs that have not ended, jobs that run
--   special        hash  customer -> name, of those that some limit or some class treats unlike the others
--   refuses:<class> set  special customers whose jobs the class does not take, "-" for all who are not special
--   refusing       hash  classes that have such a set -> 1
--   paused         set   services of which nothing is claimed, "*": all
--   in:<status>    zset  job id -> start (assigned, in_progress) or end (completed, failed, timeout, cancelled)
--   sessions       hash  session -> "worker|class|end of its lease in ms"
--   held:<session> set   jobs that it has leased
--   looks          zset  session -> when to look at it next: never later than the end of its lease or the deadline of a
--                        job that it holds. So a renewal need not touch it
--   members:<class> set  sessions of a class
--   classes        hash  class -> capability as JSON;  unused: zset, class -> since when it has no session
--   signatures     hash  signature -> need as JSON;  uses, gone: hashes, signature -> how many jobs were stored with it
--                        since it is known, and how many of them were forgotten
--   service_of     hash  signature -> its service
--   before:<minute> hash signature -> its uses before its first job of that minute; kept for a while
--   able:<signature> set classes that can run it
--   ready:<class>  zset  queue -> score of its head, but for queues of paused services. May be too low, or of none, or
--                        of a customer of whom no more may run; a claim that meets such an entry corrects it. Never too
--                        high, never missing
--   matched        counter of changes to classes and signatures: whoever adds one has seen all of the others
--   idle           set   classes that want a message on channel bus:wake when work arrives
--   workflows      hash  "workflow|band" -> place shared by its jobs;  workflow_uses: hash, workflow -> stored jobs
--   step_of        hash  job id -> its workflow, of open jobs of the workflows whose ends are told
--   open_steps, bad_steps  hashes  workflow -> open jobs, jobs that ended otherwise than completed and were not repeated
--   workflow_names hash  workflow -> its name, where its ends are told
--   leases         hash  what only one control plane may do -> "end of its lease in ms|owner"
--   nodes          hash  node id -> record as JSON (not ours: stores/valkey/nodes.py)
--   tokens, tokens:used, tokens:uses   hashes  token id -> record, last use in ms, joins (stores/valkey/tokens.py)
--   usage:hour:<ms>, usage:day:<ms>  hashes  "figure|token|model" -> sum, of the hour or day that began then;
--   usage:hours, usage:days  zsets of those there are;  usage:batch:<batch>: what was added, for an hour
--   spent:<ms>     hash  "figure|token" -> what it had of the day or month that began then (stores/valkey/usage.py)
--   webhooks, webhooks:states  hashes  webhook id -> JSON (not ours: stores/valkey/webhooks.py)
--   webhooks:pending  hash  delivery id -> JSON, of what is to be sent;  webhooks:position: an id of the log
--   webhooks:jobs  since when jobs have addresses of their own, JSON
--   webhooks:ended:<webhook>  list of its newest deliveries that ended, JSON
--   files, batches, batches:cancels  hashes  id -> JSON, JSON, since when in ms (not ours: stores/valkey/batches.py)
--   commands       hash  command id -> "how it stands|record as JSON"
--   commands_ended zset  command id -> its end in ms, of those that ended
--   schedules      hash  schedule -> record as JSON;  schedules:next: zset, schedule -> when it is due in ms
--   schedules:last hash  schedule -> "time in ms|job" of its last job
--   stream:<id>    hash  of a kept answer: runner, lease (its end in ms), until (its own), size, read (when, in ms), end,
--                        opening;  stream_body:<id>: its body. Both expire
--   streams        zset  kept answer -> its end in ms;  stream_bytes: hash, kept answer -> bytes counted for it;
--   streams_bytes  sum of those
--   layout         version of this list, written once when the store is opened (server.py)
--   log            stream of events: field `event` with JSON, or one or two fields `job` with lines, see `tell`
--
-- A hash for all jobs rather than a key for each: one command serves a whole batch, and that is what a claim costs.

local A = 2
local BULK = 1000  -- unpack() fails from about 8,000 values on

-- Set at the start of each call. Numbers are kept as text where they can be: to turn one into text costs as much as
-- a command, and so does a number among the arguments of a command.
local call, ARGV, NOW, NOW_TEXT, EVENTS_MAX, AVOID_MS
local settings, now_given  -- the first argument of the last call, and what it says of the time
local K, prefix  -- full names of keys by their names here, made when they are first asked for

-- What a call has learned of customers, by digest: see lib/customers.lua.
local LIMITS, ROOMS = {}, {}

local whole_format

-- Whole numbers as text: the server writes large ones with an exponent. Formatted as such where the machine's are wide
-- enough, for a third of what it costs to format them as fractions.
local function int(number)
  if not whole_format then
    whole_format = string.format('%d', 2 ^ 52) == '4503599627370496' and '%d' or '%.0f'
  end
  return string.format(whole_format, number)
end

local function begin(keys, args)
  call, ARGV = redis.call, args
  if keys[1] ~= prefix then
    prefix = keys[1]
    K = setmetatable({}, {
      __index = function(known, name)
        known[name] = prefix .. name
        return known[name]
      end,
    })
  end
  if next(LIMITS) or next(ROOMS) then
    LIMITS, ROOMS = {}, {}
  end
  if args[1] ~= settings then
    settings = args[1]
    now_given, EVENTS_MAX, AVOID_MS = string.match(settings, '^(%d+)|(%d+)|(%d+)$')
    now_given = now_given ~= '0' and now_given or ''
  end
  NOW_TEXT, NOW = now_given, nil
end

-- Set the time of the call.
local function read_clock()
  if NOW_TEXT == '' then
    local time = call('TIME')  -- seconds, microseconds
    NOW_TEXT = time[1] .. string.sub('00000' .. time[2], -6, -4)
  end
  NOW = NOW_TEXT + 0  -- for half of what tonumber costs
end

-- Return the key of a family with `of` as the last part of its name.
local function key(family, of)
  return K[family] .. of
end

-- Offer a function that reads the clock itself if it has to, under a name that belongs to this version of the library:
-- others may be at work beside it.
local function define_untimed(name, run, ...)
  redis.register_function({
    function_name = LIBRARY .. '_' .. name,
    callback = function(keys, args)
      begin(keys, args)
      return run()
    end,
    flags = { ... },
  })
end

local function define(name, run, ...)
  define_untimed(name, function()
    read_clock()
    return run()
  end, ...)
end

-- Whether id `a` is ordered before `b` as sorted sets do it: byte by byte, where `<` would ask the server's locale.
local function before(a, b)
  for at = 1, math.min(#a, #b) do
    local x, y = string.byte(a, at), string.byte(b, at)
    if x ~= y then
      return x < y
    end
  end
  return #a < #b
end

local function push(list, value)
  list[#list + 1] = value
end

-- Append a value, or a pair, to the list of that name. Such a list knows its length: to ask for it costs as much as the
-- rest, and so does growing from nothing.
local function file(lists, name, value, partner)
  local list = lists[name]
  if not list then
    lists[name] = { value, partner, n = partner and 2 or 1 }
    return
  end
  local n = list.n + 1
  list[n] = value
  if partner then
    n = n + 1
    list[n] = partner
  end
  list.n = n
end

-- Run a command that takes many values; `values` may hold pairs.
local function bulk(command, name, values)
  local count = values.n or #values
  if count > 0 and count <= BULK then
    return call(command, name, unpack(values, 1, count))
  end
  for first = 1, count, BULK do
    call(command, name, unpack(values, first, math.min(first + BULK - 1, count)))
  end
end

-- Writes that are gathered over all jobs of a call, one command for each key: values by key, by command.
local function new_batch()
  return { HSET = {}, HDEL = {}, SADD = {}, SREM = {}, ZADD = {}, ZREM = {} }
end

-- What is never written to: to make a table costs as much as a command.
local NONE = {}

-- Return a batch for so many jobs: none for one, of which `put` writes each thing at once.
local function batch_for(jobs)
  return jobs > 1 and new_batch() or nil
end

-- Write a value, or a pair, with the rest of the batch, or at once where there is none.
local function put(batch, command, name, value, partner)
  if batch then
    file(batch[command], name, value, partner)
  elseif partner then
    call(command, name, value, partner)
  else
    call(command, name, value)
  end
end

local function write(batch)
  for command, lists in pairs(batch or NONE) do
    for name, values in pairs(lists) do
      bulk(command, name, values)
    end
  end
end

local IDS_PER_EVENT = 50

-- Append an event, and perhaps one that follows it: one entry for both costs half as much. Return its id.
local function log(lines, next_lines)
  if next_lines then
    return call('XADD', K.log, 'MAXLEN', '~', EVENTS_MAX, '*', 'job', lines, 'job', next_lines)
  end
  return call('XADD', K.log, 'MAXLEN', '~', EVENTS_MAX, '*', 'job', lines)
end

-- Return the lines of an event that speaks of one job; "" for the worker of one that nobody has or had. Where the call
-- did not read the clock the time is "": it is that of the entry.
local function lines_of(kind, id, worker, attempt, code)
  return kind .. '\n' .. NOW_TEXT .. '\n' .. worker .. '\n' .. id .. '\n' .. attempt .. '\n' .. code
end

-- Append an event that speaks of all `ids`, as lines: kind, time, worker, ids, attempts, codes ("-": none). The last
-- two run beside `ids`. Many ids make several events: the log is capped by entries, so each must be small.
local function tell(kind, ids, worker, attempts, codes)
  if #ids == 1 and not worker and not codes then
    return log(lines_of(kind, ids[1], '', '', ''))
  end
  for first = 1, #ids, IDS_PER_EVENT do
    local last = math.min(first + IDS_PER_EVENT - 1, #ids)
    local lines = kind .. '\n' .. NOW_TEXT .. '\n' .. (worker or '') .. '\n' .. table.concat(ids, ' ', first, last)
    lines = lines .. '\n' .. (worker and table.concat(attempts, ' ', first, last) or '')
    lines = lines .. '\n' .. (codes and table.concat(codes, ' ', first, last) or '')
    log(lines)
  end
end
