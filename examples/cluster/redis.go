package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

var errNoRedis = errors.New(`there is no Redis to share. Either install one

    Debian, Ubuntu   apt-get install redis-server
    Fedora           dnf install valkey        (and: ln -s $(command -v valkey-server) ~/bin/redis-server)
    macOS            brew install redis

and run this again, which starts it for as long as it needs it; or name one that runs:

    REDIS_URL=redis://user:password@host:6379/0 go run .

Its maxmemory-policy must be noeviction, which is the default.`)

// redis returns the URL of a server: the one that REDIS_URL names, or one that
// is started and that stop ends.
func redis(ctx context.Context, out io.Writer) (url string, stop func(), err error) {
	if url := os.Getenv("REDIS_URL"); url != "" {
		fmt.Fprintln(out, "Redis: the one that REDIS_URL names")
		return url, func() {}, nil
	}
	program, err := exec.LookPath("redis-server")
	if err != nil {
		return "", nil, errNoRedis
	}
	// On a socket in a folder that nobody else may enter, it needs no password.
	dir, err := os.MkdirTemp("", "owtp-cluster-")
	if err != nil {
		return "", nil, err
	}
	socket := filepath.Join(dir, "redis.sock")
	cmd := exec.Command(program, "--port", "0", "--unixsocket", socket, "--dir", dir, "--save", "", "--appendonly", "yes", "--logfile", filepath.Join(dir, "log"))
	if err := cmd.Start(); err != nil {
		os.RemoveAll(dir)
		return "", nil, fmt.Errorf("starting redis-server: %w", err)
	}
	stop = func() {
		cmd.Process.Signal(os.Interrupt)
		over := time.AfterFunc(5*time.Second, func() { cmd.Process.Kill() })
		cmd.Wait()
		over.Stop()
		os.RemoveAll(dir)
	}
	if err := listens(ctx, socket); err != nil {
		stop()
		return "", nil, fmt.Errorf("redis-server does not start: %w", err)
	}
	fmt.Fprintf(out, "Redis: %s, started for this\n", program)
	return "unix://" + socket, stop, nil
}

// listens waits until something accepts connections on the socket.
func listens(ctx context.Context, socket string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for {
		conn, err := net.Dial("unix", socket)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return err
		}
	}
}
