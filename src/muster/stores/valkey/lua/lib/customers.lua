-- Customers: how many of their jobs wait and run, and how many may.

local NO_LIMIT = 1 / 0  -- infinity

-- Return {weight, running_max, waiting_max}.
local function limits_of(customer)
  local known = LIMITS[customer]
  if not known then
    local text = call('HGET', K.customers, customer) or '1|||'
    local weight, running, waiting = string.match(text, '^(%d+)|(%d*)|(%d*)|')
    known = {
      weight = tonumber(weight), running_max = tonumber(running) or NO_LIMIT, waiting_max = tonumber(waiting) or NO_LIMIT,
    }
    LIMITS[customer] = known
  end
  return known
end

local function count_of(name, customer)
  return tonumber(call('HGET', K[name], customer) or 0)
end

-- Count jobs of a customer up or down; what is at 0 is forgotten.
local function count(name, customer, by)
  local now = call('HINCRBY', K[name], customer, by)
  if now <= 0 then
    call('HDEL', K[name], customer)
  end
  return now
end

-- Return how many more jobs of a customer may run.
local function room_of(customer)
  local room = ROOMS[customer]
  if not room then
    local most = limits_of(customer).running_max
    room = most == NO_LIMIT and NO_LIMIT or most - count_of('running', customer)
    ROOMS[customer] = room
  end
  return room
end
