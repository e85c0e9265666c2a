-- Workflows: a workflow has ended when none of its jobs is open. A job that is submitted or tried again later opens it
-- anew, and there is another end.

-- A job of a workflow is open from now on; `told` is the name of the workflow, known from its first job on.
local function open_step(id, workflow, told)
  if told then
    call('HSETNX', K.workflow_names, workflow, told)
  end
  call('HSET', K.step_of, id, workflow)
  call('HINCRBY', K.open_steps, workflow, '1')
end

-- Tell of the end of a workflow: its name may hold any character, so as JSON.
local function tell_workflow(workflow)
  local failed = call('HGET', K.bad_steps, workflow)
  local kind = failed and 'workflow_failed' or 'workflow_completed'
  local name = cjson.encode(call('HGET', K.workflow_names, workflow) or workflow)
  local event = '{"kind":"' .. kind .. '","key":' .. name .. ',"at_ms":' .. NOW_TEXT .. ',"data":{"not_completed":'
    .. (failed or '0') .. '}}'
  call('XADD', K.log, 'MAXLEN', '~', EVENTS_MAX, '*', 'event', event)
end

-- These jobs have ended: tell of the workflows that have no open one left. To be called after their own ends were told.
local function close_steps(ids, statuses)
  if call('EXISTS', K.step_of) == 0 then
    return
  end
  for first = 1, #ids, BULK do
    local last = math.min(first + BULK - 1, #ids)
    for n, workflow in ipairs(call('HMGET', K.step_of, unpack(ids, first, last))) do
      local id, status = ids[first + n - 1], statuses[first + n - 1]
      if workflow and call('HDEL', K.step_of, id) == 1 then
        if status ~= 'completed' then
          call('HINCRBY', K.bad_steps, workflow, '1')
        end
        if count('open_steps', workflow, -1) <= 0 then
          tell_workflow(workflow)
        end
      end
    end
  end
end

-- A job of a workflow that ended badly is open again.
local function reopen_step(id, workflow)
  if call('HEXISTS', K.workflow_names, workflow) == 1 then
    count('bad_steps', workflow, -1)
    open_step(id, workflow)
  end
end
