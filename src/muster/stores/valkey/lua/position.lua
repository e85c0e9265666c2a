-- Count the jobs in line that come before a job.
--
-- Arguments: id.
-- Returns:   how many; nil: it is not in line.
-- Reads:     jobs, states, special, signatures, variants, p:*

define('position', function()
  local id = ARGV[A]
  local entry = call('HGET', K.jobs, id)
  local state = entry and read_state(id)
  if not state or state.status ~= 'pending' then
    return nil
  end
  local _, signature, _, _, customer = header(entry)
  local queue, score = find_queue(state, signature, customer)
  return queue and count_ahead(score, id)
end, 'no-writes')
