package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/owtp-go/owtp"
	"github.com/owtp-go/owtp/session"
)

// A stage is the replicas, the balancer and a client that knows only that.
type stage struct {
	out      io.Writer
	dir      string
	nodeID   string
	redis    string
	replicas []*replica
	lb       *balancer
	server   *http.Server
	client   *owtp.OWTPNode

	mu    sync.Mutex
	calls int
}

func newStage(ctx context.Context, url string, out io.Writer) (s *stage, err error) {
	s = &stage{out: out, redis: url}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	key := owtp.RandomPrivateKey()
	cert, err := owtp.NewCertificate(key)
	if err != nil {
		return s, err
	}
	s.nodeID = cert.ID()
	if s.dir, err = os.MkdirTemp("", "owtp-cluster-"); err != nil {
		return s, err
	}
	var addrs []string
	for i := 1; i <= 3; i++ {
		r, err := start(replicaConfig{
			PrivateKey: key, Redis: url, Name: fmt.Sprint("replica ", i), Address: "127.0.0.1:0", Ledger: filepath.Join(s.dir, "ledger"),
		})
		if err != nil {
			return s, err
		}
		s.replicas = append(s.replicas, r)
		addrs = append(addrs, r.config.Address)
		s.say("%s: process %d on %s", r.config.Name, r.cmd.Process.Pid, r.config.Address)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return s, err
	}
	s.lb = &balancer{to: addrs}
	s.server = &http.Server{Handler: s.lb}
	go s.server.Serve(l)
	s.say("balancer: %s, one request to each in turn", l.Addr())
	if s.client, err = owtp.New(owtp.NodeConfig{Cert: owtp.NewRandomCertificate()}); err != nil {
		return s, err
	}
	return s, s.client.ConnectContext(ctx, s.nodeID, owtp.ConnectConfig{
		Address: l.Addr().String(), ConnectType: owtp.HTTP, EnableKeyAgreement: true,
	})
}

func (s *stage) say(format string, args ...any) { fmt.Fprintf(s.out, format+"\n", args...) }

// close ends everything and takes back what was left in Redis.
func (s *stage) close() error {
	var err error
	if s.client != nil {
		err = s.client.Close()
	}
	if s.server != nil {
		err = errors.Join(err, s.server.Close())
		s.lb.client.CloseIdleConnections()
	}
	for _, r := range s.replicas {
		r.stop()
	}
	if s.dir != "" {
		err = errors.Join(err, os.RemoveAll(s.dir))
	}
	if s.nodeID != "" {
		err = errors.Join(err, forget(s.redis, session.NodePrefix+s.nodeID+"/"))
	}
	return err
}

// forget removes what a node that will not come back has in the store. Most of
// it would go by itself.
func forget(url, prefix string) error {
	ctx := context.Background()
	store, err := session.Open(ctx, "redis", &session.ManagerConfig{ProviderConfig: url})
	if err != nil {
		return err
	}
	defer store.Close()
	keys, err := store.List(ctx, prefix, "", session.MaxListLimit)
	for _, key := range keys {
		err = errors.Join(err, store.Delete(ctx, key))
	}
	return err
}

// ledger returns how often each transfer was made.
func (s *stage) ledger() (map[string]int, error) {
	text, err := os.ReadFile(filepath.Join(s.dir, "ledger"))
	made := make(map[string]int)
	for no := range strings.FieldsSeq(string(text)) {
		made[no]++
	}
	return made, err
}

func (s *stage) total() (n int) {
	made, err := s.ledger()
	if err != nil {
		return -1
	}
	for _, times := range made {
		n += times
	}
	return n
}

// noneTwice fails if a transfer was made more than once.
func (s *stage) noneTwice() error {
	made, err := s.ledger()
	for no, times := range made {
		if times != 1 {
			err = errors.Join(err, fmt.Errorf("transfer %s was made %d times", no, times))
		}
	}
	return err
}
