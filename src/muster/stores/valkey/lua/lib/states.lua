-- The state of a job: one text in the hash `states`, so that one command reads or writes any number of them.
--
-- "status|attempt|session|worker|retries|started|timeout|due|avoid|signature|customer|ended"; times in ms; "" where there
-- is none. A job that was put in line has none before its first claim; signature and customer are those of a running job.
-- Session and worker outlive an attempt that went back: they tell a repeated report.
--
-- Taking it apart costs more than a command, so most read only the front of it: a running job ends by another word in
-- front and the time at the end.

local FRONT = '^([^|]*)(|(%d+)|([^|]*)|.*)$'
local REST = '^|%d+|[^|]*|([^|]*)|(%d+)|(%d*)|(%d*)|(%d*)|([^|]*)|([^|]*)|([^|]*)|(%d*)$'
local NEVER_CLAIMED = 'pending|0|||0|||||||'
local RESULT = '='  -- before the id, of the field of a job's result: no id begins so
local DIGEST = 16  -- characters of a signature, a workflow and a customer
local BAR = 124  -- '|' as a byte

-- Return {id, status, attempt, session, tail (all but the status)}.
local function front_of(id, text)
  local status, tail, attempt, session = string.match(text or NEVER_CLAIMED, FRONT)
  return { id = id, status = status, attempt = attempt, session = session, tail = tail }
end

-- Add the rest of the fields.
local function whole(s)
  s.worker, s.retries, s.started, s.timeout, s.due, s.avoid, s.signature, s.customer, s.ended =
    string.match(s.tail, REST)
  return s
end

local function read_texts(ids)
  if #ids == 1 then
    return { call('HGET', K.states, ids[1]) }
  end
  local texts = {}
  for first = 1, #ids, BULK do
    local last = math.min(first + BULK - 1, #ids)
    for n, text in ipairs(call('HMGET', K.states, unpack(ids, first, last))) do
      texts[first + n - 1] = text
    end
  end
  return texts
end

-- Return whole states.
local function read_states(ids)
  local states = {}
  for n, text in ipairs(read_texts(ids)) do
    states[n] = whole(front_of(ids[n], text))
  end
  return states
end

local function read_state(id)
  return whole(front_of(id, call('HGET', K.states, id)))
end

local function text_of(s)
  return s.status .. '|' .. s.attempt .. '|' .. s.session .. '|' .. s.worker .. '|' .. s.retries .. '|' .. s.started
    .. '|' .. s.timeout .. '|' .. s.due .. '|' .. s.avoid .. '|' .. s.signature .. '|' .. s.customer .. '|' .. s.ended
end

local function write_states(states)
  local values = {}
  for n, s in ipairs(states) do
    values[2 * n - 1], values[2 * n] = s.id, text_of(s)
  end
  bulk('HSET', K.states, values)
end

-- Return the text of a running job that has ended.
local function ended_text(s, status)
  return status .. s.tail .. NOW_TEXT
end

-- Return the customer of a running job, if it has one: the last field of its tail before the end, of a known length.
local function customer_of(tail)
  if string.byte(tail, -2) ~= BAR then
    return string.sub(tail, -DIGEST - 1, -2)
  end
end

local RUNNING = { 'assigned', 'in_progress' }

local function runs(s)
  return s.status == RUNNING[1] or s.status == RUNNING[2]
end
