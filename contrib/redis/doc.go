// Package redis keeps sessions and a node's state in a Redis, or in a server that
// speaks its protocol, as Valkey does. Importing it registers the store under
// the name "redis":
//
//	import _ "github.com/owtp-go/owtp/contrib/redis"
//
//	manager, err := owtp.NewSessionManager("redis", &session.ManagerConfig{
//		ProviderConfig: "rediss://owtp:password@redis.example:6379/0",
//	})
//
// [New] makes a store on a client that the program has already.
//
// # ProviderConfig
//
// It is the driver's usual URL. Special characters of a password are written as
// %XX.
//
//	redis://user:password@host:6379/0                   one server
//	rediss://user:password@host:6379/0?ca_file=ca.pem   the same over TLS
//	unix://user:password@/run/redis.sock?db=0           the same over a socket
//	redis://user:password@host1:6379?addr=host2:6379    a cluster; addr may come again
//	redis://user:password@host:6379?cluster=true        a cluster with one address
//	redis://host1:26379?master_name=m&addr=host2:26379&username=u&password=p
//	                                                    sentinels, and who we are to the
//	                                                    servers that they name; who we are
//	                                                    to them stands before their address
//
// Options follow the question mark; durations are as "1.5s", or in seconds.
//
//	prefix                  begins every key; "owtp:"
//	wait_replicas           replicas that must have a write before it counts as done; 0
//	wait_timeout            how long they may take; 1s
//	dial_timeout, read_timeout, write_timeout, pool_timeout
//	                        bounds of each wait, where a context does not end it sooner; 3s
//	pool_size               connections to one server at most; 32
//	min_idle_conns, max_idle_conns, conn_max_idle_time, conn_max_lifetime, client_name
//	max_retries             further attempts of reads, never of writes; 1
//	protocol                2 or 3; 2
//	ca_file, cert_file, key_file, server_name
//	                        TLS: who may sign the server's certificate, a certificate of
//	                        our own, the name that the server's must have
//
// A context's deadline ends a call exactly; a context that is cancelled earlier
// ends it at once where the call waits for a connection, and within read_timeout
// where it waits for an answer.
//
// # What the server must be
//
// For a node's own state (as opposed to user sessions) the server must never
// evict: its maxmemory-policy must be noeviction, and then a full server refuses
// writes, which is [session.ErrFull]. The store asks when it is opened, on each
// new connection, and every ten seconds. A node refuses a store that may evict
// or does not say; if one begins to while it is open, its methods fail until it
// no longer does. (On a client that was given to New, new connections are not
// asked.)
//
// The user needs no more than this:
//
//	user owtp on >password resetchannels ~owtp:* -@all +evalsha +eval +set +getrange +pttl +pexpire +persist +del +scan +info +wait
//
// and for a cluster also +cluster|slots +asking, for a database other than 0
// +select, for client_name +client|setname. A server that forbids INFO is asked
// by CONFIG GET, with +config|get.
//
// Servers that accept writes in several places at once and merge them later
// (active-active replication) cannot keep a node's state: in each of them a
// PutIfAbsent would win. The driver's Ring is refused for the same reason.
//
// # What may be lost
//
// A Redis answers before its replicas have a write and, unless it is told
// otherwise, before its disk has. So two accidents lose the last writes although
// they were reported as done:
//
//   - The server crashes or its machine does. "appendonly yes" keeps all but the
//     last second, "appendfsync always" all. [session.Traits].Durable says
//     whether the former is on.
//   - A replica is made the master (by Sentinel, by a cluster, by hand) before it
//     had the writes.
//
// A lost call record lets a retried or a replayed call run once more, within the
// minutes that it would have been kept; a lost session key is agreed upon anew;
// a lost Delete brings an ended session back. wait_replicas=1 narrows the second
// gap: each write waits until a replica has it, and otherwise returns an error
// and counts as neither done nor undone. It does not close it: the replica that
// has the write may not be the one that is chosen, although Sentinel and cluster
// prefer the one that has most. With as many as there are replicas it is closed,
// and one that fails stops all writes. "min-replicas-to-write 1" on the server
// makes a master that is cut off stop sooner.
//
// # How a record is kept
//
// Under the prefix and the key, as a string: the octet 1, eight random octets of
// version, the value. It expires by the server's clock, in milliseconds. Set back,
// that clock can bring back a record that has expired and was not removed yet,
// for which a server takes a fraction of a second; set forward, it makes records
// expire early, and a call record that is gone lets a replayed call run again.
// Let it be slewed (chrony, ntpd), not set.
//
// The driver prints what it cannot dial through a logger of its own, without
// passwords; SetLogger of package go-redis changes where to.
package redis
