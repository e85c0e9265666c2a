-- Read what a new class or signature has to be matched against.
--
-- Returns:   {`matched`, {class, capability as JSON…}, {signature, need as JSON…}, {special customer, its name…}}
-- Reads:     matched, classes, signatures, special

define('matched', function()
  local version = tonumber(call('GET', key('matched')) or 0)
  return { version, call('HGETALL', key('classes')), call('HGETALL', key('signatures')), call('HGETALL', key('special')) }
end, 'no-writes')
