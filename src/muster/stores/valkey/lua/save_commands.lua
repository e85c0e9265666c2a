-- Keep commands as they stand now, unless a record that stands higher is kept already; forget the oldest ended ones.
--
-- Arguments: how many ended ones may stay; then of each command its id, how it stands, its end in ms (0: open), JSON.
-- Returns:   how many were kept.
-- Reads:     commands, commands_ended
-- Writes:    commands, commands_ended

define('save_commands', function()
  local keep_max, kept = tonumber(ARGV[A]), 0
  for at = A + 1, #ARGV, 4 do
    local id, standing, ended_ms, body = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
    local known = call('HGET', K.commands, id)
    if not known or tonumber(string.match(known, '^%d+')) < tonumber(standing) then
      call('HSET', K.commands, id, standing .. '|' .. body)
      if ended_ms ~= '0' then
        call('ZADD', K.commands_ended, ended_ms, id)
      end
      kept = kept + 1
    end
  end
  local surplus = call('ZCARD', K.commands_ended) - keep_max
  if surplus > 0 then
    local gone = call('ZPOPMIN', K.commands_ended, surplus)
    for at = 1, #gone, 2 do
      call('HDEL', K.commands, gone[at])
    end
  end
  return kept
end)
