-- Add to what was used. A batch counts once, however often it comes.
--
-- Arguments: batch, for how long it is remembered in s; then in fours: family (usage:hour:, usage:day:, spent:), when
--            its hour, day or month began in ms, field, how much.
-- Returns:   1, or 0 when the batch has come before.
-- Reads:     usage:batch:*
-- Writes:    usage:batch:*, usage:hour:*, usage:day:*, usage:hours, usage:days, spent:*

local LISTS = { ['usage:hour:'] = 'usage:hours', ['usage:day:'] = 'usage:days' }
local SPENT_KEPT_S = 40 * 86400  -- longer than a month

define('add_usage', function()
  if not call('SET', key('usage:batch:', ARGV[A]), '1', 'NX', 'EX', ARGV[A + 1]) then
    return 0
  end
  local seen = {}
  for at = A + 2, #ARGV, 4 do
    local family, began, field, count = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
    local name = key(family, began)
    call('HINCRBY', name, field, count)
    if not seen[name] then
      seen[name] = true
      if LISTS[family] then
        call('ZADD', K[LISTS[family]], began, began)
      else
        call('EXPIRE', name, SPENT_KEPT_S)
      end
    end
  end
  return 1
end)
