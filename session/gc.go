package session

import "time"

// GC removes expired records every Gclifetime seconds until Close, and returns
// then: run it as `go manager.GC()`. Expired sessions are invisible without it
// and stores bound their memory by themselves; it gives space back earlier. It
// works in small steps that hold nobody up, and may run more than once.
func (m *Manager) GC() {
	if !m.begin() {
		return
	}
	defer m.running.Done()
	t := time.NewTicker(time.Duration(m.cfg.Gclifetime) * time.Second)
	defer t.Stop()
	for {
		select {
		case <-m.ctx.Done():
			return
		case <-t.C:
			m.sweep()
		}
	}
}

func (m *Manager) sweep() {
	for m.ctx.Err() == nil {
		n, err := m.p.Sweep(m.ctx, sweepBatch)
		if err != nil {
			if m.ctx.Err() == nil {
				m.cfg.Logger.Warn("session: sweeping failed", "err", err)
			}
			return
		}
		if n < sweepBatch {
			return
		}
	}
}

func (m *Manager) begin() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ctx.Err() != nil {
		return false
	}
	m.running.Add(1)
	return true
}

// Close ends GC and waits for it, and forgets the keys; a store that
// [NewManager] opened is closed. Methods return [ErrClosed] afterwards. A second
// Close does nothing.
func (m *Manager) Close() error {
	m.mu.Lock()
	first := m.ctx.Err() == nil
	m.cancel()
	if keys := m.keys.Load(); keys != nil {
		keys.Erase()
	}
	m.mu.Unlock()
	m.running.Wait()
	if !first || !m.owned {
		return nil
	}
	return m.p.Close()
}
