package replicas_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/owtp-go/owtp"
	"github.com/owtp-go/owtp/session"
)

// replicaEnv makes a process of this test a replica. It holds a replicaConfig.
const replicaEnv = "OWTP_TEST_REPLICA"

type replicaConfig struct {
	Key     string // the private key that all replicas have
	Store   string
	DSN     string
	Address string // where it listens, without a broker
	Broker  string
	Runs    string // the file that outlives the process: one line for each handler that begins
}

func (cfg replicaConfig) listen() owtp.ConnectConfig {
	if cfg.Broker != "" {
		return owtp.ConnectConfig{Address: cfg.Broker, ConnectType: owtp.MQ}
	}
	return owtp.ConnectConfig{Address: cfg.Address, ConnectType: owtp.HTTP}
}

// shutdownPatience is longer than a handler and a caller's way to another replica.
const shutdownPatience = 30 * time.Second

// replica is the life of one process. It says where it listens, and ends when
// its standard input does, or gently at SIGTERM.
func replica(text string) int {
	var cfg replicaConfig
	if err := json.Unmarshal([]byte(text), &cfg); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	node, err := begin(cfg)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println(node.ListenerAddr(cfg.listen().ConnectType))
	told, over := make(chan os.Signal, 1), make(chan struct{})
	signal.Notify(told, syscall.SIGTERM)
	go func() {
		defer close(over)
		io.Copy(io.Discard, os.Stdin)
	}()
	select {
	case <-told:
		ctx, cancel := context.WithTimeout(context.Background(), shutdownPatience)
		defer cancel()
		err = node.Shutdown(ctx)
	case <-over:
		err = node.Close()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func begin(cfg replicaConfig) (*owtp.OWTPNode, error) {
	cert, err := owtp.NewCertificate(cfg.Key)
	if err != nil {
		return nil, err
	}
	sessions, err := owtp.NewSessionManager(cfg.Store, &session.ManagerConfig{ProviderConfig: cfg.DSN, StoreTimeout: time.Second})
	if err != nil {
		return nil, err
	}
	// Beats come often so that postponed outcomes are written soon.
	node, err := owtp.New(owtp.NodeConfig{
		Cert: cert, Peerstore: sessions, Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)),
		Limits: owtp.Limits{StoreTimeout: time.Second, Heartbeat: 2 * time.Second, MaxHandshakeRate: 10_000, MaxReconnectDelay: 200 * time.Millisecond},
	})
	if err != nil {
		return nil, err
	}
	runs, err := os.OpenFile(cfg.Runs, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	do := func(c *owtp.Context) {
		id := c.Params().Get("id").Int()
		// What is written is the kernel's and outlives a SIGKILL.
		if _, err := runs.WriteString(strconv.FormatInt(id, 10) + "\n"); err != nil {
			panic(err)
		}
		time.Sleep(time.Duration(id%8) * time.Millisecond)
		c.Response(map[string]any{"id": id, "pid": os.Getpid()}, 0, "")
	}
	if err := node.HandleFunc("redo", do, owtp.Repeatable()); err != nil {
		return nil, err
	}
	for method, f := range map[string]owtp.HandlerFunc{
		"do": do,
		"keep": func(c *owtp.Context) {
			if err := c.SetSession("user", c.Params().Get("user").String()); err != nil {
				c.Response(nil, owtp.ErrCustomError, err.Error())
			}
		},
		"fetch": func(c *owtp.Context) { c.Response(c.GetSession("user"), 0, "") },
		"leave": func(c *owtp.Context) {
			if err := c.DestroySession(); err != nil {
				c.Response(nil, owtp.ErrCustomError, err.Error())
			}
		},
	} {
		if err := node.HandleFunc(method, f); err != nil {
			return nil, err
		}
	}
	return node, node.Listen(cfg.listen())
}
