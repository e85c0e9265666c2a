-- Move jobs of a special customer that are in line into its own queues: they came when it was one of many.
--
-- Arguments: customer, how many jobs of the line to look at, then the place to go on after: score, id (none: the front).
-- Returns:   score and id of the last job that was looked at; nothing at the end of the line.
-- Reads:     pending, jobs, states
-- Writes:    p:*, variants, at:*, ready:*, idle

local function move(id, customer)
  local _, signature, score, _, whose_job = header(call('HGET', K.jobs, id))
  if whose_job ~= customer then
    return
  end
  local state = read_state(id)
  local suffix = state.avoid == '' and '' or '!' .. state.avoid
  if call('ZREM', key('p:', signature .. suffix), id) == 1 then
    drop_if_empty(signature .. suffix)
    place_one(signature .. '@' .. customer .. suffix, score, id)
  end
end

define('confine', function()
  local found = range_of(K.pending, false, tonumber(ARGV[A + 1]), ARGV[A + 2], ARGV[A + 3])
  for at = 1, #found, 2 do
    move(found[at], ARGV[A])
  end
  return { found[#found], found[#found - 1] }
end)
