-- End a session; jobs still leased to it go back without counting the attempt.
--
-- Arguments: session.
-- Returns:   ids that went back.
-- Reads:     sessions, held:<session>, states
-- Writes:    sessions, looks, members:*, unused; for those that go back as settle.lua

define('close_session', function()
  local session = ARGV[A]
  local known = read_session(session)
  if not known then
    return {}
  end
  forget_session(session, known)  -- first: it is not among those that could run its jobs
  return return_jobs(read_states(call('SMEMBERS', key('held:', session))))
end)
