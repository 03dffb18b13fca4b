package owtp

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/owtp-go/owtp/internal/atrest"
	"github.com/owtp-go/owtp/internal/secure"
	"github.com/owtp-go/owtp/session"
)

// While the store key is being changed, the previous one opens too. What expires
// goes by itself, and user sessions are sealed anew when they are used; but a
// binding or the epoch may lie there for ever. So a node that knows a previous
// key reads them all once and seals them under the current one.

const (
	movePage  = 100 // keys at one time
	moveFirst = time.Second
	moveMost  = time.Minute // between two attempts at a store that cannot answer
)

// moveRecords seals what never expires under the current key, however often the
// store fails meanwhile, and logs when nothing is left. It ends with the node.
func (n *OWTPNode) moveRecords() {
	for pause := moveFirst; ; pause = min(2*pause, moveMost) {
		moved, lost, err := n.state.moveAll(n.ctx)
		switch {
		case n.ctx.Err() != nil:
			return
		case errors.Is(err, errors.ErrUnsupported):
			n.log.Warn("the store cannot list its records: bindings stay sealed under PreviousStoreKey until they are made anew", "err", err)
			return
		case err == nil && lost == 0:
			n.log.Info("the epoch and all bindings are sealed under StoreKey; once all replicas say so, and what expires has expired, PreviousStoreKey can go", "moved", moved)
			return
		case err == nil:
			n.log.Error("bindings or the epoch open neither under StoreKey nor under PreviousStoreKey; the others are sealed under StoreKey", "unreadable", lost, "moved", moved)
			return
		}
		n.log.Warn("records are not sealed under the new store key yet", "err", err, "again", pause)
		t := time.NewTimer(pause)
		select {
		case <-n.ctx.Done():
			t.Stop()
			return
		case <-t.C:
		}
	}
}

// moveAll moves the epoch and all bindings. lost counts those that do not open.
func (st *state) moveAll(ctx context.Context) (moved, lost int, err error) {
	count := func(done bool, err error) error {
		switch {
		case errors.Is(err, secure.ErrRecord):
			lost++
			return nil
		case done:
			moved++
		}
		return err
	}
	if err := count(st.move(ctx, purposeEpoch, st.base+"epoch")); err != nil {
		return moved, lost, err
	}
	prefix := st.base + "bind/"
	for after := ""; ; {
		page, cancel := context.WithTimeout(ctx, storePatience)
		keys, err := st.store.List(page, prefix, after, movePage)
		cancel()
		if err != nil {
			return moved, lost, err
		}
		for _, key := range keys {
			if err := count(st.move(ctx, purposeBinding, key)); err != nil {
				return moved, lost, err
			}
			after = key
		}
		if len(keys) < movePage {
			return moved, lost, nil
		}
	}
}

// move seals one record under the current key, unless it is or has gone, and
// reports whether it did. What somebody else writes meanwhile stays.
func (st *state) move(ctx context.Context, purpose, key string) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, storePatience)
	defer cancel()
	for {
		got, err := st.get(ctx, purpose, key)
		if errors.Is(err, session.ErrNotFound) {
			return false, nil
		}
		if err != nil || !got.stale {
			return false, err
		}
		sealed, err := st.vault.Seal(st.rand, purpose, key, got.value)
		if err != nil {
			return false, err
		}
		version, err := st.store.CompareAndSwap(ctx, key, got.version, sealed, got.ttl)
		if err != nil {
			return false, fmt.Errorf("sealing anew, purpose %s: %w", purpose, err)
		}
		if version != 0 {
			return true, nil
		}
	}
}

// storeKey returns a copy of the key that seals, if both keys are right.
func (c *NodeConfig) storeKey() ([]byte, error) {
	key := slices.Clone(c.StoreKey)
	if key == nil {
		var err error
		if key, err = secure.DefaultStoreKey(c.Cert.key); err != nil {
			return nil, err
		}
	}
	if err := atrest.Check(key, c.PreviousStoreKey); err != nil {
		return nil, fmt.Errorf("owtp: NodeConfig.%w", err)
	}
	return key, nil
}
