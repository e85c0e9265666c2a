-- Read what a new class or signature has to be matched against.
--
-- Returns:   {`matched`, {class, capability as JSON…}, {signature, need as JSON…}, {special customer, its name…}}
-- Reads:     matched, classes, signatures, special

define('matched', function()
  local version = tonumber(call('GET', K.matched) or 0)
  return { version, call('HGETALL', K.classes), call('HGETALL', K.signatures), call('HGETALL', K.special) }
end, 'no-writes')
