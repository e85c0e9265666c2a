-- The whole line: all queues, merged where somebody asks. Nothing is kept of it, since each job would pay for that twice
-- and few ask.

-- Return the names of all queues; most have jobs.
local function all_queues()
  local queues = call('HKEYS', K.signatures)
  for _, queue in ipairs(call('SMEMBERS', K.variants)) do
    push(queues, queue)
  end
  return queues
end

local function count_in_line()
  local jobs = 0
  for _, queue in ipairs(all_queues()) do
    jobs = jobs + call('ZCARD', key('p:', queue))
  end
  return jobs
end

-- Return how many jobs in line come before (score, id).
local function count_ahead(score, id)
  local jobs = 0
  for _, queue in ipairs(all_queues()) do
    local rank = rank_of(key('p:', queue), score, id)
    jobs = jobs + rank
  end
  return jobs
end

-- What a queue brings to the merge is {line, rank (of its page), size (of the page), page (id, score, id…), at, id, score
-- (as a number)}. Go on to its next job, and return whether there is one; pages grow, so that little is read in vain.
local function go_on(part, most)
  part.at = part.at + 2
  if part.at > 2 * part.size then
    part.rank, part.size, part.at = part.rank + part.size, math.min(2 * part.size + 1, most), 1
    part.page = call('ZRANGE', part.line, part.rank, part.rank + part.size - 1, 'WITHSCORES')
  end
  part.id, part.score = part.page[part.at], tonumber(part.page[part.at + 1])
  return part.id ~= nil
end

local function goes_first(a, b)
  if a.score ~= b.score then
    return a.score < b.score
  end
  return before(a.id, b.id)
end

-- The first part of a heap has changed: bring it to its place.
local function sink(heap, size)
  local part, at = heap[1], 1
  while 2 * at <= size do
    local child = 2 * at
    if child < size and goes_first(heap[child + 1], heap[child]) then
      child = child + 1
    end
    if not goes_first(heap[child], part) then
      break
    end
    heap[at], at = heap[child], child
  end
  heap[at] = part
end

-- Return what `range_of` does, of the whole line.
local function range_in_line(limit, score, id)
  local parts = {}
  for _, queue in ipairs(all_queues()) do
    local line, rank, taken = key('p:', queue), 0, false
    if score then
      rank, taken = rank_of(line, score, id)
    end
    local part = { line = line, rank = taken and rank + 1 or rank, size = 0, page = NONE, at = 1, id = '', score = 0 }
    if go_on(part, limit) then
      push(parts, part)
    end
  end
  table.sort(parts, goes_first)  -- which makes it a heap
  local size, found = #parts, {}
  while size > 0 and #found < 2 * limit do
    local part = parts[1]
    push(found, part.id)
    push(found, part.page[part.at + 1])
    if not go_on(part, limit) then
      parts[1] = parts[size]
      size = size - 1
    end
    sink(parts, size)
  end
  return found
end
