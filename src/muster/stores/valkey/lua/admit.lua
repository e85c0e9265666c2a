-- Say whether new jobs can all be taken: more of them than one call of submit.lua stores.
--
-- Arguments: how many, then for each: id, customer or "", what it waits for (see lib/waits.lua) or "".
-- Returns:   {1}, or why not, as submit.lua says it.
-- Reads:     jobs, customers, open, running

local FIELDS = 3

define('admit', function()
  local jobs, seen = {}, {}
  for n = 1, tonumber(ARGV[A]) do
    local at = A + 1 + (n - 1) * FIELDS
    local id, customer, needs = ARGV[at], ARGV[at + 1], ARGV[at + 2]
    local known = seen[id] or call('HEXISTS', K.jobs, id) == 1
    jobs[n] = { id = id, customer = customer, needs = needs, known = known }
    seen[id] = true
  end
  return refusal_of(jobs) or { 1 }
end)
