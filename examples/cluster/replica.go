package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"

	"github.com/owtp-go/owtp"
	"github.com/owtp-go/owtp/session"

	_ "github.com/owtp-go/owtp/contrib/redis" // the store named "redis"
)

// replicaEnv makes a process of this program a replica.
const replicaEnv = "OWTP_CLUSTER_REPLICA"

// A replicaConfig is all that replicas must have alike, and where one listens.
type replicaConfig struct {
	PrivateKey string
	Redis      string
	Name       string
	Address    string
	Ledger     string // a file in which each transfer that is made leaves a line
}

// serve is a replica. It ends with its standard input, so that it does not
// outlive who has started it.
func serve(text string) error {
	var cfg replicaConfig
	if err := json.Unmarshal([]byte(text), &cfg); err != nil {
		return err
	}
	cert, err := owtp.NewCertificate(cfg.PrivateKey)
	if err != nil {
		return err
	}
	// This is what makes it a replica: sessions, calls and the node's own state
	// are in a store that all of them share.
	shared, err := owtp.NewSessionManager("redis", &session.ManagerConfig{ProviderConfig: cfg.Redis})
	if err != nil {
		return err
	}
	defer shared.Close()
	node, err := owtp.New(owtp.NodeConfig{Cert: cert, Peerstore: shared})
	if err != nil {
		return err
	}
	defer node.Close()
	ledger, err := os.OpenFile(cfg.Ledger, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer ledger.Close()
	err = node.HandleFunc("transfer", func(ctx *owtp.Context) {
		fmt.Fprintln(ledger, ctx.Params().Get("no"))
		ctx.Response(map[string]string{"by": cfg.Name}, owtp.StatusSuccess, "transferred")
	})
	if err != nil {
		return err
	}
	if err := node.Listen(owtp.ConnectConfig{Address: cfg.Address, ConnectType: owtp.HTTP, EnableKeyAgreement: true}); err != nil {
		return err
	}
	fmt.Println(node.ListenerAddr(owtp.HTTP))
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// A replica is such a process as its parent sees it.
type replica struct {
	config replicaConfig
	cmd    *exec.Cmd
	leash  io.Closer // its standard input
}

// start starts a process and waits until it listens.
func start(cfg replicaConfig) (*replica, error) {
	text, err := json.Marshal(cfg)
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	r := &replica{config: cfg, cmd: exec.Command(self)}
	r.cmd.Env = append(os.Environ(), replicaEnv+"="+string(text))
	r.cmd.Stderr = os.Stderr
	if r.leash, err = r.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	said, err := r.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := r.cmd.Start(); err != nil {
		return nil, err
	}
	line := bufio.NewScanner(said)
	if !line.Scan() {
		r.stop()
		return nil, errors.New(cfg.Name + " does not start")
	}
	r.config.Address = line.Text()
	return r, nil
}

func (r *replica) stop() {
	r.leash.Close()
	r.cmd.Wait()
}

// kill ends the process as a crash would.
func (r *replica) kill() {
	r.cmd.Process.Kill()
	r.cmd.Wait()
}
