package file_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"

	"go.etcd.io/bbolt"

	"github.com/owtp-go/owtp/session"
	"github.com/owtp-go/owtp/session/file"
	"github.com/owtp-go/owtp/session/sessiontest"
)

var bucket = []byte("bench")

// BenchmarkStore compares with bbolt itself: a transaction for each write, and
// those that Batch gathers.
func BenchmarkStore(b *testing.B) {
	for _, by := range []struct {
		name   string
		update func(db *bbolt.DB, f func(*bbolt.Tx) error) error
	}{{"Update", (*bbolt.DB).Update}, {"Batch", (*bbolt.DB).Batch}} {
		b.Run(by.name, func(b *testing.B) {
			db, err := bbolt.Open(filepath.Join(b.TempDir(), "bare"), 0o600, &bbolt.Options{FreelistType: bbolt.FreelistMapType, NoStatistics: true})
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(func() { db.Close() })
			if err := db.Update(func(tx *bbolt.Tx) error { _, err := tx.CreateBucket(bucket); return err }); err != nil {
				b.Fatal(err)
			}
			sessiontest.Benchmark(b, open(b, file.Options{}), sessiontest.Bare{
				Get: func(_ context.Context, key string) (value []byte, err error) {
					return value, db.View(func(tx *bbolt.Tx) error {
						value = bytes.Clone(tx.Bucket(bucket).Get([]byte(key)))
						return nil
					})
				},
				Put: func(_ context.Context, key string, value []byte) error {
					return by.update(db, func(tx *bbolt.Tx) error { return tx.Bucket(bucket).Put([]byte(key), value) })
				},
				Add: func(_ context.Context, key string, value []byte) error {
					return by.update(db, func(tx *bbolt.Tx) error {
						if at := tx.Bucket(bucket); at.Get([]byte(key)) == nil {
							return at.Put([]byte(key), value)
						}
						return nil
					})
				},
			})
		})
	}
}

func BenchmarkGrowth(b *testing.B) {
	sessiontest.Growth(b, 0, func(b *testing.B) (session.Provider, func() int64) {
		path := newPath(b)
		return open(b, file.Options{Path: path, MaxEntries: 4 << 20}), func() int64 {
			info, err := os.Stat(path)
			if err != nil {
				b.Fatal(err)
			}
			return info.Size()
		}
	})
}
