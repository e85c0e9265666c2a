-- Put a record in the place of the one that a token has, if it was not revoked meanwhile.
--
-- Arguments: token id, record as JSON.
-- Returns:   1, or 0: there is no such token.
-- Reads:     tokens
-- Writes:    tokens

define('change_token', function()
  if call('HEXISTS', K.tokens, ARGV[A]) == 0 then
    return 0
  end
  call('HSET', K.tokens, ARGV[A], ARGV[A + 1])
  return 1
end)
