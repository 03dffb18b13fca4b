// Package file keeps sessions and a node's state in one file of this machine:
// durable, bounded, and for one process at a time. It is a B+tree in a memory
// map (go.etcd.io/bbolt), registered under the name "file":
//
//	import _ "github.com/owtp-go/owtp/session/file"
//
//	m, err := owtp.NewSessionManager("file", &session.ManagerConfig{
//		ProviderConfig: "/var/lib/wallet/owtp.db",
//	})
//
// What a method has confirmed is on the disk: it survives the end of the
// process, kill -9 included, and the end of the machine as far as its disk keeps
// what it has confirmed. Writers that meet share one commit. A store never
// evicts: when it is full, new records are refused and those that it has
// promised to keep stay.
//
// # Clocks
//
// A store's time goes by the monotonic clock while it is open, and by what the
// wall clock says has passed while it was closed, which is never less than
// nothing. The time that has been reached is written with every change, and
// before a record is reported as expired, so that nothing that has expired comes
// back: not after a restart, and not if the clock was set back in between. A
// clock that is set forward while the store is closed lets records expire early.
//
// # The file
//
// It has mode 0600, and a file that others may read or write is refused; its
// folder is made with mode 0700 if there is none. It grows with what is in it,
// to the limit that MaxBytes sets, and never shrinks: the room of what is gone is
// used again. A full disk is an error that changes nothing, and writing goes on
// when there is room.
//
// The folder must be on a local disk: a network's file system may neither lock
// nor map a file as it should. Do not copy the file while the store is open.
//
// A damaged file, a foreign one, and one that a newer release has written are
// errors of New. Damage that shows later is [ErrCorrupt], of one record if it is
// in that alone; in what holds the file together it ends the store, whose methods
// return it from then on. The process goes on, also if somebody truncates the file
// under it. Changing a file on purpose is out of scope: whoever can write
// it is the user that runs the program.
package file

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"

	"github.com/owtp-go/owtp/session"
)

func init() { session.Register("file", Open) }

// ErrCorrupt says that the file is damaged or is no store of this package.
var ErrCorrupt = errors.New("file: the file is damaged or no store")

// closePatience is how long Close waits for a store that has failed.
const closePatience = time.Second

// A Store is a [session.Provider] in a file. All methods are safe for concurrent
// use. Reading never waits for the disk's confirmation of others' writes. A
// method that writes waits in a bounded queue for the one goroutine that does,
// until its context ends; nobody knows then whether it has written.
type Store struct {
	db    *bbolt.DB
	file  *os.File // db's own
	o     Options
	clock clock
	first time.Time // Traits.LastUsed

	queue   chan *write
	closing chan struct{} // closed by Close
	ended   chan struct{} // closed when the writer has ended
	once    sync.Once
	reached atomic.Int64 // the store's time that is on the disk

	failed  chan struct{} // closed when failure is set
	failing sync.Once
	failure error
}

var _ session.Provider = (*Store)(nil)

// New opens the store in a file and makes the file if there is none. It waits up
// to two seconds for another process that is about to end; one store can be open
// at a time.
func New(o Options) (*Store, error) {
	o, err := o.checked()
	if err != nil {
		return nil, err
	}
	s := &Store{
		o: o, queue: make(chan *write, queueLen),
		closing: make(chan struct{}), ended: make(chan struct{}), failed: make(chan struct{}),
	}
	if err := s.open(); err != nil {
		return nil, err
	}
	go s.run()
	return s, nil
}

// Traits implements [session.Provider].
func (s *Store) Traits() session.Traits {
	return session.Traits{Name: "file", Durable: true, Lists: true, MaxValue: session.MaxValueLen, LastUsed: s.first}
}

func (s *Store) ready(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("file: not begun: %w", err)
	}
	select {
	case <-s.closing:
		return session.ErrClosed
	case <-s.failed:
		return s.failure
	default:
		return nil
	}
}

// guarded runs f, which uses the database, and turns what a damaged file makes
// bbolt do into an error: it panics, or follows a number out of the memory map.
// A page that cannot be read (a truncated file, a broken disk) is a fault as
// well. bbolt may hold its locks then, so that nothing calls it any more.
func (s *Store) guarded(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = s.fail(fmt.Errorf("%w: %v", ErrCorrupt, p))
		}
	}()
	return f()
}

// fail ends the store for good and returns why it has failed at first.
func (s *Store) fail(err error) error {
	s.failing.Do(func() {
		s.failure = err
		close(s.failed)
	})
	<-s.failed
	return s.failure
}

// Close ends the store after the commit that is under way. Methods that wait,
// and all later ones, return [session.ErrClosed]. The error is the file system's.
func (s *Store) Close() (err error) {
	s.once.Do(func() {
		close(s.closing)
		s.waitForWriter()
		select {
		case <-s.failed:
			err = s.abandon()
		default:
			err = s.guarded(s.db.Close)
		}
	})
	return err
}

// abandon closes the file of a database that nobody may call any more. The
// memory map stays until the process ends.
func (s *Store) abandon() error { return errors.Join(unlock(s.file), s.file.Close()) }

// waitForWriter waits until the writer has ended, for a second if the store has
// failed: then it may be stuck for good in a lock that bbolt has not given back.
func (s *Store) waitForWriter() {
	select {
	case <-s.ended:
		return
	case <-s.failed:
	}
	patience := time.NewTimer(closePatience)
	defer patience.Stop()
	select {
	case <-s.ended:
	case <-patience.C:
	}
}
