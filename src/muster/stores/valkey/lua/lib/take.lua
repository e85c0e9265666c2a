-- How the best jobs for a class are found: a merge of its queues, of which only the heads are read.
--
-- Order is exact: score, then id, over all queues. What it costs depends neither on how many jobs, signatures or
-- classes there are, nor on jobs that this class cannot run.
--
-- A queue that takes part in the merge is {queue, indexed (its score in the index), score (of its next job, or what it
-- is at least), found (a page of its jobs: id, score, id, score…; nil: to be read), at (how far the page was used),
-- size (of the page), taken (how many jobs in all), customer (if it is special), full (no more of its may run)}. Scores
-- are numbers to compare and text to write down.

local INDEX_PAGE = 16

-- Whether `a` goes first. One whose page has to be read does, so that it will be.
local function leads(a, b)
  if a.score ~= b.score then
    return a.score < b.score
  elseif not a.found or not b.found then
    return not a.found
  end
  return before(a.found[a.at + 1], b.found[b.at + 1])
end

local function enter(parts, part)
  local at = #parts
  while at > 0 and leads(part, parts[at]) do
    parts[at + 1] = parts[at]
    at = at - 1
  end
  parts[at + 1] = part
end

-- The score of the first part has changed: it stays in front, most often so when its page was read, or goes to its place.
local function settle_down(parts)
  local part, second = parts[1], parts[2]
  if part.score == math.huge then
    table.remove(parts, 1)
  elseif second and leads(second, part) then
    table.remove(parts, 1)
    enter(parts, part)
  end
end

-- Enter the next queues of the index, but those that leave out this worker.
local function read_index(index, parts, most)
  local count = math.min(most, INDEX_PAGE) + 1
  local entries = call('ZRANGE', index.key, index.read, index.read + count - 1, 'WITHSCORES')
  index.read, index.more = index.read + count, #entries == 2 * count
  for at = 1, #entries, 2 do
    local queue, score = entries[at], tonumber(entries[at + 1])
    index.last = score
    if string.sub(queue, -#index.avoided) ~= index.avoided then
      local customer = is_variant(queue) and string.match(queue, '@([^!]*)') or nil
      enter(parts, {
        queue = queue, indexed = entries[at + 1], score = score, size = 0, taken = 0, customer = customer, full = false,
      })
    end
  end
end

-- Set the score of the next job; at the end of a full page it is only known to be no lower.
local function advance(part)
  local score = part.found[part.at + 2]
  if score then
    part.score = tonumber(score)
  elseif part.at == 2 * part.size then
    part.found = nil
  else
    part.score = math.huge
  end
end

-- Read the next page of a queue: as much again as was taken from it, so that little is read in vain. One that is alone
-- gives all.
local function read_queue(part, most, alone)
  part.size = alone and most + 1 or math.min(math.max(part.taken, 2), most + 1)
  part.found = call('ZRANGE', key('p:', part.queue), part.taken, part.taken + part.size - 1, 'WITHSCORES')
  part.at = 0
  advance(part)
end

-- Remove what was taken from a queue, and bring its entry in the index up to date, with the rest of the batch.
local function close(index, part, batch)
  local name = key('p:', part.queue)
  if part.taken > 0 then
    call('ZREMRANGEBYRANK', name, '0', part.taken - 1)
  end
  if part.full then
    put(batch, 'ZREM', index.key, part.queue)
    drop_if_empty(part.queue)
    return
  end
  if not part.found then
    part.found, part.at = call('ZRANGE', name, '0', '0', 'WITHSCORES'), 0
  end
  local score = part.found[part.at + 2]
  if not score then
    put(batch, 'ZREM', index.key, part.queue)
    drop_if_empty(part.queue)
  elseif score ~= part.indexed then
    put(batch, 'ZADD', index.key, score, part.queue)
  end
end

-- Take up to `want` jobs out of their queues; return ids and queues, lists beside each other.
local function take(class, worker, want)
  local index = { key = key('ready:', class), avoided = '!' .. worker, read = 0, more = true, last = -math.huge }
  local parts, opened, n = {}, {}, 0
  local ids, queues = {}, {}
  while n < want do
    while index.more and (#parts == 0 or parts[1].score >= index.last) do
      read_index(index, parts, want - n)
    end
    local part = parts[1]
    if not part then
      break
    elseif part.customer and room_of(part.customer) <= 0 then
      if part.size == 0 then
        opened[#opened + 1] = part
      end
      part.full, part.score = true, math.huge
    elseif not part.found then
      if part.size == 0 then
        opened[#opened + 1] = part
      end
      read_queue(part, want - n, #parts == 1 and not index.more)
    else
      n = n + 1
      ids[n], queues[n] = part.found[part.at + 1], part.queue
      part.taken, part.at = part.taken + 1, part.at + 2
      if part.customer then
        ROOMS[part.customer] = ROOMS[part.customer] - 1
      end
      advance(part)
    end
    settle_down(parts)
  end
  local batch = batch_for(#opened)
  for _, part in ipairs(opened) do
    close(index, part, batch)
  end
  write(batch)
  return ids, queues
end

-- Return the queue that is alone in front of all of a class, and its first two jobs as id, score, id, score, for the
-- short way: it is a signature's own, and the index is right about it. Otherwise nil.
local function look_at_front(class)
  local top = call('ZRANGE', key('ready:', class), '0', '1', 'WITHSCORES')
  local queue, score = top[1], top[2]
  if not queue or score == top[4] or is_variant(queue) then
    return nil
  end
  local found = call('ZRANGE', key('p:', queue), '0', '1', 'WITHSCORES')
  if found[2] == score then
    return queue, found
  end
end

-- Take the job that `look_at_front` has found first.
local function take_front(class, queue, found)
  call('ZREM', key('p:', queue), found[1])
  call('ZREM', K.pending, found[1])
  if found[4] then
    call('ZADD', key('ready:', class), found[4], queue)
  else
    call('ZREM', key('ready:', class), queue)
  end
end
