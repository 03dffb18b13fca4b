package file

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// open opens the file and sets the clock.
func (s *Store) open() (err error) {
	if err := os.MkdirAll(filepath.Dir(s.o.Path), 0o700); err != nil {
		return fmt.Errorf("file: %w", err)
	}
	limit := 4*s.o.MaxBytes + 64<<20
	if limit > int64(^uint(0)>>1) {
		return fmt.Errorf("file: MaxBytes is %d, more than this machine can map", s.o.MaxBytes)
	}
	defer func() {
		if err != nil && s.file != nil {
			s.abandon() // does nothing where bbolt has closed it
		}
	}()
	err = s.guarded(func() (err error) {
		s.db, err = bbolt.Open(s.o.Path, 0o600, &bbolt.Options{
			Timeout:      lockPatience,
			FreelistType: bbolt.FreelistMapType, // constant time, also where many pages are free
			MaxSize:      int(limit),
			NoStatistics: true, // they cost every read a lock
			OpenFile:     s.openFile,
		})
		if err != nil {
			return opening(err)
		}
		if err = s.begin(); err != nil {
			return errors.Join(err, s.db.Close())
		}
		return nil
	})
	return err
}

func opening(err error) error {
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		return errors.New("file: the store is open already, in this process or another one; a store in a file is one process's at a time")
	case errors.Is(err, bolterrors.ErrInvalid), errors.Is(err, bolterrors.ErrChecksum), errors.Is(err, bolterrors.ErrVersionMismatch):
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	case errors.Is(err, ErrCorrupt):
		return err
	default:
		return fmt.Errorf("file: %w", err)
	}
}

// openFile opens the file for bbolt and looks at it before bbolt does.
func (s *Store) openFile(path string, flag int, mode os.FileMode) (*os.File, error) {
	// Looked at first, since opening a pipe would wait for its other end.
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file, but %v", path, info.Mode().Type())
	}
	f, err := os.OpenFile(path, flag, mode)
	if err != nil {
		return nil, err
	}
	if err := inspect(f); err != nil {
		f.Close()
		return nil, err
	}
	s.file = f
	return f, nil
}

func inspect(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is not a regular file", f.Name())
	}
	// Windows has no such bits; there, the folder's rights decide.
	if others := info.Mode().Perm() & 0o077; others != 0 && runtime.GOOS != "windows" {
		return fmt.Errorf("%s may be used by others than its owner (mode %#o); chmod 600 it if nobody has touched it", f.Name(), info.Mode().Perm())
	}
	if info.Size() == 0 {
		return nil
	}
	return inspectMeta(f)
}

const (
	boltMagic  = 0xED0CDAED
	metaOffset = 16         // of the meta data within its page
	freelistAt = 16 + 16    // within the meta data
	noFreelist = ^uint64(0) // it is not kept in the file
)

// inspectMeta refuses what is no database, and one that does not keep its list
// of free pages: bbolt finds such a list by walking all pages in a goroutine of
// its own, where nobody can catch what a damaged page makes it do. Ours keep it.
// Another process may be writing the page that is read here: nothing but what
// is the same in all of our files is looked at.
func inspectMeta(f *os.File) error {
	var b [64]byte
	for shift := -1; shift <= 14; shift++ {
		at := int64(metaOffset)
		if shift >= 0 {
			at += 1024 << shift // the second one lies behind a page of unknown size
		}
		if _, err := f.ReadAt(b[:], at); err != nil {
			if errors.Is(err, io.EOF) {
				break
			}
			return err
		}
		if binary.NativeEndian.Uint32(b[:]) != boltMagic {
			continue
		}
		if binary.NativeEndian.Uint64(b[freelistAt:]) == noFreelist {
			return fmt.Errorf("%w: another program's bbolt database", ErrCorrupt)
		}
		return nil
	}
	return fmt.Errorf("%w: it is no bbolt database", ErrCorrupt)
}

// begin reads what the file says of itself, or makes a new store in it.
func (s *Store) begin() error {
	var t totals
	empty := true
	err := s.db.View(func(tx *bbolt.Tx) error {
		if first, _ := tx.Cursor().First(); first == nil {
			return nil
		}
		empty = false
		state := tx.Bucket(stateBucket)
		if state == nil || tx.Bucket(recordsBucket) == nil || tx.Bucket(expiryBucket) == nil {
			return fmt.Errorf("%w: another program's bbolt database", ErrCorrupt)
		}
		switch format := string(state.Get(formatKey)); {
		case format == formatText:
		case strings.HasPrefix(format, formatName):
			return fmt.Errorf("file: the store has format %.20q, a newer release's; this one reads 1", format[len(formatName):])
		default:
			return fmt.Errorf("%w: another program's bbolt database", ErrCorrupt)
		}
		var err error
		t, err = parseTotals(state.Get(totalsKey))
		return err
	})
	if err != nil {
		return err
	}
	s.clock.begin(s.o.Now, t.reached, t.wall)
	s.reached.Store(t.reached)
	if !empty {
		s.first = time.Unix(0, t.wallHigh)
		return nil
	}
	if err := s.db.Update(s.create); err != nil {
		return fmt.Errorf("file: %w", err)
	}
	return syncDir(filepath.Dir(s.o.Path))
}

func (s *Store) create(tx *bbolt.Tx) error {
	for _, name := range [][]byte{recordsBucket, expiryBucket, stateBucket} {
		if _, err := tx.CreateBucket(name); err != nil {
			return err
		}
	}
	state := tx.Bucket(stateBucket)
	t := totals{reached: s.clock.now(), wall: s.clock.wall(), wallHigh: s.clock.wall()}
	return errors.Join(state.Put(formatKey, []byte(formatText)), state.Put(totalsKey, t.encode()))
}

// syncDir makes the file's name in its folder durable.
func syncDir(path string) error {
	if runtime.GOOS == "windows" {
		return nil // folders cannot be opened there; names are journalled
	}
	d, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("file: %w", err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("file: %w", err)
	}
	return nil
}
