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
    local known = call('HGET', key('commands'), id)
    if not known or tonumber(string.match(known, '^%d+')) < tonumber(standing) then
      call('HSET', key('commands'), id, standing .. '|' .. body)
      if ended_ms ~= '0' then
        call('ZADD', key('commands_ended'), ended_ms, id)
      end
      kept = kept + 1
    end
  end
  local surplus = call('ZCARD', key('commands_ended')) - keep_max
  if surplus > 0 then
    local gone = call('ZPOPMIN', key('commands_ended'), surplus)
    for at = 1, #gone, 2 do
      call('HDEL', key('commands'), gone[at])
    end
  end
  return kept
end)
