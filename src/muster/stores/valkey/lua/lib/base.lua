-- Part of every script. Keys share the hash tag in KEYS[1], so that a script stays in one slot of a cluster.
--
-- KEYS[1]  prefix of all keys, "{muster}:"
-- ARGV[1]  now in ms since the epoch; 0: the server's own clock, one for all who hold leases
-- ARGV[2]  how many entries the event log keeps
-- ARGV[3]  how long a retry leaves out the worker that failed it, in ms
-- ARGV[4…] the script's own arguments, from A on
--
-- Keys (<…> is a part of the name):
--   jobs           hash  job id -> "signature|score|timeout in ms|workflow|specification as JSON"
--   state:<id>     hash  status, attempt, retries, worker, session, started, ended, due, avoid; none before the first
--                        claim. `worker` and `session` outlive an attempt that went back: they tell a repeated report
--   error:<id>     string  error of the last failed attempt, JSON
--   progress:<id>  string  "at in ms|JSON"
--   result:<id>    string  JSON
--   p:<signature>  zset  waiting jobs of one signature by score. "signature!worker" holds retries that leave out
--                        that worker for a while (a variant of the signature)
--   pending        zset  all waiting jobs by score: the position in line, and pages of it
--   delayed        zset  job id -> when its retry is due
--   avoiding       zset  job id -> until when it waits in a variant
--   variants       set   names of variants that have jobs
--   in:<status>    zset  job id -> start (assigned, in_progress) or end (completed, failed, timeout, cancelled)
--   deadlines      zset  job id -> when its running attempt must have ended
--   held:<session> zset  leases: job id -> attempt, the fencing token
--   sessions       zset  session -> end of its lease
--   session:<id>   hash  worker, class
--   members:<class> set  sessions of a class
--   classes        hash  class -> capability as JSON;  unused: zset, class -> since when it has no session
--   signatures     hash  signature -> need as JSON;  uses: hash, signature -> how many stored jobs have it
--   able:<signature> set classes that can run it
--   ready:<class>  zset  signature or variant -> score of its head. May be too low or empty; a claim that meets such
--                        an entry corrects it. Never too high, never missing
--   matched        counter of changes to classes and signatures: whoever adds one has seen all of the others
--   idle           set   classes that want a message on channel bus:wake when work arrives
--   sequence       counter of submits
--   workflows      hash  workflow -> sequence shared by its jobs;  workflow_uses: hash, workflow -> stored jobs
--   log            stream of events, each one field "e" with JSON

local call = redis.call
local A = 4
local EVENTS_MAX, AVOID_MS = ARGV[2], tonumber(ARGV[3])
local BULK = 1000  -- unpack() fails from about 8,000 values on

local function key(name)
  return KEYS[1] .. name
end

-- Whole numbers as text: the server writes large ones with an exponent.
local function int(number)
  return string.format('%.0f', number)
end

local NOW = tonumber(ARGV[1])
if NOW == 0 then
  local time = call('TIME')
  NOW = time[1] * 1000 + math.floor(time[2] / 1000)
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

-- Run a command that takes many values; `values` may hold pairs.
local function bulk(command, name, values)
  for first = 1, #values, BULK do
    call(command, key(name), unpack(values, first, math.min(first + BULK - 1, #values)))
  end
end

-- Append one event that speaks of all `ids`; `worker`, `attempts` and `codes` (lists beside `ids`) may be nil.
local function tell(kind, ids, worker, attempts, codes)
  if #ids == 0 then
    return
  end
  local event = { kind = kind, key = ids[1], at_ms = NOW }
  if #ids > 1 then
    event.ids = ids
  end
  if worker then
    event.data = { worker_id = worker, attempts = attempts, codes = codes }
  elseif codes then
    event.data = { codes = codes }
  end
  call('XADD', key('log'), 'MAXLEN', '~', EVENTS_MAX, '*', 'e', cjson.encode(event))
end
