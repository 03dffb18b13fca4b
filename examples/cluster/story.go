package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/owtp-go/owtp"
)

// transfer calls once, under the number's own key, and returns who made it.
func (s *stage) transfer(no int) (by string, err error) {
	key := make([]byte, 16)
	binary.BigEndian.PutUint64(key, uint64(no))
	s.mu.Lock()
	s.calls++
	s.mu.Unlock()
	resp, err := s.client.CallContext(context.Background(), s.nodeID, "transfer", map[string]int{"no": no},
		&owtp.CallOptions{CallKey: key, Timeout: 5 * time.Second})
	if err == nil {
		err = resp.Err()
	}
	if err != nil {
		return "", err
	}
	return resp.JsonData().Get("by").String(), nil
}

// agreeOnce: keys are agreed with whichever replica comes first, and serve all.
func (s *stage) agreeOnce() error {
	s.say("\n1. One agreement on keys, used on all replicas")
	by := make(map[string]int)
	for no := 1; no <= 12; no++ {
		who, err := s.transfer(no)
		if err != nil {
			return err
		}
		by[who]++
	}
	for _, r := range s.replicas {
		s.say("   %s has made %d of 12 transfers", r.config.Name, by[r.config.Name])
	}
	if len(by) != len(s.replicas) {
		return fmt.Errorf("only %d replicas have made transfers", len(by))
	}
	return s.noneTwice()
}

// replay: somebody has recorded a transfer and sends it to each replica.
func (s *stage) replay() error {
	s.say("\n2. A recorded request, sent once more to each replica")
	request := s.lb.recorded()
	for _, r := range s.replicas {
		before := s.total()
		_, answer, err := s.lb.forward(r.config.Address, "application/owtp", request)
		if err != nil {
			return err
		}
		if made := s.total() - before; made != 0 {
			return fmt.Errorf("%s has made %d transfers of a copy", r.config.Name, made)
		}
		s.say("   %s: %d octets of refusal, sealed for the caller; no transfer", r.config.Name, len(answer))
	}
	return nil
}

// loseAnswer: the answer is lost, and the caller's next attempt reaches another
// replica.
func (s *stage) loseAnswer() error {
	s.say("\n3. An answer is lost on the way, and the retry reaches another replica")
	before := s.total()
	s.lb.loseNext()
	by, err := s.transfer(100)
	if err != nil {
		return err
	}
	if made := s.total() - before; made != 1 {
		return fmt.Errorf("the transfer was made %d times", made)
	}
	s.say("   made once, by %s; the next one answered for it", by)
	return nil
}

const (
	firstOfMany = 1000
	many        = 600
	callers     = 8
)

// killOne: one replica is killed while calls go on, and started again.
func (s *stage) killOne() error {
	s.say("\n4. %d calls by %d callers; %s is killed on the way and started again", many, callers, s.replicas[0].config.Name)
	var next, answered, unknown atomic.Int64
	var lost []int
	var mu sync.Mutex
	var wg sync.WaitGroup
	failed := make(chan error, callers)
	for range callers {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= many {
					return
				}
				_, err := s.transfer(firstOfMany + i)
				var e *owtp.Error
				switch {
				case err == nil:
					answered.Add(1)
				case errors.As(err, &e) && e.MayHaveRun:
					unknown.Add(1)
					mu.Lock()
					lost = append(lost, firstOfMany+i)
					mu.Unlock()
				default:
					failed <- fmt.Errorf("transfer %d: %w", firstOfMany+i, err)
					return
				}
			}
		})
	}
	err := s.crash(func(part int64) bool { return next.Load() >= part || len(failed) > 0 })
	wg.Wait()
	select {
	case e := <-failed:
		err = errors.Join(err, e)
	default:
	}
	if err != nil {
		return err
	}
	s.say("   %d answered, %d unknown: those that the killed process was busy with", answered.Load(), unknown.Load())
	if answered.Load()+unknown.Load() != many || unknown.Load() > callers {
		return errors.New("that are not the calls that there were")
	}
	made, err := s.ledger()
	if err != nil {
		return err
	}
	for _, no := range lost {
		s.say("   transfer %d, unknown to its caller, was made %d times", no, made[fmt.Sprint(no)])
	}
	return s.noneTwice()
}

// crash kills the first replica when a third of the calls have begun, and starts
// it again when two thirds have.
func (s *stage) crash(reached func(part int64) bool) error {
	for !reached(many / 3) {
		time.Sleep(time.Millisecond)
	}
	s.replicas[0].kill()
	s.say("   killed process %d", s.replicas[0].cmd.Process.Pid)
	for !reached(2 * many / 3) {
		time.Sleep(time.Millisecond)
	}
	r, err := start(s.replicas[0].config)
	if err != nil {
		return err
	}
	s.replicas[0] = r
	s.say("   started process %d in its place; it knows all sessions and calls", r.cmd.Process.Pid)
	return nil
}
