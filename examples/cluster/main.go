// Command cluster shows three replicas of one node behind a plain balancer: they
// have one certificate and share a Redis, and behave as one.
//
//	go run .
//
// It uses the Redis that REDIS_URL names, or starts redis-server for the time
// that it runs. Each replica is a process. It tells what it does, fails if
// anything is not as it should be, and leaves nothing running.
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	log.SetFlags(0)
	if text := os.Getenv(replicaEnv); text != "" {
		if err := serve(text); err != nil {
			log.Fatal(err)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Stdout)
	stop()
	if err != nil {
		log.Fatal("cluster: ", err)
	}
}

// run starts everything, tells the story and ends everything.
func run(ctx context.Context, out io.Writer) (err error) {
	url, stop, err := redis(ctx, out)
	if err != nil {
		return err
	}
	defer stop()
	s, err := newStage(ctx, url, out)
	if err != nil {
		return err
	}
	defer func() {
		if e := s.close(); err == nil {
			err = e
		}
	}()
	for _, act := range []func() error{s.agreeOnce, s.replay, s.loseAnswer, s.killOne} {
		if err := act(); err != nil {
			return err
		}
	}
	fmt.Fprintf(out, "\nOne node, three processes: %d calls, %d handlers, none twice.\n", s.calls, s.total())
	return nil
}
