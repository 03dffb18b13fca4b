package main

import (
	"bufio"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strings"
)

// A machine is where and with what something was measured.
type machine struct {
	Processor  string            `json:"processor"`
	Processors int               `json:"processors"`
	System     string            `json:"system"`
	Go         string            `json:"go"`
	Commit     string            `json:"commit"`
	Load       string            `json:"load"` // of one, five and fifteen minutes, before it began
	Rounds     int               `json:"rounds"`
	RoundMS    int64             `json:"roundMilliseconds"`
	Idle       int               `json:"idleConnections"`
	Versions   map[string]string `json:"versions"`
}

// peerModules are those whose versions the reader wants to know.
var peerModules = []string{
	"connectrpc.com/connect", "github.com/coder/websocket", "github.com/emmansun/gmsm", "github.com/ethereum/go-ethereum",
	"github.com/gorilla/websocket", "github.com/nats-io/nats.go", "github.com/rabbitmq/amqp091-go", "google.golang.org/grpc", "google.golang.org/protobuf",
}

func thisMachine() machine {
	m := machine{
		Processor: "unknown processor", Processors: runtime.GOMAXPROCS(0), System: runtime.GOOS + "/" + runtime.GOARCH, Go: runtime.Version(),
		Commit: said("git", "rev-parse", "--short", "HEAD"), Versions: make(map[string]string),
	}
	if m.Commit != "" && said("git", "status", "--porcelain", "-uno") != "" {
		m.Commit += " with changes"
	}
	if kernel := said("uname", "-sr"); kernel != "" {
		m.System += ", " + kernel
	}
	if f, err := os.Open("/proc/cpuinfo"); err == nil {
		defer f.Close()
		for lines := bufio.NewScanner(f); lines.Scan(); {
			if name, value, ok := strings.Cut(lines.Text(), ":"); ok && strings.TrimSpace(name) == "model name" {
				m.Processor = strings.TrimSpace(value)
				break
			}
		}
	}
	if load, err := os.ReadFile("/proc/loadavg"); err == nil {
		if f := strings.Fields(string(load)); len(f) >= 3 {
			m.Load = strings.Join(f[:3], " ")
		}
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, d := range info.Deps {
			for _, name := range peerModules {
				if d.Path == name {
					m.Versions[name] = d.Version
				}
			}
		}
	}
	return m
}

// said is what a program prints, or nothing where it is not there.
func said(name string, args ...string) string {
	out, err := exec.Command(name, args...).Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}
