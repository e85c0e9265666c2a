-- Parts of sorted sets.

-- Return how many members come before (score, id), and whether it is a member itself. Equal scores are searched in
-- halves: thousands of jobs can end in one millisecond.
local function rank_of(set, score, id)
  local low = call('ZCOUNT', set, '-inf', '(' .. score)
  local high = low + call('ZCOUNT', set, score, score)
  local last = high
  while low < high do
    local middle = math.floor((low + high) / 2)
    if before(call('ZRANGE', set, middle, middle)[1], id) then
      low = middle + 1
    else
      high = middle
    end
  end
  return low, low < last and call('ZRANGE', set, low, low)[1] == id
end

-- Return up to `limit` members that come after the place, as id, score, id, score…; without a place from the start on.
local function range_of(set, backwards, limit, score, id)
  if not score then
    if backwards then
      return call('ZRANGE', set, '0', limit - 1, 'REV', 'WITHSCORES')
    end
    return call('ZRANGE', set, '0', limit - 1, 'WITHSCORES')
  end
  local rank, taken = rank_of(set, score, id)
  if not backwards then
    local first = taken and rank + 1 or rank
    return call('ZRANGE', set, first, first + limit - 1, 'WITHSCORES')
  end
  if rank == 0 then
    return {}
  end
  local found, reply = call('ZRANGE', set, math.max(0, rank - limit), rank - 1, 'WITHSCORES'), {}
  for at = #found - 1, 1, -2 do
    reply[#reply + 1] = found[at]
    reply[#reply + 1] = found[at + 1]
  end
  return reply
end
