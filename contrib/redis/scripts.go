package redis

import (
	"crypto/sha1"
	"encoding/hex"
	"strconv"

	"github.com/owtp-go/owtp/session"
)

// A script is a piece of Lua that the server runs as one step. Each has one
// key, so that all work in a cluster.
type script struct{ text, sha string }

func newScript(text string) *script {
	sum := sha1.Sum([]byte(text)) // the server's name for it; nothing depends on its strength
	return &script{text, hex.EncodeToString(sum[:])}
}

var (
	// getScript returns what is left of the record's time, a space, and the
	// record, of which an absent key has none: in one string, as that costs
	// least on both sides. Of a value that is too long to be ours it reads one
	// octet too many.
	getScript = newScript(`return redis.call('PTTL', KEYS[1]) .. ' ' .. redis.call('GETRANGE', KEYS[1], 0, ` + strconv.Itoa(headerLen+session.MaxValueLen) + `)`)

	// swapScript: header, new record, milliseconds or 0.
	swapScript = newScript(`
if redis.call('GETRANGE', KEYS[1], 0, ` + strconv.Itoa(headerLen-1) + `) ~= ARGV[1] then
	return 0
elseif ARGV[3] == '0' then
	redis.call('SET', KEYS[1], ARGV[2])
else
	redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
end
return 1`)

	// touchScript: header, milliseconds or 0.
	touchScript = newScript(`
if redis.call('GETRANGE', KEYS[1], 0, ` + strconv.Itoa(headerLen-1) + `) ~= ARGV[1] then
	return 0
elseif ARGV[2] == '0' then
	redis.call('PERSIST', KEYS[1])
else
	redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return 1`)
)
