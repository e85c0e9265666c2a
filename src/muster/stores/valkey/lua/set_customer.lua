-- Set what a customer may have, or forget it.
--
-- Arguments: customer, "weight|most that run|most that wait|name" or "": forget it.
-- Returns:   1 if something was set before.
-- Reads:     customers, running, at:*, p:*
-- Writes:    customers, ready:*, idle

define('set_customer', function()
  local customer, text = ARGV[A], ARGV[A + 1]
  local known = call('HEXISTS', K.customers, customer)
  if text == '' then
    call('HDEL', K.customers, customer)
  else
    call('HSET', K.customers, customer, text)
  end
  make_room(customer)
  return known
end)
