-- Store new jobs and put them in line. An id that is known changes nothing.
--
-- Arguments: how many, then for each: signature, score without the sequence, workflow or "", timeout in ms, id,
--            specification as JSON.
-- Returns:   {1, then 1 (new) or 0 (known) for each}, or {0, unknown signatures…} when nothing was done because
--            a signature has to be added first.
-- Reads:     signatures, jobs, able:*, p:*
-- Writes:    jobs, sequence, workflows, workflow_uses, uses, p:*, pending, ready:*, idle, log

local FIELDS = 6

-- Return the signatures among the arguments that have to be added first.
local function unknown_signatures(count)
  local known, unknown = {}, {}
  for n = 0, count - 1 do
    local signature = ARGV[A + 1 + n * FIELDS]
    if known[signature] == nil then
      known[signature] = call('HEXISTS', key('signatures'), signature) == 1
      if not known[signature] then
        unknown[#unknown + 1] = signature
      end
    end
  end
  return unknown
end

-- Jobs of one workflow share the sequence of the first of them, so that they stay together.
local function sequence_of(workflow, sequence)
  if workflow == '' then
    return sequence
  end
  call('HSETNX', key('workflows'), workflow, int(sequence))
  call('HINCRBY', key('workflow_uses'), workflow, 1)
  return tonumber(call('HGET', key('workflows'), workflow))
end

define('submit', function()
  local count = tonumber(ARGV[A])
  local unknown = unknown_signatures(count)
  if #unknown > 0 then
    return { 0, unpack(unknown) }
  end
  local last = call('INCRBY', key('sequence'), count)
  local reply, created, queues = { 1 }, {}, {}
  for n = 0, count - 1 do
    local at = A + 1 + n * FIELDS
    local signature, base, workflow, timeout_ms, id = unpack(ARGV, at, at + 4)
    if call('HEXISTS', key('jobs'), id) == 1 then
      reply[n + 2] = 0
    else
      local score = int(base + sequence_of(workflow, last - count + 1 + n))
      local front = timeout_ms .. '|' .. signature .. '|' .. score .. '|' .. workflow .. '|'
      call('HSET', key('jobs'), id, front .. ARGV[at + 5])
      file(queues, signature, score, id)
      created[#created + 1] = id
      reply[n + 2] = 1
    end
  end
  for signature, members in pairs(queues) do
    call('HINCRBY', key('uses'), signature, members.n / 2)
    place(signature, members)
  end
  tell('job_submitted', created)
  return reply
end)
